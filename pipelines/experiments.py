"""Trainings that are compared: which of them are missing, side by side, one line of results each.

A results file is JSON lines, kept with the project. A line has a ``key`` (which training it is),
``settings`` (a digest of all that decides its result), and what came out. A script that makes such
a file runs itself anew, as a process of its own, for each line that is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from speechrnn.errors import RecipeError, UsageError
from speechrnn.files import write_atomically
from speechrnn.recipe import Recipe

console = Console(stderr=True, soft_wrap=True)

# What a result depends on; not where its files lie, nor how many threads computed it.
DECIDING = ("seed", "data", "text", "features", "augment", "model", "training")
ELSEWHERE = {
    "data": ("manifest", "prepared", "workers"),
    "training": ("threads", "checkpoint_every_seconds", "keep_checkpoints", "show_pairs"),
}


def settings(recipe: Recipe) -> str:
    """The digest of what a recipe's result depends on, beside its recordings."""
    data = recipe.model_dump(mode="json", include=set(DECIDING))
    for section, names in ELSEWHERE.items():
        for name in names:
            data[section].pop(name, None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Results:
    """The lines of a results file, by key."""

    path: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """Every line, in the file's order; none where there is no file yet."""
        if not self.path.exists():
            return {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return {row["key"]: row for row in map(json.loads, lines)}

    def missing(self, wanted: Mapping[str, str]) -> list[str]:
        """Those of ``wanted`` (key -> settings) that have no line.

        Raises:
            RecipeError: a line is of other settings, and would stand beside what it cannot be
                compared with.
        """
        rows = self.read()
        strange = [key for key in wanted if key in rows and rows[key]["settings"] != wanted[key]]
        if strange:
            raise RecipeError(
                f"{self.path}: {', '.join(strange)} was made with other settings than the recipe "
                "has now; delete these lines to have them made anew, or name another file"
            )
        return [key for key in wanted if key not in rows]

    def add(self, row: dict[str, Any]) -> None:
        """Append a line, whole or not at all, whichever processes do so at the same time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with only_process(self.path.with_name(f".{self.path.name}.lock"), wait=True):
            before = self.path.read_bytes() if self.path.exists() else b""
            line = json.dumps(row, ensure_ascii=False, sort_keys=True)
            write_atomically(self.path, before + f"{line}\n".encode())


@contextlib.contextmanager
def only_process(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold a lock until the block, or the process, ends.

    Raises:
        UsageError: another process holds it, and ``wait`` is not set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UsageError(f"another process works on {path.parent}; wait for it") from error
        yield


def side_by_side(commands: Mapping[Path, Sequence[str]], jobs: int) -> list[Path]:
    """Run commands, ``jobs`` at a time, in their order; the output of each goes to the file that
    is its key. Returns the files of those that failed. Ended itself, it ends them too."""
    running: set[subprocess.Popen[bytes]] = set()
    guard, ending = threading.Lock(), threading.Event()
    cores = sorted(os.sched_getaffinity(0))

    def run(number: int, log: Path, command: Sequence[str]) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            with guard:
                if ending.is_set():
                    return 1
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
                running.add(process)
            console.print(f"{number} of {len(commands)}: {log.parent.name} (log: {log})")
            code = process.wait()
            running.discard(process)
        if not ending.is_set():
            console.print(f"{log.parent.name}: {'done' if code == 0 else f'failed ({code})'}")
        return code

    def end(*_: object) -> None:
        with guard:
            ending.set()
            for process in running:
                process.terminate()
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with ThreadPoolExecutor(min(jobs, len(cores))) as pool:
            numbered = enumerate(commands.items(), 1)
            codes = [pool.submit(run, number, *item) for number, item in numbered]
            try:
                return [log for log, code in zip(commands, codes, strict=True) if code.result()]
            except BaseException:  # Ctrl-C reaches the processes by itself
                ending.set()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
