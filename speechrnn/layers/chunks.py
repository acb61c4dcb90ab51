"""Both directions while the recording goes on: latency-controlled bidirectional layers.

Zhang et al. 2016, "Highway long short-term memory RNNs for distant speech recognition",
arXiv 1510.08983. An utterance is cut into chunks of N frames, each seen with the R frames behind
it. The forward direction goes on from the state that the chunk before it ended with; the backward
direction begins anew, R frames behind the chunk. So a frame hears all that was before it and N - 1
+ R frames at most of what follows, whatever the number of layers.

A layer's input and output are (batch, chunks, N + R, width). The R frames stand in two chunks and
have values of their own in each, for the next layer reads them there.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from speechrnn.layers.order import StepOrder


def cut(x: tf.Tensor, chunk: int, right_context: int) -> tf.Tensor:
    """(batch, frames, width) -> (batch, chunks, N + R, width), with zeros behind the end."""
    frames = tf.shape(x)[1]
    x = tf.pad(x, [[0, 0], [0, -frames % chunk + right_context], [0, 0]])
    return tf.signal.frame(x, chunk + right_context, chunk, axis=1)


def joined(x: tf.Tensor, chunk: int, frames: tf.Tensor) -> tf.Tensor:
    """The inverse of ``cut``: (batch, chunks, N + R, width) -> (batch, frames, width)."""
    own = x[:, :, :chunk]
    return tf.reshape(own, [tf.shape(x)[0], tf.shape(x)[1] * chunk, x.shape[3]])[:, :frames]


def latency_controlled(
    layer: keras.layers.Bidirectional, x: tf.Tensor, lengths: tf.Tensor, chunk: int
) -> tf.Tensor:
    """The layer's weights on chunks: (batch, chunks, N + R, inputs) -> the same, of its outputs.

    ``lengths`` (batch,) counts the valid frames of each utterance; what stands behind them reaches
    no valid frame. A ``chunk`` as long as the utterance gives what the layer itself gives.
    """
    if not layer.built:
        layer.build((None, None, x.shape[3]))
    forward = _forward(layer.forward_layer, x, chunk)
    backward = _backward(layer.backward_layer, x, lengths, chunk)
    return tf.concat([forward, backward], axis=-1)


def _forward(layer: keras.layers.RNN, x: tf.Tensor, chunk: int) -> tf.Tensor:
    """The chunks' own frames in one pass; then the frames behind all chunks side by side, each
    from the state at its chunk's end."""
    batch, chunks, count = tf.shape(x)[0], tf.shape(x)[1], x.shape[2]
    by_frame = tf.transpose(x, [1, 2, 0, 3])  # (chunks, N + R, batch, inputs)
    own = tf.reshape(by_frame[:, :chunk], [chunks * chunk, batch, x.shape[3]])
    sizes = tf.nest.flatten(layer.cell.state_size)
    zeros = [tf.zeros([batch, size], layer.working_dtype) for size in sizes]
    states = layer.all_states(own, zeros, len(sizes))
    outputs = _output(layer, states)
    parts = [tf.reshape(outputs, [chunks, chunk, batch, outputs.shape[2]])]
    if count > chunk:
        at_end = [tf.reshape(s[chunk - 1 :: chunk], [chunks * batch, s.shape[2]]) for s in states]
        behind = tf.transpose(by_frame[:, chunk:], [1, 0, 2, 3])  # (R, chunks, batch, inputs)
        behind = tf.reshape(behind, [count - chunk, chunks * batch, x.shape[3]])
        outputs = _output(layer, layer.all_states(behind, at_end, layer.shown))
        outputs = tf.reshape(outputs, [count - chunk, chunks, batch, outputs.shape[2]])
        parts.append(tf.transpose(outputs, [1, 0, 2, 3]))
    return tf.transpose(tf.concat(parts, axis=1), [2, 0, 1, 3])


def _backward(layer: keras.layers.RNN, x: tf.Tensor, lengths: tf.Tensor, chunk: int) -> tf.Tensor:
    """All chunks side by side, each from its last valid frame."""
    batch, chunks, count = tf.shape(x)[0], tf.shape(x)[1], x.shape[2]
    valid = tf.clip_by_value(lengths[:, None] - chunk * tf.range(chunks), 0, count)
    rows = tf.reshape(x, [batch * chunks, count, x.shape[3]])
    order = StepOrder(rows, tf.reshape(valid, [-1]), backwards=True)
    sizes = tf.nest.flatten(layer.cell.state_size)
    zeros = [tf.zeros([batch * chunks, size], layer.working_dtype) for size in sizes]
    outputs = _output(layer, layer.all_states(order.enter(rows), zeros, layer.shown))
    outputs = order.leave(outputs)[:, ::-1]  # it gives the last frame first, as Keras does
    return tf.reshape(outputs, [batch, chunks, count, outputs.shape[2]])


def _output(layer: keras.layers.RNN, states: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat(states[: layer.shown], axis=-1)
