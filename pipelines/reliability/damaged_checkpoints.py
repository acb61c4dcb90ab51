"""Checkpoints with flipped bits and cut short.

Each file of the newest of two checkpoints (arrays.npz, state.json, sha256.json) and of a run's
model (weights-N.npz, model.json) is damaged: a bit flipped at random, or cut at a random length.
Promised: every damage is noticed when it is loaded, the message names the file, and of checkpoints
the one before is taken, whole.

    python pipelines/reliability/damaged_checkpoints.py --flips 300 --cuts 100
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from speechrnn.errors import ModelError
from speechrnn.files import MODEL, read_run
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.training import checkpoint, run

OLD, NEW = 7, 9


def damages(data: bytes, flips: int, cuts: int, rng: np.random.Generator) -> Iterator[bytes]:
    """The bytes with one bit flipped, ``flips`` times; cut, ``cuts`` times."""
    for place in rng.integers(0, 8 * len(data), flips):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << (place % 8)
        yield bytes(flipped)
    for length in rng.choice(len(data), cuts, replace=cuts > len(data)):
        yield data[:length]


def checkpoint_problems(folder: Path, flips: int, cuts: int, seed: int = 0) -> Iterator[list[str]]:
    """Every damage to a checkpoint's files -> what is wrong with how it was taken."""
    rng = np.random.default_rng(seed)
    for step in (OLD, NEW):
        arrays: dict[str, list[np.ndarray]] = {
            "model": [rng.normal(size=(80, 90)).astype(np.float32), np.full(3, step, np.int32)],
            "optimizer": [rng.normal(size=500).astype(np.float32)],
        }
        state = {"step": step, "seconds": 0.1 * step, "best": [0.5, 1.25]}
        checkpoint.save(folder, step, arrays, state, keep=2)
    [older] = [path for path in checkpoint.checkpoints(folder) if path.name.endswith(str(OLD))]
    expected = {name: (older / name).read_bytes() for name in (checkpoint.ARRAYS, checkpoint.STATE)}
    newest = checkpoint.checkpoints(folder)[0]
    for name in (checkpoint.ARRAYS, checkpoint.STATE, checkpoint.SUMS):
        sound = (newest / name).read_bytes()
        for damaged in damages(sound, flips, cuts, rng):
            (newest / name).write_bytes(damaged)
            yield [f"{name}: {problem}" for problem in _taken(folder, newest / name, expected)]
        (newest / name).write_bytes(sound)


def _taken(folder: Path, damaged: Path, expected: dict[str, bytes]) -> list[str]:
    told: list[str] = []
    try:
        found = checkpoint.load_newest(folder, lambda damage: told.append(str(damage)))
    except Exception as error:
        return [f"raised {error!r}"]
    if found is None or found[1] != json.loads(expected[checkpoint.STATE]):
        return ["not noticed"]
    problems = []
    if found[0]["model"][1].tolist() != [OLD] * 3:
        problems.append("the arrays are not those of the checkpoint before")
    if len(told) != 1 or not any(str(damaged.parent / name) in told[0] for name in _named(damaged)):
        problems.append(f"said {told}")
    return problems


def _named(damaged: Path) -> tuple[str, ...]:
    # A checksum that differs tells that one of the two is damaged, and not which.
    if damaged.name == checkpoint.SUMS:
        return (checkpoint.SUMS, checkpoint.ARRAYS, checkpoint.STATE)
    return (damaged.name,)


def model_problems(folder: Path, flips: int, cuts: int, seed: int = 0) -> Iterator[list[str]]:
    """Every damage to a run's model -> what is wrong with how it was taken."""
    rng = np.random.default_rng(seed)
    spec = RecogniserSpec(FeatureSpec(), AlphabetSpec(("a", "b")), ModelSpec(units=8))
    weights = [rng.normal(size=(40, 50)).astype(np.float32)]
    run.save(folder, 5, weights, spec, {"name": "x", "dev": {"wer": 0.25}})
    read_run(folder)
    for name in ("weights-5.npz", MODEL):
        content = (folder / name).read_bytes()
        for damaged in damages(content, flips, cuts, rng):
            (folder / name).write_bytes(damaged)
            yield [f"{name}: {each}" for each in _refused(folder, name)]
        (folder / name).write_bytes(content)


def _refused(folder: Path, name: str) -> list[str]:
    try:
        read_run(folder)
    except ModelError as error:
        return [] if name in str(error) else [f"not named: {error}"]
    except Exception as error:
        return [f"raised {error!r}"]
    return ["not noticed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flips", type=int, default=300, help="Of each file.")
    parser.add_argument("--cuts", type=int, default=100, help="Of each file.")
    chosen = parser.parse_args()
    problems, count = [], 0
    folder = Path(tempfile.mkdtemp())
    (folder / "model").mkdir()
    try:
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("damages", total=5 * (chosen.flips + chosen.cuts))
            for source in (
                checkpoint_problems(folder / "checkpoints", chosen.flips, chosen.cuts),
                model_problems(folder / "model", chosen.flips, chosen.cuts),
            ):
                for found in source:
                    count += 1
                    bar.advance(task)
                    problems += found
    finally:
        shutil.rmtree(folder)
    for problem in problems:
        print(problem)
    result = f"{len(problems)} problems" if problems else "all noticed, the file named"
    print(f"{count} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
