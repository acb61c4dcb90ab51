"""Recordings -> transcripts, read in several processes where that pays."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import DataError, SpeechRNNError
from speechrnn.evaluation.processes import pool

_AHEAD = 4  # recordings for each process that are listened to before their turn


class Transcript(Protocol):
    """What a recogniser returns, as far as scoring is concerned."""

    @property
    def text(self) -> str: ...

    @property
    def duration_s(self) -> float: ...


class Recogniser(Protocol):
    """Anything that turns a recording into text: a run, a SavedModel, a ``.tflite``."""

    def transcribe(self, recording: Path | np.ndarray, /) -> Transcript: ...


class DividedRecogniser(Protocol):
    """One whose second half, behind the network, goes to other processes."""

    @property
    def reader(self) -> Any: ...

    def listen(self, recording: Path | np.ndarray, /) -> Any: ...


def without_posteriors(transcript: Transcript) -> Transcript:
    """The same, without the array that a list of thousands has no need of."""
    if getattr(transcript, "log_probs", None) is None:
        return transcript
    kept: Any = transcript
    return dataclasses.replace(kept, log_probs=kept.log_probs[:0].copy())


def one_by_one(
    recogniser: Recogniser, utterances: Iterable[Utterance]
) -> Iterator[Transcript | DataError]:
    """The transcript of each recording, or what is wrong with it."""
    for utterance in utterances:
        try:
            yield recogniser.transcribe(given(utterance, recogniser))
        except DataError as error:
            yield error


def given(utterance: Utterance, recogniser: Any) -> Path | np.ndarray:
    """A recording as ``transcribe`` takes it: by its path, or a waveform where it has none of its
    own."""
    if utterance.within is None:
        return utterance.path
    return recordings.load(utterance, recogniser.spec.features.sample_rate)


@contextmanager
def divided(
    recogniser: DividedRecogniser, utterances: Sequence[Utterance], jobs: int
) -> Iterator[Iterator[Transcript | DataError]]:
    """As ``one_by_one``, in the same order, by ``jobs`` processes that read what this one listens
    to: for a beam search, which takes longer than the network.

    Raises:
        SpeechRNNError: a process died, most likely for want of memory.
    """
    with pool(jobs, _start, (recogniser.reader,)) as executor:
        yield _transcripts(recogniser, utterances, executor, jobs)


def _transcripts(
    recogniser: DividedRecogniser, utterances: Sequence[Utterance], executor: Executor, jobs: int
) -> Iterator[Transcript | DataError]:
    waiting: deque[Future[Transcript] | DataError] = deque()
    try:
        for utterance in utterances:
            try:
                listened = recogniser.listen(given(utterance, recogniser))
                waiting.append(executor.submit(_read, listened))
            except DataError as error:
                waiting.append(error)
            if len(waiting) > _AHEAD * jobs:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    except BrokenProcessPool as error:
        raise SpeechRNNError(
            "a process that decodes ended before its work did, most likely for want of memory; "
            "use a narrower beam or fewer processes (--jobs)"
        ) from error


def _result(found: Future[Transcript] | DataError) -> Transcript | DataError:
    if isinstance(found, DataError):
        return found
    return found.result()


_READER: Any = None  # of a process of the pool


def _start(reader: Any) -> None:
    global _READER
    _READER = reader


def _read(listened: Any) -> Transcript:
    return without_posteriors(_READER.transcript(listened))
