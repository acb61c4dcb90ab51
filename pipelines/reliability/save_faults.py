"""Saving while the disk refuses.

Every operation with which a training writes (opening, writing, syncing, renaming and making
folders: of checkpoints, of the best model, of the history and of the recipe) fails in turn with
ENOSPC, EACCES and EIO. Promised after each:

- the error is that of a machine that refused (exit code 1), names the folder and says what to do;
- the newest checkpoint and the model that were there still load, and nothing half-written is left;
- the same training started again ends with the bits of one that nothing stopped.

    python pipelines/reliability/save_faults.py --every 1
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import small_run
from laboratory import Laboratory
from rich.console import Console
from rich.progress import Progress

from speechrnn.errors import MachineRefused, SpeechRNNError
from speechrnn.files import read_run
from speechrnn.training import checkpoint

# Two epochs, and a checkpoint every few steps: all kinds of writing, several times.
SAVING: dict[str, Any] = {"epochs": 2, "checkpoint_every_seconds": 0.01}
CODES = (errno.ENOSPC, errno.EACCES, errno.EIO)


class HalfWritten(io.FileIO):
    """A file that takes half of what is written, and then no more."""

    def __init__(self, path: Any, code: int):
        super().__init__(path, "wb")
        self._code = code

    def write(self, content: Any) -> int:
        super().write(memoryview(content)[: len(content) // 2])
        raise OSError(self._code, os.strerror(self._code), str(self.name))


@contextmanager
def refusing(root: Path, code: int, number: int) -> Iterator[Callable[[], int]]:
    """The writing operation ``number`` below ``root`` fails, and each one after it, as on a disk
    that stays full; gives the number of those asked for so far."""
    asked = 0

    def failing() -> bool:
        nonlocal asked
        asked += 1
        return asked > number

    def guarded(real: Callable[..., Any], path_of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = path_of(*arguments)
            if str(path).startswith(str(root)) and failing():
                raise OSError(code, os.strerror(code), str(path))
            return real(*arguments, **options)

        return call

    real_open = io.open

    def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode and str(path).startswith(str(root)) and failing():
            return HalfWritten(path, code)
        return real_open(path, mode, *arguments, **options)

    def descriptor(number: int, *_: Any) -> str:
        return os.readlink(f"/proc/self/fd/{number}")

    with ExitStack() as patches:
        for name, path_of in (
            ("fsync", descriptor),
            ("rename", lambda path, *_: path),
            ("replace", lambda path, *_: path),
            ("mkdir", lambda path, *_: path),
        ):
            real = getattr(os, name)
            patches.enter_context(mock.patch.object(os, name, guarded(real, path_of)))
        patches.enter_context(mock.patch.object(io, "open", opened))
        yield lambda: asked


def faults(
    laboratory: Laboratory, folder: Path, every: int = 1, codes: tuple[int, ...] = CODES
) -> Iterator[list[str]]:
    """Each writing operation (or every ``every``th) with each error: the problems of each."""
    wanted = small_run.outcome(laboratory.run(folder / "whole", **SAVING))
    begun = _begun(laboratory, folder)
    for code in codes:
        number = 0
        while True:
            output = laboratory.copy(begun, folder / "refused")
            error: BaseException | None = None
            with refusing(output, code, number) as asked:
                try:
                    laboratory.run(output, **SAVING)
                except Exception as raised:
                    error = raised
            if asked() <= number:
                break  # it was done before
            problems = _error_problems(error, code, output) + _state_problems(output, begun)
            again = small_run.outcome(laboratory.run(output, **SAVING))
            if different := small_run.differences(again, wanted):
                problems.append(f"then other than uninterrupted: {', '.join(different)}")
            yield [f"operation {number}, {errno.errorcode[code]}: {each}" for each in problems]
            number += every


def _begun(laboratory: Laboratory, folder: Path) -> Path:
    """A run directory after one epoch of two, as a stop leaves it."""
    output = folder / "begun"
    trainer = laboratory.trainer(output, **SAVING)
    # After the first validation, in the next epoch's second step.
    real, steps = laboratory.learner.step, len(laboratory.train_set.plan(0)) + 1

    def stopped(batch: Any, rate: float) -> tuple:
        if trainer.position.step == steps:
            raise KeyboardInterrupt
        return real(batch, rate)

    with mock.patch.object(laboratory.learner, "step", stopped), trainer.display:
        try:
            trainer.start("", "", {}, see="")
        except KeyboardInterrupt:
            return output
    raise RuntimeError("it was meant to be stopped")


def _error_problems(error: BaseException | None, code: int, output: Path) -> list[str]:
    if not isinstance(error, MachineRefused) or error.exit_code != 1:
        return [f"raised {error!r}"]
    needed = (str(output), os.strerror(code), "Free space")
    return [f"the message has no {each!r}: {error}" for each in needed if each not in str(error)]


def _state_problems(output: Path, begun: Path) -> list[str]:
    found: list[object] = []
    try:
        read_run(output)
        newest = checkpoint.load_newest(output / "checkpoints", found.append)
        before = checkpoint.load_newest(begun / "checkpoints")
        if newest is None or before is None or newest[1]["step"] < before[1]["step"]:
            found.append("the newest checkpoint is gone")
    except SpeechRNNError as error:
        found.append(error)
    left = [*output.glob(".*"), *(output / "checkpoints").glob(".*")]
    return [str(each) for each in found] + [f"left behind: {path.name}" for path in left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="Try only each nth operation.")
    chosen = parser.parse_args()
    count, problems = 0, []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("faults", total=None)
        laboratory = Laboratory(small_run.make(Path(folder), "recipe", **SAVING))
        for found in faults(laboratory, Path(folder), chosen.every):
            count += 1
            bar.update(task, completed=count, description=f"{count} faults")
            problems += found
    for problem in problems:
        print(problem)
    result = f"{len(problems)} problems" if problems else "the state before intact, a clear error"
    print(f"{count} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
