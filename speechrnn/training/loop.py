"""Training, top to bottom: epochs of steps, a validation after each, checkpoints on the way."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

import speechrnn
from speechrnn import model as network
from speechrnn.data.dataset import DEV, TRAIN, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import RecipeError, TrainingDiverged
from speechrnn.evaluation.error_rates import ErrorRates
from speechrnn.recipe import Recipe
from speechrnn.training import checkpoint, run
from speechrnn.training.display import Display, Validation
from speechrnn.training.schedule import learning_rate
from speechrnn.training.step import Learner

NON_FINITE_IN_A_ROW = 5  # steps without a finite loss after which training gives up


@dataclass
class Position:
    """Where training stands, apart from the arrays; saved with every checkpoint."""

    epoch: int = 0
    batch: int = 0  # within the epoch
    step: int = 0
    seconds: float = 0.0  # of training so far, stops left out
    best_wer: float | None = None
    best_dev_loss: float | None = None
    validations_without_gain: int = 0
    losses: list[float] = field(default_factory=list)  # of steps since the last validation


def train(recipe: Recipe, quiet: bool = False) -> dict[str, Any]:
    """Train a recipe to its end, going on from the last checkpoint where there is one.

    Prepares the corpus first where that is not done. Returns the best model's card, which
    ``run.load(recipe.output)`` gives with the model.

    Raises:
        DataError: nothing to train on; losses that stay non-finite.
        RecipeError: the run directory holds a run with another model or other data.
    """
    index = prepare(recipe, progress=not quiet)
    spec = recogniser_spec(recipe, index)
    train_set = Batches(recipe, spec, index, TRAIN)
    dev_set = Batches(recipe, spec, index, DEV)
    model = network.build(spec, recipe.seed, recipe.training.precision)
    learner = Learner(model, spec, recipe)
    identity = recipe.fingerprint("seed", "features", "text", "model") + index.corpus_sha256
    position = _resume(recipe, learner, identity)
    recipe.output.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_file(recipe.output / "recipe.yaml", recipe.to_yaml().encode())
    with Display(recipe.output, recipe.training.epochs, recipe.training.show_pairs, quiet) as display:
        display.say(
            f"{recipe.name}: {model.count_params():,} parameters; "
            f"{index.seconds(TRAIN) / 3600:.2f} h to train on, {index.seconds(DEV) / 3600:.2f} h dev"
            + (f"; going on from step {position.step}" if position.step else "")
        )
        _epochs(recipe, learner, position, train_set, dev_set, display, identity)
    return run.load(recipe.output).card


def _resume(recipe: Recipe, learner: Learner, identity: str) -> Position:
    found = checkpoint.load_newest(recipe.output / "checkpoints")
    if found is None:
        return Position()
    arrays, state = found
    if state.pop("identity") != identity:
        raise RecipeError(
            f"{recipe.output} holds a run with another seed, model, features, text rules or "
            "data; name another output, or delete that folder"
        )
    learner.restore(arrays)
    return Position(**state)


def _epochs(
    recipe: Recipe, learner: Learner, position: Position, train_set: Batches, dev_set: Batches,
    display: Display, identity: str,
) -> None:
    section = recipe.training
    dev_batches = dev_set.plain()
    batches = iter(train_set.epochs(position.epoch, section.epochs, skip=position.batch))
    while position.epoch < section.epochs and not _out_of_patience(recipe, position):
        started, audio = time.perf_counter(), 0.0
        seconds_before = position.seconds
        for audio in _steps(recipe, learner, position, train_set, batches, display, identity):
            position.seconds = seconds_before + time.perf_counter() - started
        audio_rate = audio / max(1e-9, time.perf_counter() - started)
        if (position.epoch + 1) % section.validate_every_epochs == 0 or (
            position.epoch + 1 == section.epochs
        ):
            _validate(recipe, learner, position, dev_set, dev_batches, display, audio_rate)
        position.seconds = seconds_before + time.perf_counter() - started
        position.epoch, position.batch = position.epoch + 1, 0
        if position.epoch == section.epochs or _out_of_patience(recipe, position):
            _save(recipe, learner, position, identity)


def _steps(
    recipe: Recipe, learner: Learner, position: Position, train_set: Batches,
    batches: Iterator[dict[str, tf.Tensor]], display: Display, identity: str,
) -> Iterator[float]:
    """The rest of the current epoch, a step at a time; yields the audio seconds so far."""
    section = recipe.training
    planned = len(train_set.plan(position.epoch))
    saved = started = time.monotonic()
    audio = 0.0
    failures: deque[list[str]] = deque(maxlen=NON_FINITE_IN_A_ROW)
    while position.batch < planned:
        batch = next(batches)
        progress = position.epoch + position.batch / planned
        rate = learning_rate(progress / section.epochs, section)
        loss, finite, norm, by_layer = learner.step(batch, tf.constant(rate, tf.float32))
        position.batch += 1
        position.step += 1
        if finite:
            failures.clear()
            position.losses.append(float(loss))
        else:
            failures.append(_names(train_set, batch))
            _report_non_finite(display, position, failures)
        audio += float(tf.reduce_sum(batch["samples"])) / recipe.features.sample_rate
        norms = {"all": float(norm), **dict(zip(learner.layers, by_layer.numpy(), strict=True))}
        display.step(
            position.step, progress, position.epoch, float(loss), rate, norms,
            audio / (time.monotonic() - started),
        )
        yield audio
        if time.monotonic() - saved > section.checkpoint_every_seconds:
            _save(recipe, learner, position, identity)
            saved = time.monotonic()


def _names(train_set: Batches, batch: dict[str, tf.Tensor]) -> list[str]:
    return [train_set.rows[i].utterance_id for i in batch["utterances"].numpy()]


def _report_non_finite(display: Display, position: Position, failures: deque[list[str]]) -> None:
    names = ", ".join(failures[-1])
    display.say(
        f"step {position.step}: loss or gradient not finite; the weights were left as they "
        f"were. Utterances: {names}"
    )
    if len(failures) == NON_FINITE_IN_A_ROW:
        raise TrainingDiverged(
            f"{NON_FINITE_IN_A_ROW} steps in a row had a loss or gradient that is not finite, the "
            f"last at step {position.step} with {names}. Lower training.learning_rate, or "
            "listen to these recordings."
        )


def _save(recipe: Recipe, learner: Learner, position: Position, identity: str) -> None:
    state = {**vars(position), "identity": identity}
    folder = recipe.output / "checkpoints"
    keep = recipe.training.keep_checkpoints
    checkpoint.save(folder, position.step, learner.arrays(), state, keep)


def _validate(
    recipe: Recipe, learner: Learner, position: Position, dev_set: Batches,
    dev_batches: tf.data.Dataset, display: Display, audio_rate: float,
) -> None:
    rates, dev_loss, pairs = learner.validate(dev_set, dev_batches)
    losses = position.losses
    validation = Validation(
        epoch=position.epoch,
        step=position.step,
        train_loss=sum(losses) / max(1, len(losses)),
        dev_loss=dev_loss,
        wer=rates.wer,
        cer=rates.cer,
        learning_rate=float(learner.optimizer.learning_rate),
        audio_seconds_per_second=audio_rate,
        training_seconds=position.seconds,
    )
    position.losses = []
    display.validation(validation, rates, pairs)
    # Between equal error rates, as at the start where all are 100 %, the loss decides.
    best = (position.best_wer, position.best_dev_loss)
    if position.best_wer is None or (rates.wer, dev_loss) < best:
        position.best_wer, position.best_dev_loss = rates.wer, dev_loss
        position.validations_without_gain = 0
        current = learner.swap_in_average()
        card = _card(recipe, learner, position, dev_set, rates)
        run.save(recipe.output, position.step, learner.model.get_weights(), learner.spec, card)
        learner.swap_back(current)
    else:
        position.validations_without_gain += 1


def _out_of_patience(recipe: Recipe, position: Position) -> bool:
    patience = recipe.training.patience_validations
    return 0 < patience <= position.validations_without_gain


def _card(
    recipe: Recipe, learner: Learner, position: Position, dev_set: Batches, rates: ErrorRates
) -> dict[str, Any]:
    """Where a model comes from and how good it is; travels with every exported form."""
    return {
        "name": recipe.name,
        "speechrnn": speechrnn.__version__,
        "tensorflow": tf.__version__,
        "corpus_sha256": dev_set.index.corpus_sha256,
        "train_hours": round(dev_set.index.seconds(TRAIN) / 3600, 3),
        "parameters": int(learner.model.count_params()),
        "epoch": position.epoch + 1,
        "step": position.step,
        "seed": recipe.seed,
        "dev": {
            "wer": rates.wer,
            "cer": rates.cer,
            "wer_ci95": list(rates.wer_ci95),
            "utterances": rates.utterances,
            "words": rates.words,
        },
    }


def history(output: Path) -> list[dict[str, Any]]:
    """The validations of a run, the oldest first."""
    lines = (output / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
