"""What is trained, as the loop sees it: one step of any model, a source of batches, a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from speechrnn.recipe import TrainingSection
from speechrnn.training.distribution import Distribution

JIT_ROWS, JIT_STEPS = 4, 64  # shapes that XLA compiles for are multiples of these

Batch = dict[str, Any]  # tensors or arrays by name


class Source(Protocol):
    """The batches of one split. What a training step sees is a pure function of the split, the
    seed and the epoch, so that any step can be resumed."""

    @property
    def unit(self) -> str:
        """What ``amount`` counts: the history has it as ``<unit>_per_second``."""

    def amount(self, batch: Batch) -> float:
        """How much a batch holds, padding left out."""

    def plan(self, epoch: int) -> Sequence[np.ndarray]:
        """The batches of an epoch, as positions in the split."""

    def epochs(
        self, first: int, end: int, skip: int = 0, worker: int = 0, workers: int = 1
    ) -> Iterable[Batch]:
        """Batches of the epochs from ``first`` to before ``end``, without the first ``skip``; of
        each the share of one worker, which may have no row."""

    def plain(self) -> Iterable[Batch]:
        """All of the split once, unchanged."""

    def names(self, batch: Batch) -> list[str]:
        """What a batch is made of, for messages."""

    def verify(self) -> None:
        """Raise DataError if what is read from is damaged."""


AnySource = TypeVar("AnySource", bound=Source, contravariant=True)


@dataclass(frozen=True)
class Score:
    """How a model did on a split.

    ``rank`` is compared from its first number on, the smaller the better. ``measures`` go into
    the history and TensorBoard, ``line`` and ``examples`` (each a few labelled texts) on the
    screen, ``card`` into the model's card.
    """

    loss: float  # nats
    rank: list[float]
    measures: dict[str, float]
    line: str
    examples: list[list[tuple[str, str]]]
    card: dict[str, Any]
    non_finite: tuple[str, ...] = ()  # names of what has no finite loss: left out of ``loss``


class AdamW(keras.optimizers.AdamW):
    """Keras's, for gradients that are summed over devices already."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        return grads_and_vars


class Learner(ABC, Generic[AnySource]):
    """A model, its optimiser and the moving average of its weights: all that training changes.

    A subclass says what a batch is and what its loss.

    Args:
        model: built, with fresh or loaded weights.
        section: sets the optimiser.
        parts: the model's layers by name, for gradient norms.
        signature: of ``inputs``.
        distribution: ``model`` was built in its scope.
    """

    def __init__(
        self,
        model: keras.Model,
        section: TrainingSection,
        parts: dict[str, keras.layers.Layer],
        signature: Sequence[tf.TensorSpec],
        distribution: Distribution | None = None,
    ):
        self.model, self.section = model, section
        self.distribution = distribution or Distribution()
        with self.distribution.scope():
            self.optimizer = AdamW(learning_rate=0.0, weight_decay=section.weight_decay)
            self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            self.optimizer.build(model.trainable_variables)
            averaged = model.trainable_variables if section.ema_decay else []
            self.average = [tf.Variable(tf.convert_to_tensor(w)) for w in averaged]
        self.layers = self._layers(parts)
        self._compiled = tf.function(self._network, jit_compile=True)
        # One graph for every batch size and length.
        number = tf.TensorSpec([], tf.int32)
        self._part = tf.function(self._sums_of_part, input_signature=[number, *signature])
        self._none = tf.function(self._sums_of_nothing)
        self._both = tf.function(self._sums_of_both)
        self._total = tf.function(self._totals)
        self._change = tf.function(self._apply)
        self._finite = tf.function(self._loss_and_finiteness, input_signature=signature)

    @abstractmethod
    def inputs(self, batch: Batch) -> Sequence[Any]:
        """What ``loss`` takes of a batch."""

    @abstractmethod
    def loss(self, *inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the losses of a training batch or of some of its rows, nats, and of how many:
        the whole batch's sum by its count is the mean that training follows."""

    @abstractmethod
    def score(self, source: AnySource, batches: Iterable[Batch]) -> Score:
        """The model as it is on ``batches``, which ``source.plain`` gave."""

    def _network(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        return self.model(x, lengths, training=True)

    def network(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The model in training, compiled by XLA where the recipe says so: for multiples of rows
        and of steps, since it compiles anew for every shape. What it gives may have steps more."""
        if not self.section.jit:
            return self._network(x, lengths)
        rows, steps = -tf.shape(x)[0] % JIT_ROWS, -tf.shape(x)[1] % JIT_STEPS
        x_padded = tf.pad(x, [[0, rows], [0, steps], *([0, 0] for _ in x.shape[2:])])
        lengths_padded = tf.pad(lengths, [[0, rows]], constant_values=1)
        return self._compiled(x_padded, lengths_padded)[: tf.shape(x)[0]]

    def _layers(self, parts: dict[str, keras.layers.Layer]) -> dict[str, list[int]]:
        """Layer name -> the positions of its weights."""
        position = {id(w): i for i, w in enumerate(self.model.trainable_variables)}
        found = {
            name: [position[id(w)] for w in layer.trainable_variables]
            for name, layer in parts.items()
        }
        return {name: positions for name, positions in found.items() if positions}

    def step(self, batch: Batch, learning_rate: float) -> tuple:
        """One update, of this worker's share of a batch: all workers take the step at once.

        Returns, of the whole batch, the mean loss in nats, whether loss and gradient are finite (if
        not, nothing was changed), the gradient's norm, and its norm by layer.
        """
        inputs = self.inputs(batch)
        rows = len(inputs[0])
        sums = None if rows else self._none()
        for part in range(min(rows, self.section.accumulate)):
            found = self._part(tf.constant(part), *inputs)
            sums = found if sums is None else self._both(sums, found)
        gradients, told = self._total(sums)
        loss, finite, norm, by_layer = self.distribution.first(told)
        if finite:
            self._change(gradients, told[2], tf.constant(learning_rate, tf.float32))
        return loss, finite, norm, by_layer

    # What the functions below give is of every device by itself: ``Distribution.run``.

    def _sums_of_part(self, part: tf.Tensor, *inputs: tf.Tensor) -> list:
        """Rows of a batch -> the sum of their losses, their count, the sums of their gradients."""

        def sums(part: tf.Tensor, *inputs: tf.Tensor) -> list[tf.Tensor]:
            here = self.distribution
            pieces = self.section.accumulate * here.replicas
            piece = part * here.replicas + here.replica()
            self._renew_dropout(here.worker * pieces + piece, here.workers * pieces)
            counts = tf.constant(1.0)
            if pieces > 1:
                rows = tf.range(piece, tf.shape(inputs[0])[0], pieces)
                # A device without a row computes one that does not count.
                counts = tf.cast(tf.minimum(tf.size(rows), 1), tf.float32)
                rows = tf.concat([rows, [0]], axis=0)[: tf.maximum(tf.size(rows), 1)]
                inputs = tuple(tf.gather(value, rows) for value in inputs)
            with tf.GradientTape() as tape:
                loss, count = self.loss(*inputs)
                loss *= counts
            # An embedding's gradient comes as rows.
            found = tape.gradient(loss, self.model.trainable_variables)
            return [loss, count * counts, *(tf.convert_to_tensor(g) for g in found)]

        return self.distribution.run(sums, part, *inputs)

    def _renew_dropout(self, piece: tf.Tensor, pieces: int) -> None:
        """Masks that are a function of the update, and differ between the pieces of a batch."""
        draw = self.optimizer.iterations.value * pieces + tf.cast(piece, tf.int64)
        for dropout in self.model.dropouts:
            if dropout.rate:
                state = dropout.seed_generator.state
                state.assign(tf.stack([state.value[0], tf.cast(draw, state.dtype)]))

    def _sums_of_nothing(self) -> list:
        weights = self.model.trainable_variables
        return self.distribution.run(
            lambda: [tf.zeros([]), tf.zeros([]), *(tf.zeros(w.shape) for w in weights)]
        )

    def _sums_of_both(self, one: list, other: list) -> list:
        return self.distribution.run(
            lambda one, other: [a + b for a, b in zip(one, other, strict=True)], one, other
        )

    def _totals(self, sums: list) -> tuple:
        """The gradients of the mean loss over all devices and workers, and what ``step`` tells."""

        def totals(sums: list[tf.Tensor]) -> tuple:
            loss, count, *gradients = self.distribution.total(sums)
            loss, gradients = loss / count, [gradient / count for gradient in gradients]
            squares = tf.stack([tf.reduce_sum(tf.square(g)) for g in gradients])
            norm = tf.sqrt(tf.reduce_sum(squares))
            finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
            by_layer = [
                tf.sqrt(tf.reduce_sum(tf.gather(squares, positions)))
                for positions in self.layers.values()
            ]
            return gradients, (loss, finite, norm, tf.stack(by_layer))

        return self.distribution.run(totals, sums)

    def _apply(self, gradients: list, norm: tf.Tensor, learning_rate: tf.Tensor) -> None:
        def apply(gradients: list, norm: tf.Tensor, learning_rate: tf.Tensor) -> None:
            scale = tf.minimum(1.0, self.section.clip_norm / norm)
            self.optimizer.learning_rate.assign(learning_rate)
            self.optimizer.apply([g * scale for g in gradients], self.model.trainable_variables)
            # Early on the average follows closely, so that it does not remember the start.
            done = tf.cast(self.optimizer.iterations.value, tf.float32)
            decay = tf.minimum(self.section.ema_decay, done / (done + 10))
            for mean, weight in zip(self.average, self.model.trainable_variables, strict=False):
                mean.assign(decay * mean + (1 - decay) * weight.value)

        self.distribution.run(apply, gradients, norm, learning_rate)

    def blame(self, batch: Batch) -> dict[int, str]:
        """The rows of a batch whose step was not finite that are not finite by themselves, and
        what of each is not: its features, loss or gradient. The weights stay as they are."""
        found = {}
        inputs = [np.asarray(value) for value in self.inputs(batch)]
        for row in range(len(inputs[0])):
            alone = [value[row : row + 1] for value in inputs]
            if not all(np.isfinite(value).all() for value in alone):
                found[row] = "features"
                continue
            loss, finite = self._finite(*alone)
            if not finite:
                found[row] = "gradient" if np.isfinite(loss) else "loss"
        return found

    def _loss_and_finiteness(self, *inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss, _ = self.loss(*inputs)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
        finite = [tf.reduce_all(tf.math.is_finite(x)) for x in [loss, *gradients]]
        return loss, tf.reduce_all(finite)

    def validate(self, source: AnySource, batches: Iterable[Batch]) -> Score:
        """``score``, of the averaged weights where there are some."""
        current = self.swap_in_average()
        try:
            return self.score(source, batches)
        finally:
            self.swap_back(current)

    def swap_in_average(self) -> list[np.ndarray]:
        """Put the averaged weights into the model; returns the others for ``swap_back``."""
        current = [w.numpy() for w in self.model.trainable_variables] if self.average else []
        for weight, mean in zip(self.model.trainable_variables, self.average, strict=False):
            weight.assign(mean)
        return current

    def swap_back(self, current: list[np.ndarray]) -> None:
        for weight, value in zip(self.model.trainable_variables, current, strict=False):
            weight.assign(value)

    def arrays(self) -> dict[str, list[np.ndarray]]:
        """Everything that training changes, dropout's random state included."""
        return {
            "model": [tf.convert_to_tensor(v).numpy() for v in self.model.variables],
            "optimizer": [tf.convert_to_tensor(v).numpy() for v in self.optimizer.variables],
            "average": [tf.convert_to_tensor(v).numpy() for v in self.average],
        }

    def restore(self, arrays: dict[str, list[np.ndarray]]) -> None:
        """The inverse of ``arrays``."""
        holders: dict[str, list] = {
            "model": self.model.variables,
            "optimizer": self.optimizer.variables,
            "average": self.average,
        }
        for group, variables in holders.items():
            for variable, array in zip(variables, arrays.get(group, []), strict=True):
                variable.assign(array)
