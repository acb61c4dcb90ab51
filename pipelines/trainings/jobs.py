"""Trainings side by side, each in a process that ends with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.2
LOG = "log.txt"  # in a job's folder: what its process printed


def run(
    jobs: Sequence[tuple[Path, list[str]]],
    at_once: int,
    started: Callable[[Path], None],
    ended: Callable[[Path, int], None],
) -> None:
    """Run commands, ``at_once`` at a time in their order; each one's output goes to the end of
    its folder's log.

    However this ends, no process is left behind: those under way are told by SIGTERM, at which a
    training saves where it stands, and waited for.

    Args:
        jobs: folders with their commands.
        started, ended: called with the folder, and the exit code, as it happens.
    """
    waiting = list(jobs)
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                folder, command = waiting.pop(0)
                started(folder)
                running[folder] = _start(folder, command)
            time.sleep(POLL_SECONDS)
            for folder in [f for f, process in running.items() if process.poll() is not None]:
                ended(folder, running.pop(folder).returncode)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}  # errors only
    with (folder / LOG).open("ab") as log:
        # In a group of its own: Ctrl-C reaches this process alone, which passes it on once. A
        # training ends at once, without saving, where it is told a second time.
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, process_group=0)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Within it, SIGTERM, Ctrl-C and the terminal's end leave as SystemExit, with the exit code of
    a shell. What is ignored, as the terminal's end is under nohup, stays so."""

    def leave(number: int, frame: object) -> None:
        for each in before:  # a second one would interrupt the ending
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    found = {each: signal.getsignal(each) for each in ending}
    before = {each: handler for each, handler in found.items() if handler != signal.SIG_IGN}
    for each in before:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
