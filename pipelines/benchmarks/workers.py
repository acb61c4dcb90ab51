"""The processes that are measured, in turns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from implementations import LeftOut
from networks import Network
from recognisers import Spoken
from rich.progress import Progress
from shapes import Shape

PROCESS = Path(__file__).with_name("process.py")
REPOSITORY = Path(__file__).parents[2]

Measured = Shape | Network | Spoken  # what an implementation is given to do
Times = dict[str, list[float]]  # action -> seconds, one number a round


class Worker:
    """A running process.py.

    Raises:
        LeftOut: it cannot measure this here, or it has ended with an error.
    """

    def __init__(self, implementation: str, shape: Measured, **job: Any):
        self.implementation = implementation
        self.shape: Any = shape
        job |= {"implementation": implementation, "shape": asdict(shape)}
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        # Not a pipe, which would fill up unread.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(PROCESS), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        found = self._answer()
        self.actions: list[str] = found["actions"]
        self.versions: dict[str, str] = found["versions"]
        self.memory_before: int = found["memory"]
        self.first_result: float | None = None

    def measure(self, action: str, seconds: float) -> float:
        """Mean time of one ``action``, repeated for at least ``seconds``."""
        found = self._ask({"do": action, "seconds": seconds})
        if self.first_result is None:
            self.first_result = found["result"]
        return found["seconds"]

    def peak_memory(self) -> int:
        return self._ask({"do": "memory"})["memory"]

    def close(self) -> None:
        """End the process, and wait for its end: its memory is to be free for the next."""
        if self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None:
            raise LeftOut("it takes no orders")
        # A broken pipe: it has ended, and what it said last is told with the answer.
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        found = json.loads(line) if line else {"left_out": self._last_words()}
        if "left_out" in found:
            self.close()
            raise LeftOut(found["left_out"])
        return found

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        # An exception's first line names it; the lines behind it may be a whole graph.
        named = [line for line in said if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
        last = (named or said or ["it said nothing"])[-1]
        killed = f"it was ended by signal {-code}; is there enough memory? " if code < 0 else ""
        return killed + last[:300]


class Bench:
    """Workers measured round-robin, so that a slow moment of the machine hits all alike."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.workers: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def start(self, label: str, implementation: str, shape: Measured, **job: Any) -> None:
        """A worker, or the reason why there is none."""
        task = self.progress.add_task(f"start {label}", total=None)
        try:
            self.workers[label] = Worker(implementation, shape, **job)
        except LeftOut as reason:
            self.left_out[label] = str(reason)
        self.progress.remove_task(task)

    def run(self, rounds: int, seconds: float, what: str) -> dict[str, Times]:
        """By label; the first round, which traces graphs and fills caches, is not counted."""
        times: dict[str, Times] = {
            label: {action: [] for action in worker.actions}
            for label, worker in self.workers.items()
        }
        turns = (1 + rounds) * sum(len(worker.actions) for worker in self.workers.values())
        task = self.progress.add_task(what, total=turns)
        for number in range(1 + rounds):
            for label, worker in list(self.workers.items()):
                try:
                    for action in worker.actions:
                        found = worker.measure(action, seconds if number else 0.0)
                        if number:
                            times[label][action].append(found)
                        self.progress.advance(task)
                except LeftOut as reason:
                    self.left_out[label] = str(reason)
                    del self.workers[label], times[label]
        self.progress.remove_task(task)
        return times

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for worker in self.workers.values():
            found |= worker.versions
        return found
