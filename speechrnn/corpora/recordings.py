"""An utterance of any corpus -> its waveform."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np

from speechrnn import audio
from speechrnn.corpora.manifest import Utterance


def load(
    utterance: Utterance, sample_rate: int = 16_000, max_seconds: float | None = None
) -> np.ndarray:
    """The recording of an utterance, wherever it lies -> (samples,) float32, as ``audio.load``.

    Raises:
        AudioError: as ``audio.load`` does, naming ``utterance.where``.
    """
    return audio.load(utterance.path, sample_rate, max_seconds)


def state(utterance: Utterance) -> list[Any]:
    """What tells that an utterance's recording is still the same, without reading it: plain data
    for JSON. A recording that cannot be looked at has the state of one that is not there."""
    try:
        status = utterance.path.stat()
        found = [status.st_size, status.st_mtime_ns]
    except (OSError, ValueError):
        found = []  # decoding will say what is wrong with it
    place = astuple(utterance.within) if utterance.within else ()
    return [str(utterance.path.absolute()), *place, *found]
