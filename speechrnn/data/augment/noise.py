"""Other sounds at a signal-to-noise ratio."""

from __future__ import annotations

import numpy as np

ACTIVE_DB = 30.0  # below an utterance's loudest frames: pauses and what follows the last word
_FRAME_S = 0.02


def active_power(waveform: np.ndarray, sample_rate: int) -> float:
    """The mean square of the 20 ms frames in which somebody speaks.

    Those are the frames within ``ACTIVE_DB`` of the loudest but 5 in 100; pauses, however long,
    change nothing. 0 for silence.
    """
    size = max(1, min(int(_FRAME_S * sample_rate), len(waveform)))
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    power = np.einsum("fs,fs->f", frames, frames) / np.float32(size)
    if not len(power):
        return 0.0
    active = power >= np.quantile(power, 0.95) * 10 ** (-ACTIVE_DB / 10)
    return float(power[active].mean(dtype=np.float64))


def excerpt(recording: np.ndarray, samples: int, start: int) -> np.ndarray:
    """(samples,) of a recording from ``start`` on, from its beginning again at its end."""
    repeats = -(-(start + samples) // len(recording))
    if repeats == 1:
        return recording[start : start + samples]
    return np.concatenate([recording[start:], *[recording] * (repeats - 1)])[:samples]


def mix(
    waveform: np.ndarray, other: np.ndarray, snr_db: float, power: float, over: float
) -> np.ndarray:
    """``waveform`` with an ``other`` as long under it, of which ``over`` is the mean square, so
    scaled that ``power`` is ``snr_db`` above it. As it was where either is silent."""
    if power <= 0 or over <= 1e-12:
        return waveform
    factor = np.sqrt(power / over * 10 ** (-snr_db / 10))
    return waveform + np.float32(factor) * other
