"""The network in Keras's own layers, as a graph of TensorFlow."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from networks import STRIDE, Arrays, Run


def runner(folder: Path) -> Run:
    """One thread; the graph is traced for any length."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    weights = dict(np.load(folder / "weights.npz"))
    network = build(weights)
    mels = network.inputs[0].shape[2]
    graph = tf.function(
        lambda x: network(x[None], training=False)[0],
        input_signature=[tf.TensorSpec([None, mels], tf.float32)],
    )
    return lambda x: graph(tf.constant(x)).numpy()


def build(weights: Arrays) -> keras.Model:
    """(1, frames, mels) -> log_probs (1, frames / 4, symbols)."""
    convolutions = [_kind(weights, f"convolution_{i}") for i in range(2)]
    count = sum(name.startswith("norm") for name in weights) // 2
    first = weights["recurrent_0_forward_kernel"].shape[0]
    channels = convolutions[1][1].shape[0]
    mels = first // channels * STRIDE * STRIDE
    x = features = keras.Input([None, mels])
    x = keras.layers.Reshape([-1, mels, 1])(x)
    filled: list[tuple[keras.layers.Layer, list[np.ndarray]]] = []
    for given in convolutions:
        layer = keras.layers.Conv2D(given[0].shape[3], 3, strides=STRIDE, activation="relu")
        x = layer(keras.layers.ZeroPadding2D(1)(x))
        filled.append((layer, given))
    x = keras.layers.Reshape([-1, first])(x)
    for i in range(count):
        given = _kind(weights, f"recurrent_{i}")  # the forward direction first, as Keras
        lstm = keras.layers.LSTM(given[1].shape[0], return_sequences=True)
        layer, norm = keras.layers.Bidirectional(lstm), keras.layers.LayerNormalization()
        x = norm(layer(x))
        filled += [(layer, given), (norm, _kind(weights, f"norm_{i}"))]
    logits = keras.layers.Dense(weights["logits_kernel"].shape[1])
    x = keras.ops.log_softmax(logits(x))
    for layer, given in [*filled, (logits, _kind(weights, "logits"))]:
        layer.set_weights(given)
    return keras.Model(features, x)


def _kind(weights: Arrays, prefix: str) -> list[np.ndarray]:
    """A layer's weights, in Keras's order, which is that of the file."""
    return [array for name, array in weights.items() if name.startswith(f"{prefix}_")]
