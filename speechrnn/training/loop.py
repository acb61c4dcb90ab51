"""Training, top to bottom: epochs of steps, a validation after each, checkpoints on the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

import speechrnn
from speechrnn import model as network
from speechrnn.data.dataset import DEV, TRAIN, Batch, Batches, recogniser_spec
from speechrnn.data.prepare import REPORT_FILE, prepare
from speechrnn.errors import RecipeError, TrainingDiverged
from speechrnn.evaluation.error_rates import ErrorRates
from speechrnn.files import write_atomically
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
    best: list[float] | None = None  # dev WER and dev loss of the model kept
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
    section = recipe.training
    with Display(recipe.output, section.epochs, section.show_pairs, quiet) as display:
        trainer = Trainer(recipe, Learner(model, spec, recipe), train_set, dev_set, display)
        trainer.resume()
        write_atomically(recipe.output / "recipe.yaml", recipe.to_yaml().encode())
        if index.rejected:
            reasons = ", ".join(f"{count} {reason}" for reason, count in index.rejected.items())
            display.say(f"left out: {reasons}; see {recipe.prepared / REPORT_FILE}")
        display.say(
            f"{recipe.name}: {model.count_params():,} parameters; {index.seconds(TRAIN) / 3600:.2f}"
            f" h to train on, {index.seconds(DEV) / 3600:.2f} h to validate on"
        )
        trainer.run()
    return run.load(recipe.output).card


class Trainer:
    """One run: what is trained, on what, and where it stands."""

    def __init__(
        self,
        recipe: Recipe,
        learner: Learner,
        train_set: Batches,
        dev_set: Batches,
        display: Display,
    ):
        self.recipe, self.section, self.learner = recipe, recipe.training, learner
        self.train_set, self.dev_set, self.display = train_set, dev_set, display
        self.position = Position()
        self.checkpoints = recipe.output / "checkpoints"
        self.saved = time.monotonic()
        # What must not change between the stops of one run.
        sections = recipe.fingerprint("seed", "features", "text", "model")
        plan = (recipe.data.batch_seconds, self.section.sorted_first_epoch)
        averaged = self.section.ema_decay > 0
        self.identity = f"{sections} {train_set.index.corpus_sha256} {plan} {averaged}"

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if there is one."""
        found = checkpoint.load_newest(self.checkpoints)
        if found is None:
            self.display.rewind(0)
            return
        arrays, state = found
        if state.pop("identity") != self.identity:
            raise RecipeError(
                f"{self.recipe.output} holds a run with another seed, model, features, text rules, "
                "data, batches or averaging; name another output, or delete that folder"
            )
        self.learner.restore(arrays)
        self.position = Position(**state)
        self.display.rewind(self.position.epoch)
        self.display.say(
            f"going on from epoch {self.position.epoch + 1}, batch {self.position.batch + 1}"
        )

    def run(self) -> None:
        """Epochs until the last one, or until patience or time runs out."""
        at = self.position
        dev_batches = self.dev_set.plain()
        batches = iter(self.train_set.epochs(at.epoch, self.section.epochs, skip=at.batch))
        while not self._ended():
            rate = self._epoch(batches)
            last = at.epoch + 1 == self.section.epochs or self._out_of_time()
            if last or (at.epoch + 1) % self.section.validate_every_epochs == 0:
                self._validate(dev_batches, rate)
            at.epoch, at.batch = at.epoch + 1, 0
            if self._ended():
                self._save()

    def _epoch(self, batches: Iterator[Batch]) -> float:
        """The rest of the current epoch, or of the time; returns seconds of audio per second."""
        at = self.position
        planned = len(self.train_set.plan(at.epoch))
        started = ticked = time.monotonic()
        audio = 0.0
        failures: deque[list[str]] = deque(maxlen=NON_FINITE_IN_A_ROW)
        while at.batch < planned and not self._out_of_time():
            batch = self._next(batches)
            progress = at.epoch + at.batch / planned
            rate = learning_rate(progress / self.section.epochs, self.section)
            loss, finite, norm, by_layer = self.learner.step(batch, rate)
            at.batch, at.step = at.batch + 1, at.step + 1
            if finite:
                failures.clear()
                at.losses.append(float(loss))
            else:
                failures.append(self._names(batch))
                self._report_non_finite(failures)
            audio += float(tf.reduce_sum(batch["samples"])) / self.recipe.features.sample_rate
            now = time.monotonic()
            at.seconds, ticked = at.seconds + now - ticked, now
            norms = dict(zip(self.learner.layers, by_layer.numpy().tolist(), strict=True))
            self.display.step(
                at.step,
                progress,
                float(loss),
                rate,
                {"all": float(norm), **norms},
                audio / (now - started),
            )
            if now - self.saved > self.section.checkpoint_every_seconds:
                self._save()
        return audio / max(1e-9, time.monotonic() - started)

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except tf.errors.OpError:
            # Errors of the reader come as TensorFlow's, without their class: name the damage.
            self.train_set.index.verify()
            raise

    def _names(self, batch: Batch) -> list[str]:
        return [self.train_set.rows[i].utterance_id for i in batch["utterances"].numpy()]

    def _report_non_finite(self, failures: deque[list[str]]) -> None:
        step, names = self.position.step, ", ".join(failures[-1])
        self.display.say(
            f"step {step}: loss or gradient not finite; the weights were left as they were. "
            f"Utterances: {names}"
        )
        if len(failures) == NON_FINITE_IN_A_ROW:
            raise TrainingDiverged(
                f"{NON_FINITE_IN_A_ROW} steps in a row had a loss or gradient that is not finite, "
                f"the last at step {step} with {names}. Lower training.learning_rate, or listen "
                "to these recordings."
            )

    def _validate(self, dev_batches: tf.data.Dataset, audio_rate: float) -> None:
        at = self.position
        started = time.monotonic()
        rates, dev_loss, pairs = self.learner.validate(self.dev_set, dev_batches)
        at.seconds += time.monotonic() - started
        validation = Validation(
            epoch=at.epoch,
            step=at.step,
            train_loss=sum(at.losses) / max(1, len(at.losses)),
            dev_loss=dev_loss,
            wer=rates.wer,
            cer=rates.cer,
            learning_rate=float(self.learner.optimizer.learning_rate),
            audio_seconds_per_second=audio_rate,
            training_seconds=at.seconds,
        )
        at.losses = []
        self.display.validation(validation, rates, pairs)
        # Between equal error rates, as at the start where all are 100 %, the loss decides.
        if at.best is None or [rates.wer, dev_loss] < at.best:
            at.best, at.validations_without_gain = [rates.wer, dev_loss], 0
            self._save_best(rates)
        else:
            at.validations_without_gain += 1

    def _save_best(self, rates: ErrorRates) -> None:
        learner = self.learner
        current = learner.swap_in_average()
        weights = learner.model.get_weights()
        learner.swap_back(current)
        card = _card(self.recipe, learner, self.position, self.dev_set, rates)
        run.save(self.recipe.output, self.position.step, weights, learner.spec, card)

    def _save(self) -> None:
        state = {**vars(self.position), "identity": self.identity}
        keep = self.section.keep_checkpoints
        checkpoint.save(self.checkpoints, self.position.step, self.learner.arrays(), state, keep)
        self.saved = time.monotonic()

    def _ended(self) -> bool:
        at = self.position
        # Out of time within an epoch, as a run killed at that moment is: the validation is due.
        out_of_time = self._out_of_time() and at.batch == 0
        return at.epoch >= self.section.epochs or self._out_of_patience() or out_of_time

    def _out_of_patience(self) -> bool:
        return 0 < self.section.patience_validations <= self.position.validations_without_gain

    def _out_of_time(self) -> bool:
        limit = self.section.max_minutes
        return limit is not None and self.position.seconds >= 60 * limit


def _card(
    recipe: Recipe, learner: Learner, position: Position, dev_set: Batches, rates: ErrorRates
) -> dict[str, Any]:
    """Where a model comes from and how good it is; travels with every exported form."""
    return {
        "name": recipe.name,
        "corpus": recipe.corpus,
        "licence": recipe.licence,
        "speechrnn": speechrnn.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "corpus_sha256": dev_set.index.corpus_sha256,
        "dev_fraction": recipe.data.dev_fraction,  # divides a manifest without splits again
        "train_hours": round(dev_set.index.seconds(TRAIN) / 3600, 3),
        "parameters": int(learner.model.count_params()),
        "epoch": position.epoch + 1,
        "step": position.step,
        "seed": recipe.seed,
        "dev": rates.summary(),
    }
