"""One training step and one validation pass, as TensorFlow functions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn import ctc
from speechrnn.data.dataset import Batch, Batches
from speechrnn.decoding.greedy import greedy
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.model import output_frames
from speechrnn.recipe import Recipe
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet


class Learner:
    """A model, its optimiser and the moving average of its weights: all that training changes.

    Args:
        model: built by ``model.build``.
        spec: its description.
        recipe: its ``training`` section sets the optimiser.
    """

    def __init__(self, model: keras.Model, spec: RecogniserSpec, recipe: Recipe):
        self.model, self.spec, self.section = model, spec, recipe.training
        self.optimizer = keras.optimizers.AdamW(
            learning_rate=0.0, weight_decay=self.section.weight_decay
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.optimizer.build(model.trainable_variables)
        decay = self.section.ema_decay
        self.average = [tf.Variable(w) for w in model.trainable_variables] if decay else []
        self.layers = self._layers()
        # One graph for every batch size and length.
        batch = [
            tf.TensorSpec([None, None, spec.features.dimension], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
        self._step = tf.function(
            self._update, input_signature=[*batch, tf.TensorSpec([], tf.float32)]
        )
        self._score = tf.function(self._posteriors, input_signature=batch)

    def _layers(self) -> dict[str, list[int]]:
        """Layer name -> the positions of its weights, for gradient norms."""
        position = {id(w): i for i, w in enumerate(self.model.trainable_variables)}
        parts: dict[str, Any] = {"subsampling": self.model.subsampling}
        parts |= {f"recurrent_{i + 1}": layer for i, layer in enumerate(self.model.recurrent)}
        parts["logits"] = self.model.logits
        found = {
            name: [position[id(w)] for w in layer.trainable_variables]
            for name, layer in parts.items()
        }
        return {name: positions for name, positions in found.items() if positions}

    def step(self, batch: Batch, learning_rate: float) -> tuple:
        """One update. Returns the mean loss in nats, whether loss and gradient are finite (if
        not, nothing was changed), the gradient's norm, and its norm by layer."""
        arrays = batch["features"], batch["frames"], batch["labels"]
        return self._step(*arrays, tf.constant(learning_rate, tf.float32))

    def _update(
        self, features: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor
    ) -> tuple:
        weights = self.model.trainable_variables
        with tf.GradientTape() as tape:
            logits = self.model(features, frames, training=True)
            valid = output_frames(frames, self.spec.model)
            loss = tf.reduce_mean(ctc.loss(logits, valid, labels))
        gradients = tape.gradient(loss, weights)
        squares = tf.stack([tf.reduce_sum(tf.square(g)) for g in gradients])
        norm = tf.sqrt(tf.reduce_sum(squares))
        finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._apply(gradients, norm, learning_rate), lambda: True)
        by_layer = [
            tf.sqrt(tf.reduce_sum(tf.gather(squares, positions)))
            for positions in self.layers.values()
        ]
        return loss, finite, norm, tf.stack(by_layer)

    def _apply(self, gradients: list, norm: tf.Tensor, learning_rate: tf.Tensor) -> bool:
        scale = tf.minimum(1.0, self.section.clip_norm / norm)
        self.optimizer.learning_rate.assign(learning_rate)
        self.optimizer.apply([g * scale for g in gradients], self.model.trainable_variables)
        if self.average:
            # Early on the average follows closely, so that it does not remember the start.
            done = tf.cast(self.optimizer.iterations.value, tf.float32)
            decay = tf.minimum(self.section.ema_decay, done / (done + 10))
            for mean, weight in zip(self.average, self.model.trainable_variables, strict=True):
                mean.assign(decay * mean + (1 - decay) * weight.value)
        return True

    def _posteriors(self, features: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tuple:
        logits = self.model(features, frames, training=False)
        valid = output_frames(frames, self.spec.model)
        return tf.nn.log_softmax(logits), valid, ctc.loss(logits, valid, labels)

    def validate(
        self, batches: Batches, dataset: tf.data.Dataset
    ) -> tuple[ErrorRates, float, list[tuple[str, str]]]:
        """Error rates, mean loss, and (reference, hypothesis) pairs, of the averaged weights
        where there are some."""
        alphabet = Alphabet(self.spec.alphabet)
        hypotheses: dict[str, str] = {}
        losses: list[float] = []
        current = self.swap_in_average()
        try:
            for batch in dataset:
                log_probs, frames, loss = self._score(
                    batch["features"], batch["frames"], batch["labels"]
                )
                losses += loss.numpy().tolist()
                for i, row in enumerate(batch["utterances"].numpy()):
                    row_log_probs = log_probs[i, : frames[i]].numpy()
                    name = batches.rows[row].utterance_id
                    hypotheses[name] = greedy(row_log_probs, alphabet).text
        finally:
            self.swap_back(current)
        references = {row.utterance_id: row.text for row in batches.rows}
        speakers = {row.utterance_id: row.speaker for row in batches.rows}
        groups = speakers if all(speakers.values()) else None
        rates = score(references, hypotheses, groups=groups, rules=self.spec.alphabet.rules)
        pairs = [(references[name], hypotheses[name]) for name in references]
        return rates, float(np.mean(losses)), pairs

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
            "model": [np.asarray(v) for v in self.model.variables],
            "optimizer": [np.asarray(v) for v in self.optimizer.variables],
            "average": [v.numpy() for v in self.average],
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
