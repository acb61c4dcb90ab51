"""An utterance of any corpus -> its waveform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from typing import Any

import numpy as np

from speechrnn import audio
from speechrnn.containers import Window
from speechrnn.corpora.utterance import Example, Member, Stretch, Utterance
from speechrnn.errors import AudioError


def load(
    utterance: Utterance, sample_rate: int = 16_000, max_seconds: float | None = None
) -> np.ndarray:
    """The recording of an utterance, wherever it lies -> (samples,) float32, as ``audio.load``.

    Raises:
        AudioError: as ``audio.load`` does, naming ``utterance.where``.
        MissingExtra: it lies in a TensorFlow dataset, and the extra [tfds] is not installed.
    """
    return audio.joined(blocks(utterance, sample_rate, max_seconds), utterance.where)


def blocks(
    utterance: Utterance, sample_rate: int = 16_000, max_seconds: float | None = None
) -> Iterator[np.ndarray]:
    """``load`` in pieces, as ``audio.blocks``."""
    within, name = utterance.within, utterance.where
    if isinstance(within, Member):
        with _opened(utterance) as window:
            yield from audio.blocks(window, sample_rate, max_seconds, name=name)
    elif isinstance(within, Stretch):
        start, end = within.start_s, within.end_s
        yield from audio.blocks(
            utterance.path, sample_rate, max_seconds, name=name, start_s=start, end_s=end
        )
    elif isinstance(within, Example):
        from speechrnn.corpora import tfds

        yield from tfds.blocks(utterance, sample_rate, max_seconds)
    else:
        yield from audio.blocks(utterance.path, sample_rate, max_seconds)


def header(utterance: Utterance) -> tuple[int, int]:
    """The sample rate in Hz and the channels of a recording as it is stored.

    Raises:
        AudioError: as ``load`` does.
    """
    if isinstance(utterance.within, Member):
        with _opened(utterance) as window:
            return audio.header(window, name=utterance.where)
    if isinstance(utterance.within, Example):
        return utterance.within.sample_rate, 1
    return audio.header(utterance.path)


@contextmanager
def _opened(utterance: Utterance) -> Iterator[Window]:
    """The bytes of an archive's member, which must all be there."""
    if not isinstance(utterance.within, Member):
        raise TypeError(f"{utterance.where} lies in no archive")
    offset, length = utterance.within.offset, utterance.within.size
    with ExitStack() as stack:
        try:
            file = stack.enter_context(utterance.path.open("rb"))
            size = os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise AudioError(f"{utterance.path} does not exist; correct it", "missing") from error
        except OSError as error:
            raise AudioError(f"{utterance.path} cannot be opened: {error.strerror}") from error
        if offset + length > size:
            raise AudioError(
                f"{utterance.where} is truncated: {utterance.path} ends after {size} bytes; copy "
                "it again",
                "truncated",
            )
        yield Window(file, offset, length)


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
