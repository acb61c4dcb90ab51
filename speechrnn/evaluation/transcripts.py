"""Recordings -> transcripts, read in several processes where that pays."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from speechrnn.errors import DataError, SpeechRNNError

_AHEAD = 4  # recordings for each process that are listened to before their turn


class Transcript(Protocol):
    """What a recogniser returns, as far as scoring is concerned."""

    @property
    def text(self) -> str: ...

    @property
    def duration_s(self) -> float: ...


class Recogniser(Protocol):
    """Anything that turns a recording into text: a run, a SavedModel, a ``.tflite``."""

    def transcribe(self, recording: Path, /) -> Transcript: ...


class DividedRecogniser(Protocol):
    """One whose second half, behind the network, goes to other processes."""

    @property
    def reader(self) -> Any: ...

    def listen(self, recording: Path, /) -> Any: ...


def without_posteriors(transcript: Transcript) -> Transcript:
    """The same, without the array that a list of thousands has no need of."""
    if getattr(transcript, "log_probs", None) is None:
        return transcript
    kept: Any = transcript
    return dataclasses.replace(kept, log_probs=kept.log_probs[:0].copy())


def one_by_one(recogniser: Recogniser, paths: Iterable[Path]) -> Iterator[Transcript | DataError]:
    """The transcript of each recording, or what is wrong with it."""
    for path in paths:
        try:
            yield recogniser.transcribe(path)
        except DataError as error:
            yield error


class Readers:
    """Processes that read what this one listens to: for a beam search, which takes longer than
    the network.

        with Readers(recogniser, jobs) as readers:
            for transcript in readers.transcripts(paths): ...
    """

    def __init__(self, recogniser: DividedRecogniser, jobs: int):
        self._recogniser, self._jobs = recogniser, jobs
        # Not a fork: TensorFlow's and LiteRT's threads do not survive one.
        self._pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), _start, (recogniser.reader,)
        )

    def __enter__(self) -> Readers:
        list(self._pool.map(_ready, range(self._jobs)))  # started, before anything is timed
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def transcripts(self, paths: Sequence[Path]) -> Iterator[Transcript | DataError]:
        """As ``one_by_one``, in the same order.

        Raises:
            SpeechRNNError: a process died, most likely for want of memory.
        """
        waiting: deque[Future[Transcript] | DataError] = deque()
        try:
            for path in paths:
                try:
                    listened = self._recogniser.listen(path)
                    waiting.append(self._pool.submit(_read, listened))
                except DataError as error:
                    waiting.append(error)
                if len(waiting) > _AHEAD * self._jobs:
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


def _ready(number: int) -> int:
    """Nothing: a process that answers has started."""
    return number


def _read(listened: Any) -> Transcript:
    return without_posteriors(_READER.transcript(listened))
