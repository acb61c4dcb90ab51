"""Faster or slower, higher or lower."""

from __future__ import annotations

import numpy as np
import soxr


def change_speed(waveform: np.ndarray, rate: float) -> np.ndarray:
    """(samples,) played ``rate`` times as fast -> (floor(samples / rate),) float32.

    1.1 is shorter and higher, as a tape that runs faster. soxr's HQ resampling: tones that are
    below 0.9 of half the sample rate before and after keep their level, to 0.01 dB, and what
    would fold back is 100 dB down.
    """
    if rate == 1:
        return waveform
    length = int(len(waveform) / rate)
    return fit(soxr.resample(waveform, rate, 1.0, quality="HQ"), length)


def fit(waveform: np.ndarray, length: int) -> np.ndarray:
    """Cut, or followed by silence, to ``length`` samples."""
    if len(waveform) >= length:
        return waveform[:length]
    return np.concatenate([waveform, np.zeros(length - len(waveform), waveform.dtype)])
