"""Rooms: speech as it arrives with its reflections."""

from __future__ import annotations

import numpy as np
from scipy import fft

_LEAD_S = 0.001  # of a recorded response that is kept before its peak
_FIRST_REFLECTION_S = 0.003  # a metre of detour


def simulated(
    rt60_s: float, direct_db: float, sample_rate: int, draws: np.random.Generator
) -> np.ndarray:
    """A room's impulse response, (samples,) float32, its direct sound first.

    Reflections are noise that falls by 60 dB in ``rt60_s`` (Polack's model: right for a room's
    late part), from 3 ms behind the direct sound on, which has ``direct_db`` more energy than all
    of them.
    """
    size = max(2, int(rt60_s * sample_rate))
    response = draws.standard_normal(size, dtype=np.float32)
    response *= np.power(np.float32(10), np.arange(size, dtype=np.float32) * np.float32(-3 / size))
    response[: max(1, int(_FIRST_REFLECTION_S * sample_rate))] = 0
    energy = float(np.sum(np.square(response)))
    if energy > 0:
        response *= np.float32(10 ** (-direct_db / 20) / np.sqrt(energy))
    response[0] = 1
    return response


def reverberate(waveform: np.ndarray, response: np.ndarray, sample_rate: int) -> np.ndarray:
    """(samples,) in the room of an impulse response, as long and with as much energy, float32.

    The response's peak counts as the direct sound, which arrives when it did: labels keep their
    times. What rings on behind the recording's end is cut off.
    """
    peak = int(np.argmax(np.abs(response)))
    lead = min(peak, int(_LEAD_S * sample_rate))
    heard = convolve(waveform, response[peak - lead :], lead)
    before, after = (float(np.vdot(each, each)) for each in (waveform, heard))
    if after <= 0:
        return waveform
    return heard * np.float32(np.sqrt(before / after))


def convolve(waveform: np.ndarray, response: np.ndarray, lead: int = 0) -> np.ndarray:
    """(samples,) of the full convolution from sample ``lead`` on, float32.

    Overlap and save, in blocks of which a quarter overlaps; a third of the time of one transform
    of it all, and a seventh of ``scipy.signal.oaconvolve``'s, which takes blocks that do not fit
    the caches.
    """
    overlap = len(response) - 1
    block = max(4096, 1 << (4 * len(response) - 1).bit_length())
    step, samples = block - overlap, len(waveform)
    count = -(-(lead + samples) // step)
    padded = np.zeros(count * step + overlap, np.float32)
    padded[overlap : overlap + samples] = waveform
    rows = np.lib.stride_tricks.sliding_window_view(padded, block)[::step]
    found = fft.irfft(fft.rfft(rows) * fft.rfft(response, block), block)[:, overlap:]
    return found.reshape(-1)[lead : lead + samples]
