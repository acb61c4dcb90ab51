"""Shards written by processes of this machine: each decodes and writes, none sends audio."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from speechrnn.data import shards
from speechrnn.data.progress import Bar
from speechrnn.data.shards import Piece, Plan, Written
from speechrnn.data.utterance import Settings
from speechrnn.errors import DataError

PIECE_UTTERANCES = 64  # at most: what a process does between two moves of the progress bar
_PIECES_EACH = 4  # at least for a worker, so that none waits long for the last one
_IN_FLIGHT = 4  # pieces a worker

_stop: Any = None  # an event, in worker processes


def bring_up_to_date(
    root: Path, plans: Sequence[Plan], settings: Settings, workers: int, bar: Bar
) -> list[Written]:
    """The planned shards, of which only those are written that are not there and sound.

    The bytes do not depend on ``workers``: one is this process itself, more are spawned.

    Raises:
        OSError: there is no space or no permission; shards that were finished stay.
        DataError: a worker process died.
    """
    with ThreadPoolExecutor(workers) as threads:  # reading and hashing leave the others running
        found = list(threads.map(partial(shards.current, root), plans))
    missing = [planned for planned, there in zip(plans, found, strict=True) if there is None]
    bar.expect(sum(len(planned.utterances) for planned in missing))
    fresh = _write(root, missing, settings, workers, bar)
    return [there or fresh[planned.name] for planned, there in zip(plans, found, strict=True)]


def _write(
    root: Path, plans: Sequence[Plan], settings: Settings, workers: int, bar: Bar
) -> dict[str, Written]:
    """Decode and write the planned shards -> what was written, by shard name."""
    jobs = [(planned, _cut(planned, plans, workers)) for planned in plans]
    workers = min(workers, sum(len(pieces) for _, pieces in jobs))
    if workers > 1:
        return _in_processes(root, jobs, settings, workers, bar)
    written = {}
    for planned, pieces in jobs:
        done = []
        for piece in pieces:
            done.append(shards.decode(root, planned, piece.utterances, settings))
            _tell(bar, piece, done[-1], settings)
        written[planned.name] = shards.join(root, planned, done)
    return written


def _cut(planned: Plan, plans: Sequence[Plan], workers: int) -> list[Plan]:
    """A plan in pieces, small enough that all workers have some of them."""
    total = sum(len(each.utterances) for each in plans)
    most = PIECE_UTTERANCES
    if workers > 1:
        most = min(most, max(1, total // (workers * _PIECES_EACH)))
    count = -(-len(planned.utterances) // most)
    size = -(-len(planned.utterances) // count)
    return [
        replace(planned, utterances=planned.utterances[start : start + size])
        for start in range(0, len(planned.utterances), size)
    ]


def _tell(bar: Bar, piece: Plan, done: Piece, settings: Settings) -> None:
    bar.advance(len(piece.utterances), done.samples / settings.sample_rate)


def _in_processes(
    root: Path,
    jobs: Sequence[tuple[Plan, list[Plan]]],
    settings: Settings,
    workers: int,
    bar: Bar,
) -> dict[str, Written]:
    joined: dict[str, Future[Written]] = {}
    waiting = ((planned, piece) for planned, pieces in jobs for piece in pieces)
    pieces_of = {planned.name: len(pieces) for planned, pieces in jobs}
    done: list[Piece] = []
    with _processes(workers) as pool:
        pending = deque(_submitted(pool, root, waiting, settings, _IN_FLIGHT * workers))
        while pending:
            planned, piece, future = pending.popleft()
            done.append(future.result())
            _tell(bar, piece, done[-1], settings)
            if len(done) == pieces_of[planned.name]:
                joined[planned.name] = pool.submit(shards.join, root, planned, done)
                done = []
            pending.extend(_submitted(pool, root, waiting, settings, 1))
        return {name: future.result() for name, future in joined.items()}


def _submitted(
    pool: ProcessPoolExecutor,
    root: Path,
    waiting: Iterator[tuple[Plan, Plan]],
    settings: Settings,
    count: int,
) -> Iterator[tuple[Plan, Plan, Future[Piece]]]:
    for planned, piece in islice(waiting, count):
        yield planned, piece, pool.submit(_decode, root, piece, settings)


def _decode(root: Path, piece: Plan, settings: Settings) -> Piece:
    return shards.decode(root, piece, piece.utterances, settings, _stop.is_set)


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that is gone at the end, whatever ends it, within the time an utterance takes.

    Spawned, not forked: TensorFlow has threads.
    """
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    pool = ProcessPoolExecutor(workers, spawn, initializer=_start_worker, initargs=(stop,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a process that prepares recordings died. In a script, call this under "
            '`if __name__ == "__main__":`; otherwise set data.workers=1 to see which recording '
            "it was, or give the machine more memory"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start_worker(stop: Any) -> None:
    """Leave Ctrl-C and a request to end to the parent, and do not outlive it when it is killed."""
    global _stop
    _stop = stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
