"""A training killed again and again.

A small training, determinism on, is killed by SIGKILL at random moments and started again each
time, until it is at its end. Promised: it ends with the bits of one that nothing stopped: the
weights of the kept model and of the last step, optimiser, moving average, step count, early
stopping, and every validation but its clock times.

    python pipelines/reliability/kills.py --kills 30
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import small_run
from rich.console import Console
from rich.progress import Progress

from speechrnn.training import checkpoint
from speechrnn.training.display import history

Make = Callable[..., Path]
PATIENCE = 300.0  # seconds that a start may take on a busy machine


def kills(folder: Path, count: int, make: Make, epochs: int, seed: int = 0) -> Iterator[list[str]]:
    """``count`` kills -> after each what is wrong, if anything; the last also has what the end
    differs in from the uninterrupted run. Where kills fell is in ``places``."""
    rng = random.Random(seed)
    whole = make(folder, "whole", epochs=epochs)
    run(whole).wait()
    wanted = small_run.outcome(folder / "whole")
    seconds = history(folder / "whole")[-1]["training_seconds"]
    # Each of them lives for a share of the training, so that they fall all over it.
    longest = 2 * seconds / count
    done, number = 0, 0
    while done < count:
        number += 1
        recipe, output = make(folder, f"killed{number}", epochs=epochs), folder / f"killed{number}"
        while done < count and (place := _killed(recipe, output, rng.uniform(0, longest))):
            places[place] += 1
            done += 1
            if done < count:
                yield []
        if (code := run(recipe).wait()) != 0:
            yield [f"exit code {code} after {done} kills"]
            return
        different = small_run.differences(small_run.outcome(output), wanted)
        if different or done == count:
            yield [f"other than uninterrupted: {', '.join(different)}"] if different else []


places: Counter[str] = Counter()


def run(recipe: Path) -> subprocess.Popen[bytes]:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "speechrnn", "train", str(recipe), "--quiet"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere)


def _killed(recipe: Path, output: Path, delay: float) -> str:
    """Start, wait for a new checkpoint and ``delay`` seconds more, and kill -> where it fell, or
    nothing if the training was at its end before."""
    saved = output / "checkpoints"
    before = checkpoint.checkpoints(saved)[:1]
    process, since = run(recipe), time.monotonic()
    while checkpoint.checkpoints(saved)[:1] == before and process.poll() is None:
        time.sleep(0.002)
        if time.monotonic() - since > PATIENCE:
            process.kill()
            raise TimeoutError(f"no checkpoint within {PATIENCE} s")
    time.sleep(delay)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        return ""
    if [*saved.glob(".step-*")]:
        return "while a checkpoint was written"
    if [*output.glob(".*.partial")]:
        return "while the model or the history was written"
    validations = history(output)
    at = checkpoint.checkpoints(saved)[0].name.split("-")[1].split(".")[0]
    if validations and validations[-1]["step"] > int(at):
        return "between a validation and its checkpoint"
    return "in a step or a validation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--language-model", action="store_true", help="Train one.")
    chosen = parser.parse_args()
    make = small_run.make_language if chosen.language_model else small_run.make
    problems = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("kills", total=chosen.kills)
        for found in kills(Path(folder), chosen.kills, make, chosen.epochs):
            bar.advance(task)
            problems += found
    for problem in problems:
        print(problem)
    for place, count in places.most_common():
        print(f"{count} {place}")
    result = f"{len(problems)} broke the promise" if problems else "all ended in the same bits"
    print(f"{chosen.kills} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
