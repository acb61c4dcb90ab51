"""The process in which ``benchmark`` measures one model: nothing else takes its memory or time.

It prints JSON, a line each: how the model began, then for every line on stdin another round.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.errors import ModelError, SpeechRNNError
from speechrnn.runtime import open_model
from speechrnn.runtime.operations import multiply_adds
from speechrnn.runtime.streaming import PIECE_SECONDS

FEWEST_PIECES = 10  # of a stream, however short the clip


def main(started: float, model: str, seconds: str) -> int:
    """Measure as this module says; an error of ours is printed too. Returns the exit code.

    ``started`` is ``time.perf_counter()`` before anything was imported.
    """
    try:
        measured = Measured(Path(model), float(seconds), started)
        _print(measured.beginning)
        for _ in sys.stdin:
            _print(measured.round())
    except SpeechRNNError as error:
        _print({"error": str(error)})
        return error.exit_code
    return 0


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


class Measured:
    """A model that has just begun, with the noise it is measured on."""

    def __init__(self, model: Path, seconds: float, started: float):
        self._recogniser = open_model(model, decoder=None)
        load = time.perf_counter() - started
        rate = self._recogniser.spec.features.sample_rate
        self._clip = _noise(int(seconds * rate))
        piece = round(PIECE_SECONDS * rate)
        stream = _noise(piece * max(FEWEST_PIECES, len(self._clip) // piece))
        self._pieces = np.split(stream, len(stream) // piece)
        self._streams = _can_stream(self._recogniser)
        # Slower than later ones, for memory is allocated and graphs are traced.
        first = _seconds(partial(self._recogniser.transcribe, self._clip))
        self.beginning = {
            "kind": self._recogniser.kind,
            "load_s": load,
            "first_result_s": load + first,
            "first_partial_s": self._first_partial() if self._streams else None,
            "multiply_adds_per_second": multiply_adds(self._recogniser.spec),
        }

    def round(self) -> dict[str, Any]:
        """Seconds for the clip, the median seconds for a piece of a stream, and bytes held at
        most until now."""
        result = _seconds(partial(self._recogniser.transcribe, self._clip))
        piece = None
        if self._streams:
            stream = self._recogniser.stream()
            piece = statistics.median(_seconds(partial(stream.feed, p)) for p in self._pieces)
        return {"result_s": result, "piece_s": piece, "peak_rss_bytes": peak_rss()}

    def _first_partial(self) -> float | None:
        """Seconds from a recording's first sample to the first partial result: those recorded
        until then, and those computed since."""
        stream = self._recogniser.stream()
        for number, piece in enumerate(self._pieces, 1):
            start = time.perf_counter()
            if stream.feed(piece):
                return number * PIECE_SECONDS + time.perf_counter() - start
        return None


def _noise(samples: int) -> np.ndarray:
    """What is in a clip makes no difference to the operations that it takes."""
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _can_stream(recogniser: Any) -> bool:
    try:
        recogniser.stream()
    except ModelError:
        return False
    return True


def peak_rss() -> int:
    """Bytes this process has held at most.

    Linux's ru_maxrss would do, did it not start at what the process held that started this one.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
