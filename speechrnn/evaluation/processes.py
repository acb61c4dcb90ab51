"""Processes that decode while others do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def pool(jobs: int, start: Callable[..., object], arguments: tuple[Any, ...]) -> Iterator[Executor]:
    """``jobs`` processes that have run ``start(*arguments)``, each on one thread.

    Not forks: TensorFlow's and LiteRT's threads do not survive one. NumPy's products of a recurrent
    language model are small, and several processes with a thread for every core get in each
    other's way.
    """
    kept = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # the processes inherit it, this one has begun
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(jobs, spawn, start, arguments) as executor:
            try:
                list(executor.map(_ready, range(jobs)))  # started, before anything is timed
                yield executor
            finally:
                executor.shutdown(cancel_futures=True)
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ready(number: int) -> int:
    """Nothing: a process that answers has started."""
    return number
