"""Training while an utterance gives what is no number.

One utterance of the training split, or of dev, is given NaN or inf in its audio, its features, its
logits or its gradient, whenever it comes up. Promised: that utterance is named, and no other; its
step changes nothing and every other step is made; weights, optimiser and moving average stay
finite; and the training comes to its end with a model.

    python pipelines/reliability/non_finite.py
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import small_run
import tensorflow as tf
from laboratory import Laboratory
from rich.console import Console
from rich.progress import track

from speechrnn import ctc
from speechrnn.data.dataset import DEV, TRAIN, Batches
from speechrnn.training import checkpoint, run
from speechrnn.training.display import Display, history

EPOCHS = 2
BASE = 5  # of a number that stands for a text of four letters
CASES = [
    *itertools.product((TRAIN, DEV), ("audio", "features", "logits"), ("nan", "inf")),
    *((TRAIN, "gradient", value) for value in ("nan", "inf")),
]

Case = tuple[str, str, str]


def attempts(folder: Path, cases: list[Case] = CASES) -> Iterator[tuple[str, list[str]]]:
    """Train with each kind of poison -> its name, and what is wrong with how it was taken."""
    path = small_run.make(folder, "recipe", epochs=EPOCHS, checkpoint_every_seconds=1e9)
    for split, where, value in cases:
        name = f"{where} {value} in {split}"
        yield name, _trained(path, folder / name.replace(" ", "-"), split, where, float(value))


def _trained(path: Path, output: Path, split: str, where: str, value: float) -> list[str]:
    with PoisonBehindTheNetwork(where, value) as choose:
        laboratory = Laboratory(path)
        source = laboratory.train_set if split == TRAIN else laboratory.dev_set
        texts = Counter(row.text for row in [*source.rows])
        position = next(i for i, row in enumerate(source.rows) if texts[row.text] == 1)
        victim = source.rows[position].utterance_id
        choose(np.array(source._alphabet.encode(source.rows[position].text)))
        _poison_before_the_network(source, position, where, value)
        told: list[str] = []
        with mock.patch.object(Display, "say", lambda display, message: told.append(message)):
            trainer = laboratory.trainer(output)
            with trainer.display:
                trainer.start("", "", {}, see="")
    return _problems(output, laboratory, split, victim, told)


def _poison_before_the_network(source: Batches, position: int, where: str, value: float) -> None:
    real = source._features

    def rows(x: tf.Tensor, utterances: tf.Tensor) -> tf.Tensor:
        ours = tf.reshape(utterances == position, [-1, *[1] * (x.shape.rank - 1)])
        # In one place only, as a damaged file would have it.
        place = tf.range(tf.shape(x)[1]) == tf.shape(x)[1] // 4
        return tf.where(ours & tf.reshape(place, [1, -1, *[1] * (x.shape.rank - 2)]), value, x)

    def features(batch: dict[str, Any], augmenter: Any) -> dict[str, Any]:
        if where == "audio":
            batch = {**batch, "waveforms": rows(batch["waveforms"], batch["utterances"])}
        found = real(batch, augmenter)
        if where == "features":
            found["features"] = rows(found["features"], batch["utterances"])
        return found

    source._features = features  # type: ignore[method-assign]


class PoisonBehindTheNetwork:
    """The loss of one text, chosen by its labels, reads poisoned logits or has such a gradient."""

    def __init__(self, where: str, value: float):
        self.where, self.value, self.number = where, value, tf.Variable(-1, dtype=tf.int32)
        self.patch = mock.patch.object(ctc, "loss", self.loss)
        self.real = ctc.loss

    def __enter__(self) -> Callable[[np.ndarray], None]:
        self.patch.start()
        return lambda labels: self.number.assign(
            sum(int(v) * BASE**i for i, v in enumerate(labels))
        )

    def __exit__(self, *error: object) -> None:
        self.patch.stop()

    def loss(self, logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        powers = tf.pow(BASE, tf.range(tf.shape(labels)[1]))
        ours = (tf.reduce_sum(labels * powers, axis=1) == self.number)[:, None, None]
        if self.where == "logits":
            logits = tf.where(ours, self.value, logits)
        if self.where == "gradient":
            logits = self.backwards(logits, ours)
        return self.real(logits, frames, labels)

    def backwards(self, logits: tf.Tensor, ours: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def poisoned(x: tf.Tensor) -> Any:
            return tf.identity(x), lambda dx: tf.where(ours, self.value, dx)

        return poisoned(logits)


def _problems(
    output: Path, laboratory: Laboratory, split: str, victim: str, told: list[str]
) -> list[str]:
    problems = []
    warned = [line for line in told if "not finite" in line]
    if len(warned) != EPOCHS:
        problems.append(f"{len(warned)} warnings in {EPOCHS} epochs")
    names = {row.utterance_id for row in [*laboratory.train_set.rows, *laboratory.dev_set.rows]}
    for line in warned:
        named = {name for name in names if name in line.replace(",", " ").split()}
        if named != {victim}:
            problems.append(f"named {sorted(named)} and not only {victim}: {line}")
    found = checkpoint.load_newest(output / "checkpoints")
    if found is None:
        return [*problems, "no checkpoint was written"]
    arrays, state = found
    if not all(np.isfinite(a).all() for group in arrays.values() for a in group):
        problems.append("weights, optimiser or average are not finite")
    steps = sum(len(laboratory.train_set.plan(epoch)) for epoch in range(EPOCHS))
    made = int(laboratory.learner.optimizer.iterations)
    if made != (steps - EPOCHS if split == TRAIN else steps) or state["step"] != steps:
        problems.append(f"{made} updates in {state['step']} steps")
    lines = history(output)
    if len(lines) != EPOCHS or not all(math.isfinite(line["dev_loss"]) for line in lines):
        problems.append(f"the history is {lines}")
    if not all(np.isfinite(w).all() for w in run.load(output).model.get_weights()):
        problems.append("the kept model is not finite")
    return problems


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        found = attempts(Path(folder))
        console = Console(stderr=True)
        for name, each in track(found, "kinds", len(CASES), console=console, transient=True):
            problems += each
            for problem in each:
                print(f"{name}: {problem}", flush=True)
    result = f"{len(problems)} problems" if problems else "the utterance named, the weights finite"
    print(f"{len(CASES)} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
