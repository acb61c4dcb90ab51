"""What a microphone and a line let through: a band, and the 8 kHz telephone.

Both work on a recording's whole spectrum: phases stay, so nothing moves in time.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

TELEPHONE_HZ = 8000
MU = 255  # G.711
_SLOPE = 0.15  # of an edge: how far beyond it the pass band reaches on its way to nothing
_SILENCE_S = 0.05  # appended, so that what rings at the end does not do so at the start


def band_limit(waveform: np.ndarray, sample_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """(samples,) -> what lies between two frequencies, as long as it was, float32.

    Passed unchanged between ``low_hz`` and ``high_hz``, removed beyond 0.85 ``low_hz`` and 1.15
    ``high_hz``, a half cosine between. A ``low_hz`` of 0 leaves the bottom alone, and a
    ``high_hz`` from half the sample rate on the top.
    """
    size = fft.next_fast_len(len(waveform) + int(_SILENCE_S * sample_rate), real=True)
    spectrum = fft.rfft(waveform, size)
    hertz = np.arange(len(spectrum), dtype=np.float32) * np.float32(sample_rate / size)
    if low_hz > 0:
        spectrum *= _rise(hertz, (1 - _SLOPE) * low_hz, low_hz)
    if high_hz < sample_rate / 2:
        spectrum *= _rise(-hertz, -(1 + _SLOPE) * high_hz, -high_hz)
    return fft.irfft(spectrum, size)[: len(waveform)]


def telephone(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """(samples,) -> as it comes out of an 8 kHz line with G.711's mu-law, as long, float32.

    What is above 4 kHz is gone, what is over full scale is clipped, and each sample of 8 kHz has
    one of 256 levels. At a sample rate up to 8 kHz only the levels remain.
    """
    if sample_rate <= TELEPHONE_HZ:
        return mu_law(waveform)
    common = math.gcd(sample_rate, TELEPHONE_HZ)
    wide, narrow = sample_rate // common, TELEPHONE_HZ // common
    blocks = -(-(len(waveform) + int(_SILENCE_S * sample_rate)) // wide)
    blocks = fft.next_fast_len(blocks, real=True)
    spectrum = fft.rfft(waveform, blocks * wide)[: blocks * narrow // 2 + 1]
    line = mu_law(fft.irfft(spectrum * np.float32(narrow / wide), blocks * narrow))
    back = fft.irfft(fft.rfft(line) * np.float32(wide / narrow), blocks * wide)
    return back[: len(waveform)]


def mu_law(waveform: np.ndarray) -> np.ndarray:
    """G.711's mu-law and back: each sample becomes the middle of its interval, float32.

    G.711 (11/88), table 2a: 8 segments of 16 intervals on each side of zero; within a segment
    intervals are equal, and twice as wide as in the one below. In 14-bit steps a magnitude m lies
    in segment floor(log2((m + 33) / 32)) - 1; full scale is 8159 of 8192 steps.
    """
    steps = np.minimum(np.abs(waveform) * np.float32(8192), np.float32(8158))
    exponent = np.frexp(steps + np.float32(33))[1] - 6  # of the segment, from 0
    width = np.ldexp(np.float32(2), exponent)
    middle = (np.floor((steps + 33) / width) + np.float32(0.5)) * width - 33
    middle = np.where(steps < 1, np.float32(0), middle)  # the first interval is half as wide
    return np.copysign(middle * np.float32(1 / 8192), waveform)


def _rise(hertz: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """0 up to ``bottom``, 1 from ``top`` on, half a cosine between."""
    share = np.clip((hertz - np.float32(bottom)) / np.float32(top - bottom), 0, 1)
    return np.float32(0.5) - np.float32(0.5) * np.cos(np.float32(np.pi) * share)
