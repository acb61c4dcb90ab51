"""A process killed while it saves.

A process saves one checkpoint after the other, as large as those of a recogniser of 5 million
parameters (weights, two moments and a moving average: 80 MB), and is killed by SIGKILL at a random
moment of a save. Promised: the newest whole checkpoint is the one whose save had ended, or the one
that was being saved, and holds exactly what was saved; nothing half-written outlives the next save.

    python pipelines/reliability/kills_in_save.py --kills 50
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from speechrnn.training import checkpoint

GROUPS = {"model": 1, "optimizer": 2, "average": 1}


def contents(step: int, parameters: int) -> dict[str, list[np.ndarray]]:
    """Arrays that only this step has."""
    base = np.arange(parameters, dtype=np.float32)
    return {group: [base + (step + i) for i in range(n)] for group, n in GROUPS.items()}


def save_for_ever(folder: str, first: int, parameters: int, told: Connection) -> None:
    """Save step after step; tells of each when it begins."""
    step = first
    while True:
        arrays = contents(step, parameters)
        told.send(step)
        checkpoint.save(Path(folder), step, arrays, {"step": step}, keep=2)
        step += 1


def kills(folder: Path, count: int, parameters: int, seed: int = 0) -> Iterator[list[str]]:
    """``count`` kills -> what is wrong after each."""
    rng = random.Random(seed)
    # Each process is forked from one that has imported what it needs, and nothing else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["speechrnn.training.checkpoint"])
    lasted = _seconds(folder, parameters)
    first = 2
    for _ in range(count):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=save_for_ever, args=(str(folder), first, parameters, sender), daemon=True
        )
        process.start()
        sender.close()
        for _ in range(rng.randint(1, 3)):
            saving = receiver.recv()
        time.sleep(rng.uniform(0, lasted))
        process.kill()
        process.join()
        while receiver.poll():  # it may have gone on to the next
            try:
                saving = receiver.recv()
            except EOFError:
                break
        newest, problems = _state(folder, saving, parameters)
        yield problems
        first = newest + 1
    checkpoint.save(folder, first, contents(first, parameters), {"step": first}, keep=2)
    if left := [path.name for path in folder.iterdir() if not path.name.startswith("step-")]:
        yield [f"left behind for ever: {left}"]


def _seconds(folder: Path, parameters: int) -> float:
    """How long a save takes; leaves step 1 behind."""
    arrays, started = contents(1, parameters), time.monotonic()
    for step in (0, 1):
        checkpoint.save(folder, step, arrays, {"step": 1}, keep=2)
    return (time.monotonic() - started) / 2


def _state(folder: Path, saving: int, parameters: int) -> tuple[int, list[str]]:
    """The step of the newest checkpoint after a kill in ``saving``, and what is wrong with it."""
    told: list[str] = []
    found = checkpoint.load_newest(folder, lambda damage: told.append(str(damage)))
    problems = [f"killed in step {saving}: {each}" for each in told]
    if found is None:
        return saving, [*problems, f"no checkpoint after a kill in step {saving}"]
    arrays, newest = found[0], found[1]["step"]
    if newest not in (saving - 1, saving):
        problems.append(f"killed in step {saving}, and step {newest} is the newest")
    wanted = contents(newest, parameters)
    same = all(
        np.array_equal(a, b) for g in wanted for a, b in zip(arrays[g], wanted[g], strict=True)
    )
    return newest, problems if same else [*problems, f"step {newest} holds other arrays"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=5_000_000)
    chosen = parser.parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("kills", total=chosen.kills)
        for found in kills(Path(folder), chosen.kills, chosen.parameters):
            bar.advance(task)
            problems += found
    for problem in problems:
        print(problem)
    result = f"{len(problems)} problems" if problems else "the newest whole checkpoint loads"
    print(f"{chosen.kills} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
