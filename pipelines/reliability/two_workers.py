"""Training on two workers: the loss curve of one worker; a killed worker ends all, and the next
start goes on to the same end.

    python pipelines/reliability/two_workers.py 6

Two workers of `speechrnn train` share 127.0.0.1, a network of whistles and its batches, dropout
off. First they train undisturbed: every step's loss has to be that of one worker with the same
batches, to 1e-4 of it. Then, as often as told, one of them, the chief and the other in turn, is
killed with SIGKILL at a drawn step, or asked to end with SIGTERM; the other has to end by itself
within 90 s, with exit code 1 or 143; both are started again, and end with the weights of the two
that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from small_run import make

from speechrnn.training import checkpoint, loopback

TOLERANCE = 1e-4  # of a loss and of a weight: sums over workers are taken in another order
SECONDS_TO_END = 90  # that a worker has, once another is gone; TensorFlow looks every 10 s
STEPS = 50


@dataclass(frozen=True)
class Broken(Exception):
    """What did not hold."""

    message: str

    def __str__(self) -> str:
        return self.message


def losses(output: Path) -> list[float]:
    """The loss of every step, from the logs for TensorBoard; of a step done twice, the later."""
    found = {}
    for path in sorted(output.glob("events/*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return [found[step] for step in sorted(found)]


def weights(output: Path) -> list[np.ndarray]:
    """What the last checkpoint holds of a model."""
    found = checkpoint.load_newest(output / "checkpoints")
    return [] if found is None else found[0]["model"]


def step_of(output: Path) -> int:
    """The step of the newest checkpoint."""
    found = checkpoint.checkpoints(output / "checkpoints")
    return int(found[0].name.split("-")[1].split(".")[0]) if found else 0


def workers(recipe: Path, output: Path, log: Path) -> list[subprocess.Popen[str]]:
    """Two of them; what they say is in ``log``."""

    def tell(number: int, line: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"[worker {number}] {line}\n")

    return loopback.start(2, [str(recipe), f"output={output}"], tell)


def ends(processes: list[subprocess.Popen[str]], seconds: float, log: Path) -> list[int]:
    """The exit codes; ends what does not end by itself in time, which breaks the promise."""
    deadline = time.monotonic() + seconds
    try:
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in processes]
    except subprocess.TimeoutExpired:
        raise Broken(f"a worker did not end within {seconds:.0f} s; see {log}") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(recipe: Path, output: Path, log: Path) -> None:
    """Two workers, to the end."""
    codes = ends(workers(recipe, output, log), 600, log)
    if codes != [0, 0]:
        raise Broken(f"the workers ended with {codes}; see {log}")


def differ(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The largest difference of two lists of arrays."""
    return max(float(np.max(np.abs(a - b))) for a, b in zip(found, wanted, strict=True))


def curves_agree(one: Path, two: Path) -> float:
    """The largest difference of two loss curves, relative to 1 + loss."""
    a, b = np.array(losses(one)), np.array(losses(two))
    if len(a) != len(b) or len(a) < STEPS:
        raise Broken(f"{len(a)} steps of one worker, {len(b)} of two; at least {STEPS} are needed")
    apart = float(np.max(np.abs(a - b) / (1 + np.abs(a))))
    if not apart <= TOLERANCE:
        raise Broken(f"the loss of two workers is off by {apart:.2g} of that of one")
    return apart


def disturbed(
    recipe: Path, output: Path, log: Path, victim: int, how: signal.Signals, after: int
) -> float:
    """Two workers, of which one gets a signal once there is a checkpoint of step ``after``, and two
    that go on. Returns the seconds until the other had ended."""
    processes = workers(recipe, output, log)
    deadline = time.monotonic() + 600
    while step_of(output) < after:
        if time.monotonic() > deadline or any(p.poll() is not None for p in processes):
            ends(processes, 0.1, log)
            raise Broken(f"the workers did not come to step {after}; see {log}")
        time.sleep(0.01)
    processes[victim].send_signal(how)
    sent = time.monotonic()
    codes = ends(processes, SECONDS_TO_END, log)
    took = time.monotonic() - sent
    expected = [143, 143] if how == signal.SIGTERM else [1, 1]
    expected[victim] = 143 if how == signal.SIGTERM else -how
    if codes != expected:
        raise Broken(f"exit codes {codes} after {how.name} of worker {victim}; see {log}")
    train(recipe, output, log)
    return took


def prepare(folder: Path) -> Path:
    """The recipe, dropout off, of at least ``STEPS`` steps."""
    path = make(folder, "one", epochs=9, checkpoint_every_seconds=0.2)
    tree = json.loads(path.read_text())
    tree["model"]["dropout"] = 0.0
    path.write_text(json.dumps(tree))
    return path


def main(count: int, folder: Path, seed: int) -> str:
    """Returns what was found; raises Broken."""
    recipe, rng = prepare(folder), random.Random(seed)
    done = subprocess.run([sys.executable, "-m", "speechrnn", "train", recipe, "--quiet"])
    if done.returncode:
        raise Broken(f"one worker ended with {done.returncode}")
    train(recipe, folder / "two", folder / "two.log")
    apart = curves_agree(folder / "one", folder / "two")
    steps, wanted = len(losses(folder / "two")), weights(folder / "two")
    longest, largest = 0.0, 0.0
    for number in range(count):
        print(f"\r{number} of {count}", end="", file=sys.stderr, flush=True)
        output, log = folder / f"run-{number}", folder / f"run-{number}.log"
        how = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
        took = disturbed(recipe, output, log, number % 2, how, rng.randrange(1, steps // 2))
        longest, off = max(longest, took), differ(weights(output), wanted)
        if off > TOLERANCE:
            raise Broken(f"weights are off by {off:.2g} after {how.name}; see {log}")
        largest = max(largest, off)
    print(file=sys.stderr)
    return (
        f"loss within {apart:.1g} of one worker's over {steps} steps; weights after a lost worker "
        f"within {largest:.1g}; the other ended after {longest:.0f} s at most"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    given = parser.parse_args()
    try:
        if given.folder:
            result = main(given.count, given.folder, given.seed)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                result = main(given.count, Path(temporary), given.seed)
    except Broken as broken:
        print(f"{given.count} tried: BROKEN, {broken}")
        sys.exit(1)
    print(f"{given.count} tried: {result}")
