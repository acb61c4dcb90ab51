"""An utterance of any corpus -> its waveform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from speechrnn import audio
from speechrnn.containers import Window
from speechrnn.corpora.manifest import Example, Member, Stretch, Utterance
from speechrnn.errors import AudioError


def load(
    utterance: Utterance, sample_rate: int = 16_000, max_seconds: float | None = None
) -> np.ndarray:
    """The recording of an utterance, wherever it lies -> (samples,) float32, as ``audio.load``.

    Raises:
        AudioError: as ``audio.load`` does, naming ``utterance.where``.
        MissingExtra: it lies in a TensorFlow dataset, and the extra [tfds] is not installed.
    """
    return np.concatenate(list(blocks(utterance, sample_rate, max_seconds)))


def blocks(
    utterance: Utterance, sample_rate: int = 16_000, max_seconds: float | None = None
) -> Iterator[np.ndarray]:
    """``load`` in pieces, as ``audio.blocks``."""
    within, name = utterance.within, utterance.where
    if isinstance(within, Member):
        with _opened(utterance) as file:
            window = Window(file, within.offset, within.size)
            yield from audio.blocks(window, sample_rate, max_seconds, name=name)
    elif isinstance(within, Stretch):
        times = {"start_s": within.start_s, "end_s": within.end_s}
        yield from audio.blocks(utterance.path, sample_rate, max_seconds, name=name, **times)
    elif isinstance(within, Example):
        from speechrnn.corpora import tfds

        yield from tfds.blocks(utterance, sample_rate, max_seconds)
    else:
        yield from audio.blocks(utterance.path, sample_rate, max_seconds)


def source(utterance: Utterance, sample_rate: int) -> Path | np.ndarray:
    """What a recogniser takes: the path of a recording that is a file, or else its waveform.

    Raises:
        AudioError: as ``load`` does, of one that is no file.
    """
    return utterance.path if utterance.within is None else load(utterance, sample_rate)


@contextmanager
def _opened(utterance: Utterance) -> Iterator[BinaryIO]:
    """The archive of a member, whose bytes it must have."""
    if not isinstance(utterance.within, Member):
        raise TypeError(f"{utterance.where} lies in no archive")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(utterance.path.open("rb"))
            size = os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise AudioError(
                f"{utterance.path} does not exist; copy it again", "missing"
            ) from error
        except OSError as error:
            raise AudioError(f"{utterance.path} cannot be opened: {error.strerror}") from error
        if utterance.within.offset + utterance.within.size > size:
            raise AudioError(
                f"{utterance.where} is truncated: {utterance.path} ends after {size} bytes; copy "
                "it again",
                "truncated",
            )
        yield file


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
