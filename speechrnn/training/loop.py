"""Training, top to bottom: epochs of steps, a validation after each, checkpoints on the way."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from signal import Signals
from typing import Any

import numpy as np
import tensorflow as tf

from speechrnn.errors import ModelError, RecipeError, Stopped
from speechrnn.files import locked, saving, write_atomically
from speechrnn.language import CharacterLMSpec
from speechrnn.recipe import Run
from speechrnn.specs import RecogniserSpec
from speechrnn.training import checkpoint, determinism, run
from speechrnn.training.display import Display, Validation
from speechrnn.training.non_finite import NonFiniteSteps
from speechrnn.training.position import FORMAT, Position
from speechrnn.training.schedule import learning_rate
from speechrnn.training.step import Batch, Learner, Score, Source
from speechrnn.training.stopping import StopRequested, StopSignals

LOCK = "training.lock"  # in the run directory
GO_ON = "the same command goes on from the last checkpoint."


class Trainer:
    """One run: what is trained, on what, and where it stands.

    Args:
        recipe: its ``training`` section and ``output`` are used.
        spec: the model's description, saved with it.
        learner, train_set, dev_set: what is trained, and on what. The learner's distribution says
            what part this process has in it: the chief alone reads and writes the run directory.
        display: what is shown.
        card: what the model's card says of its data.
        identity: of all that must not change between the stops of one run.
    """

    def __init__(
        self,
        recipe: Run,
        spec: RecogniserSpec | CharacterLMSpec,
        learner: Learner,
        train_set: Source,
        dev_set: Source,
        display: Display,
        card: dict[str, Any],
        identity: str,
    ):
        self.recipe, self.section, self.spec, self.learner = recipe, recipe.training, spec, learner
        self.train_set, self.dev_set, self.display = train_set, dev_set, display
        self.card, self.identity = card, f"{FORMAT} {identity}"
        self.position = Position()
        self.non_finite = NonFiniteSteps(display.say)
        self.checkpoints = recipe.output / "checkpoints"
        self.saved = time.monotonic()
        self.stop = StopSignals()
        self.stopping = 0  # the signal that all workers stop for
        self.distribution = learner.distribution

    def start(self, to_train: str, to_validate: str, left_out: Mapping[str, int], see: str) -> None:
        """Resume, tell what there is to learn and what is not (counts by reason), and run.

        Args:
            see: behind the reasons, where to read more.

        Raises:
            MachineRefused: the machine refused to write; what was there before is untouched.
            Stopped: by SIGTERM or SIGINT; a checkpoint holds every step that was done.
        """
        with self._alone():
            self._start(to_train, to_validate, left_out, see)

    def _alone(self) -> ExitStack:
        """Two trainings in one folder would delete each other's half-written files."""
        output, stack = self.recipe.output, ExitStack()
        if self.distribution.is_chief:
            with saving("the run directory", output, GO_ON):
                output.mkdir(parents=True, exist_ok=True)
                held = f"another training writes into {output}; wait for it, or name another output"
                stack.enter_context(locked(output / LOCK, held))
        return stack

    def _start(
        self, to_train: str, to_validate: str, left_out: Mapping[str, int], see: str
    ) -> None:
        self.resume()
        if left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            self.display.say(f"left out: {reasons}{see}")
        self.display.say(
            f"{self.recipe.name}: {self.learner.model.count_params():,} parameters; {to_train} to "
            f"train on, {to_validate} to validate on"
        )
        with self.stop:
            self.run()

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if there is one, and write down the recipe.

        Raises:
            ModelError: every checkpoint is damaged.
            RecipeError: the run directory holds a run with another model or other data.
        """
        output, here = self.recipe.output, self.distribution
        told = f"{self.recipe.fingerprint('training')} {self.identity}"
        if here.from_chief(told) != told:
            raise RecipeError(
                f"worker {here.worker} has another recipe or other prepared data than the chief; "
                "give all workers the same command, and the same shards in data.prepared"
            )
        found = (
            checkpoint.load_newest(self.checkpoints, self._tell_damage) if here.is_chief else None
        )
        state = here.from_chief(found[1] if found else None)
        if state is not None:
            arrays = here.arrays_from_chief(found[0] if found else self.learner.arrays())
            self._take_up(arrays, state)
        if not here.is_chief:
            return
        with saving("the recipe and the history", output, GO_ON):
            for left_behind in output.glob(".*.partial"):  # by a process that was killed
                left_behind.unlink()
            self.display.rewind(self.position.epoch)
            write_atomically(output / "recipe.yaml", self.recipe.to_yaml().encode())

    def _tell_damage(self, damage: ModelError) -> None:
        self.display.say(f"{damage}; the checkpoint before it is tried")

    def _take_up(self, arrays: dict[str, list[np.ndarray]], state: dict[str, Any]) -> None:
        if state.pop("identity", None) != self.identity:
            raise RecipeError(
                f"{self.recipe.output} holds a run with another seed, model, features, text rules, "
                "data, batches, averaging or init_from, or of another version; name another "
                "output, or delete that folder"
            )
        conditions = state.pop("conditions")
        try:
            self.position = Position(**state)
            self.learner.restore(arrays)
        except (TypeError, ValueError) as error:  # the optimiser's arrays are Keras's own affair
            raise ModelError(
                f"the checkpoint in {self.checkpoints} does not fit this version of speechrnn, "
                f"Keras or TensorFlow ({str(error).splitlines()[0]}); go on with the version that "
                "wrote it, or name another output"
            ) from error
        self.display.say(
            f"going on from epoch {self.position.epoch + 1}, batch {self.position.batch + 1}"
        )
        other = determinism.changes(conditions, self.section)
        if self.section.determinism and other:
            self.display.say(f"under other conditions, the last bits may differ: {other}")

    def run(self) -> None:
        """Epochs until the last one, or until patience, time or a signal ends it."""
        try:
            self._run()
        except StopRequested as stop:
            self._save()
            at, signal = self.position, stop.received
            raise Stopped(
                f"stopped by {signal.name} after step {at.step}, in epoch {at.epoch + 1}; "
                f"{self.checkpoints} holds it, and {GO_ON}",
                signal,
            ) from None

    def _run(self) -> None:
        at = self.position
        dev_batches = self.dev_set.plain()
        share = at.batch, self.distribution.worker, self.distribution.workers
        batches = iter(self.train_set.epochs(at.epoch, self.section.epochs, *share))
        while not self._ended():
            rate = self._epoch(batches)
            last = at.epoch + 1 == self.section.epochs or self._out_of_time()
            if last or (at.epoch + 1) % self.section.validate_every_epochs == 0:
                self._validate(dev_batches, rate)
            at.epoch, at.batch = at.epoch + 1, 0
            if self._ended():
                self._save()

    def _epoch(self, batches: Iterator[Batch]) -> float:
        """The rest of the current epoch, or of the time; returns units of data per second."""
        at = self.position
        planned = len(self.train_set.plan(at.epoch))
        started = ticked = time.monotonic()
        done = 0.0
        while at.batch < planned and not self._out_of_time():
            self._check_stop()
            batch = self._next(batches)
            progress = at.epoch + at.batch / planned
            rate = learning_rate(progress / self.section.epochs, self.section)
            loss, finite, norm, by_layer = self.learner.step(batch, rate)
            at.batch, at.step = at.batch + 1, at.step + 1
            if finite:
                self.non_finite.over()
                at.loss_sum, at.losses = at.loss_sum + float(loss), at.losses + 1
            else:
                self.non_finite.add(at.step, self._blamed(batch))
            now = time.monotonic()
            done += self._agree(at.seconds + now - ticked, self.train_set.amount(batch))
            ticked = now
            norms = dict(zip(self.learner.layers, by_layer.numpy().tolist(), strict=True))
            self.display.step(
                at.step,
                progress,
                float(loss),
                rate,
                {"all": float(norm), **norms},
                done / (now - started),
            )
            if now - self.saved > self.section.checkpoint_every_seconds:
                self._save()
        return done / max(1e-9, time.monotonic() - started)

    def _agree(self, seconds: float, amount: float) -> float:
        """The chief's clock is everybody's, and a signal to one worker stops all of them behind the
        same step. Returns the amount of data of all workers."""
        told = self.distribution.agree(seconds, amount, self.stop.received or 0)
        self.position.seconds = float(told[0, 0])
        self.stopping = int(told[:, 2].max())
        return float(told[:, 1].sum())

    def _check_stop(self) -> None:
        if self.distribution.workers == 1:
            self.stop.check()
        elif self.stopping:
            raise StopRequested(Signals(self.stopping))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except tf.errors.OpError:
            # Errors of the reader come as TensorFlow's, without their class: name the damage.
            self.train_set.verify()
            raise

    def _blamed(self, batch: Batch) -> list[str]:
        """The names of what in the batch is not finite by itself, or all where nothing is."""
        names, reasons = self.train_set.names(batch), self.learner.blame(batch)
        found = [f"{name} (its {reasons[i]})" for i, name in enumerate(names) if i in reasons]
        return [name for share in self.distribution.gather(found or names) for name in share]

    def _validate(self, dev_batches: Iterable[Batch], rate: float) -> None:
        at, here = self.position, self.distribution
        self._check_stop()
        started = time.monotonic()
        if here.workers == 1:
            score = self.learner.validate(self.dev_set, self.stop.until(dev_batches))
        else:  # each a part of the batches; what they found is put together by all
            share = itertools.islice(dev_batches, here.worker, None, here.workers)
            score = self.learner.validate(self.dev_set, share)
        self._agree(at.seconds + time.monotonic() - started, 0.0)
        validation = Validation(
            epoch=at.epoch,
            step=at.step,
            train_loss=at.loss_sum / at.losses if at.losses else math.nan,
            score=score,
            learning_rate=float(tf.convert_to_tensor(self.learner.optimizer.learning_rate)),
            rate=rate,
            unit=self.train_set.unit,
            training_seconds=at.seconds,
        )
        at.loss_sum, at.losses = 0.0, 0
        with saving("the history", self.recipe.output, GO_ON):
            if here.is_chief:
                self.display.validation(validation)
        if score.non_finite:
            self.display.say(
                "posteriors or loss not finite, scored as the worst there is: "
                + ", ".join(score.non_finite)
            )
        if at.best is None or score.rank < at.best:
            at.best, at.validations_without_gain = score.rank, 0
            self._save_best(score)
        else:
            at.validations_without_gain += 1

    def _save_best(self, score: Score) -> None:
        if not self.distribution.is_chief:
            return
        at, learner = self.position, self.learner
        card = run.card(self.recipe, self.card, learner.model, at.epoch, at.step, score.card)
        current = learner.swap_in_average()
        weights = learner.model.get_weights()
        learner.swap_back(current)
        with saving("the model", self.recipe.output, GO_ON):
            run.save(self.recipe.output, at.step, weights, self.spec, card)

    def _save(self) -> None:
        if not self.distribution.is_chief:
            return
        conditions = determinism.conditions(self.section)
        state = {**vars(self.position), "identity": self.identity, "conditions": conditions}
        keep, arrays = self.section.keep_checkpoints, self.learner.arrays()
        with saving("a checkpoint", self.checkpoints, GO_ON):
            checkpoint.save(self.checkpoints, self.position.step, arrays, state, keep)
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
