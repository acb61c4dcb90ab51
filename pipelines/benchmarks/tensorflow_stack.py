"""The recurrent stack in TensorFlow: speechrnn's layers and Keras's, with loss and optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from implementations import Actions, LeftOut
from shapes import Shape, draw_batch

from speechrnn import ctc, layers
from speechrnn.training import threads

CLIP_NORM = 1.0
KERAS_LAYERS = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
OUR_LAYERS = {
    "simple_rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "clockwork": layers.ClockworkRNN,
    "depth_gated": layers.DepthGatedLSTM,
}


def our_layer(shape: Shape, index: int, product_dtype: str, both: bool = True) -> Any:
    """The recurrent layer ``index`` of speechrnn, one direction; ``both``: as part of a stack of
    bidirectional layers."""
    extra: dict[str, Any] = {}
    if shape.cell == "clockwork":
        extra["periods"] = tuple(shape.periods)
    if shape.cell == "depth_gated" and both:
        extra["lower_cells"] = 2 if index else 0
        extra["return_cells"] = index < shape.layers - 1
    return OUR_LAYERS[shape.cell](
        shape.units,
        return_sequences=True,
        zero_output_for_mask=True,
        product_dtype=product_dtype,
        **extra,
    )


def keras_layer(shape: Shape) -> Any:
    """The same as Keras has it."""
    if shape.cell not in KERAS_LAYERS:
        raise LeftOut("Keras has no such layer")
    return getattr(keras.layers, KERAS_LAYERS[shape.cell])(shape.units, return_sequences=True)


def keras_rnn(shape: Shape, index: int, backwards: bool) -> Any:
    """The same cell in Keras's general loop. Cells that Keras lacks are ours."""
    cell: Any
    if shape.cell == "clockwork":
        cell = layers.ClockworkCell(shape.units, tuple(shape.periods))
    elif shape.cell == "depth_gated":
        cell = layers.DepthGatedCell(
            shape.units,
            lower_cells=2 if index else 0,
            own=int(backwards and index > 0),
            return_cells=index < shape.layers - 1,
        )
    else:
        cell = getattr(keras.layers, KERAS_LAYERS[shape.cell] + "Cell")(shape.units)
    return keras.layers.RNN(cell, return_sequences=True, go_backwards=backwards)


def bidirectional(implementation: str, shape: Shape, index: int) -> Any:
    """Both directions of layer ``index``."""
    if implementation.startswith("ours"):
        layer = our_layer(shape, index, implementation.removeprefix("ours-"))
        return keras.layers.Bidirectional(layer)
    if implementation == "keras-rnn-cell":
        forth, back = (keras_rnn(shape, index, backwards) for backwards in (False, True))
        return keras.layers.Bidirectional(forth, backward_layer=back)
    return keras.layers.Bidirectional(keras_layer(shape))


def keras_loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """CTC as Keras offers it: TensorFlow's dense form, a scan over the frames."""
    counts = tf.math.count_nonzero(labels, axis=1, dtype=tf.int32)
    return keras.ops.ctc_loss(labels, logits, counts, frames, mask_index=0)


def sparse_loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """CTC as TensorFlow computes it for sparse labels: one kernel in C++."""
    return tf.nn.ctc_loss(
        labels=tf.sparse.from_dense(labels),
        logits=logits,
        label_length=None,
        logit_length=frames,
        logits_time_major=False,
        blank_index=0,
    )


LOSSES = {"keras": keras_loss, "keras-xla": keras_loss, "keras-sparse-ctc": sparse_loss}


class TensorFlowStack:
    """Bidirectional layers, Dense above them, CTC, clipping by the global norm and Adam."""

    def __init__(self, implementation: str, shape: Shape):
        self.ours = implementation.startswith("ours")
        if self.ours:
            threads.configure("auto")
        keras.utils.set_random_seed(shape.seed)
        self.shape = shape
        self.layers = [bidirectional(implementation, shape, i) for i in range(shape.layers)]
        self.dense = keras.layers.Dense(shape.symbols)
        # Ours clips as speechrnn/training/step.py does, Keras as its user would.
        clip = {} if self.ours else {"global_clipnorm": CLIP_NORM}
        self.optimizer = keras.optimizers.Adam(1e-4, **clip)
        self.loss: Callable[..., tf.Tensor] = LOSSES.get(implementation, ctc.loss)
        self.batch = [tf.constant(array) for array in draw_batch(shape)]
        signature = [
            tf.TensorSpec([None, None, shape.features], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
        # Ours is traced for any batch, as in training; Keras for this one, which only helps it.
        options: dict[str, Any] = {"input_signature": signature} if self.ours else {}
        if implementation == "keras-xla":
            options["jit_compile"] = True
        self.step = tf.function(self._step, **options)
        self.posteriors = tf.function(
            lambda x, frames, labels: self.logits(x, frames, training=False), **options
        )
        self.logits(self.batch[0][:1, :2], tf.constant([2]), training=False)
        self.weights = [w for layer in [*self.layers, self.dense] for w in layer.trainable_weights]
        self.optimizer.build(self.weights)

    def logits(self, x: tf.Tensor, frames: tf.Tensor, training: bool) -> tf.Tensor:
        mask = tf.sequence_mask(frames, tf.shape(x)[1])
        for index, layer in enumerate(self.layers):
            x = layer(x, mask=mask, training=training)
            if self.shape.cell == "depth_gated" and index < self.shape.layers - 1:
                # The layer above wants the memory cells of both directions behind the outputs.
                x = tf.concat(layers.split_cells(x, self.shape.units), axis=-1)
        return self.dense(x)

    def gradients(self, x: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            logits = self.logits(x, frames, training=True)
            loss = tf.reduce_mean(self.loss(logits, frames, labels))
        return loss, tape.gradient(loss, self.weights)

    def update(self, gradients: list[tf.Tensor]) -> None:
        if self.ours:
            norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
            scale = tf.minimum(1.0, CLIP_NORM / norm)
            gradients = [g * scale for g in gradients]
        self.optimizer.apply(gradients, self.weights)

    def _step(self, x: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        loss, gradients = self.gradients(x, frames, labels)
        self.update(gradients)
        return loss

    def actions(self) -> Actions:
        return {
            "train": lambda: float(self.step(*self.batch)),
            "infer": lambda: self.posteriors(*self.batch),
        }
