"""Calls from TensorFlow's threads into Python, and an end of the process that waits for them.

A thread that is inside such a call when the interpreter shuts down never comes out of it, and
TensorFlow then waits for that thread for ever: a script that ends with an iterator left in its
midst would hang.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

_QUIET = 0.1  # seconds without a call after which none is on its way
_PATIENCE = 10.0  # seconds

_lock = threading.Lock()
_ending = threading.Event()
_streams = 0  # that are neither at their end nor given up
_inside = 0
_last = 0.0


def stream(items: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    """A generator function for ``Dataset.from_generator`` that ends when the process does."""

    @wraps(items)
    def counted() -> Iterator[Any]:
        global _streams
        with _lock:
            _streams += 1
        try:
            for item in items():
                if _ending.is_set():
                    return
                yield item
        finally:
            with _lock:
                _streams -= 1

    return counted


def call(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function for ``tf.numpy_function`` that the end of the process waits for."""

    @wraps(function)
    def counted(*arguments: Any) -> Any:
        global _inside, _last
        with _lock:
            _inside += 1
        try:
            return function(*arguments)
        finally:
            with _lock:
                _inside, _last = _inside - 1, time.monotonic()

    return counted


@atexit.register
def _settle() -> None:
    """Let streams end and calls return, while threads may still run Python."""
    _ending.set()
    started = time.monotonic()
    while _streams and time.monotonic() - started < _PATIENCE:
        time.sleep(_QUIET / 4)
        if not _inside and time.monotonic() - max(_last, started) > _QUIET:
            return
