"""How fast a recipe trains on this machine, and the epochs that fit into a given time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from speechrnn import model as network
from speechrnn.data.dataset import DEV, TRAIN, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.recipe import Recipe
from speechrnn.training.recogniser import RecogniserLearner

TRACING_STEPS = 3  # at the start, slower than the others: graphs are traced, memory is taken
VALIDATIONS = 10  # in a run


@dataclass(frozen=True)
class Speed:
    """What training costs on this machine, in seconds."""

    start: float  # tracing the training step, once
    epoch: float
    first_validation: float  # tracing included
    validation: float

    def total(self, epochs: int) -> float:
        validations = -(-epochs // validate_every(epochs))
        return (
            self.start
            + epochs * self.epoch
            + self.first_validation
            + (validations - 1) * self.validation
        )

    def epochs_within(self, seconds: float) -> int:
        """The most epochs that end in time; at least one."""
        candidates = range(1, 2 + int(seconds / self.epoch))
        return max((n for n in candidates if self.total(n) <= seconds), default=1)


def validate_every(epochs: int) -> int:
    return max(1, round(epochs / VALIDATIONS))


def measure(recipe: Recipe, seconds: float) -> Speed:
    """Train for ``seconds`` in memory only and validate twice."""
    index = prepare(recipe)
    spec = recogniser_spec(recipe, index)
    train_set, dev_set = (Batches(recipe, spec, index, split) for split in (TRAIN, DEV))
    learner = RecogniserLearner(
        network.build(spec, recipe.seed, recipe.training.precision), spec, recipe
    )
    rate = recipe.training.final_learning_rate
    started = time.monotonic()
    batches = iter(train_set.epochs(1, 1_000_000))  # past the first, which is sorted by length
    for _ in range(TRACING_STEPS):
        learner.step(next(batches), rate)[0].numpy()
    traced = time.monotonic()
    audio, steps = 0.0, 0
    while time.monotonic() - traced < seconds:
        batch = next(batches)
        learner.step(batch, rate)[0].numpy()
        steps += 1
        # As the corpus has it, before any change of speed: an epoch is the corpus once.
        rows = batch["utterances"].numpy()
        audio += sum(train_set.rows[i].samples for i in rows) / index.sample_rate
    stepped = time.monotonic()
    epoch = (stepped - traced) * index.seconds(TRAIN) / audio
    validations = []
    for _ in range(2):
        began = time.monotonic()
        learner.validate(dev_set, dev_set.plain())
        validations.append(time.monotonic() - began)
    tracing = traced - started - TRACING_STEPS * (stepped - traced) / steps
    return Speed(max(0.0, tracing), epoch, *validations)
