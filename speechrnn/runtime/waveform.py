"""What a recogniser takes: samples that can be speech."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from speechrnn import audio
from speechrnn.errors import AudioError

_BLOCK = 65_536  # samples that are checked and converted at a time


def checked_blocks(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """``checked_waveform`` piece by piece, so that a long one is not copied as a whole."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or len(waveform) <= _BLOCK:
        yield checked_waveform(waveform)
        return
    for start in range(0, len(waveform), _BLOCK):
        yield checked_waveform(waveform[start : start + _BLOCK], start)


def checked_waveform(waveform: np.ndarray, first: int = 0) -> np.ndarray:
    """(samples,) float32, float64 or int16 -> float32 in about [-1, 1]. Empty and silent will do.

    Args:
        first: the sample of the recording with which the waveform begins, for messages.

    Raises:
        AudioError: with ``reason`` channels, dtype, non_finite or too_loud.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise AudioError(
            f"the waveform has shape {waveform.shape}; give one channel: (samples,)", "channels"
        )
    if waveform.dtype == np.int16:
        return audio.from_pcm16(waveform)
    if waveform.dtype not in (np.float32, np.float64):
        raise AudioError(
            f"the waveform is of {waveform.dtype}; convert it to float32, float64 or int16", "dtype"
        )
    if not np.isfinite(waveform).all():
        at = int(np.flatnonzero(~np.isfinite(waveform))[0])
        raise AudioError(
            f"sample {first + at} of the waveform is {waveform[at]}; all must be finite. Record it "
            "again.",
            "non_finite",
        )
    peak = float(np.abs(waveform).max(initial=0))
    if peak > audio.LOUDEST:
        raise AudioError(
            f"the waveform peaks at {peak:.4g} where full scale is 1; scale its samples to -1 to "
            "1, 16-bit integers by 1 / 32768",
            "too_loud",
        )
    return waveform.astype(np.float32, copy=False)
