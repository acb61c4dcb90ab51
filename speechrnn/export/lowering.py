"""The network as a graph that TFLite runs in linear time with builtin operations only.

Keras's own graph will not do: its loop converts to operations that device runtimes lack, or to
one that copies all outputs at every frame, which is quadratic in the length. Here the products
with the inputs stand before the loop, as one product over all frames, and the loop is two
nested ones: the inner fills a block of frames, the outer appends finished blocks.

Weights are taken out of the Keras layers as arrays and become constants of the graph, so that
no variable can be left behind in the conversion.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from speechrnn import layers
from speechrnn.errors import ModelError
from speechrnn.features import graph
from speechrnn.model import Convolutions, Recogniser, Stack, hands_up_cells
from speechrnn.specs import RecogniserSpec

# Measured with 3 x BiLSTM(256) on one core, 10 s of audio. Blocks of 32 frames with 1, 2 and 4 an
# iteration: 80, 71 and 68 ms in float32; 41, 36 and 34 in int8. Blocks of 64 gained nothing.
BLOCK_FRAMES = 32  # of the inner loop
UNROLLED_FRAMES = 4  # in each of its iterations, a divisor of BLOCK_FRAMES
SMALL_WEIGHTS = 1024  # numbers; the converter quantises no smaller weight than this

State = Sequence[tf.Tensor]
Stage = Callable[[tf.Tensor], tf.Tensor]


class LoweredRecogniser(tf.Module):
    """waveform (samples,) float32 in [-1, 1] -> log_probs (frames, alphabet size) float32.

    Takes any length from one window up and equals the Keras model's log-softmax on the same
    waveform to 1e-4. Later changes of the model's weights do not reach it.
    """

    def __init__(self, model: Recogniser, spec: RecogniserSpec):
        super().__init__()
        self._spec = spec
        self._stages = [SUBSAMPLING[type(model.subsampling)](model.subsampling)]
        for i, layer in enumerate(model.recurrent):
            self._stages.append(recurrent(layer))
            if model.norms:
                norm = _layer_norm(model.norms[i])
                hands_up = hands_up_cells(spec.model, i)
                self._stages.append(_beside_cells(norm, spec.model.units) if hands_up else norm)
        self._stages.append(_affine(*model.logits.get_weights()))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "waveform")])
    def log_probs(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        features = graph.features(waveform[tf.newaxis], self._spec.features, _exact_product)
        x = graph.normalise(features, tf.shape(features)[1:2], self._spec.statistics)
        for stage in self._stages:
            x = stage(x)
        return {"log_probs": tf.nn.log_softmax(x)}


def _exact_product(x: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """(1, frames, m) times (m, n) in float32, whatever the precision of the weights.

    Where weights are int8 the runtime rounds the other operand too, each frame relative to its
    largest value: of a power spectrum only the loudest bins would be left. The converter leaves
    small weights alone, so the product is put together from small blocks. They leave out rows
    of zeros, which are most of a mel filterbank.
    """
    blocks = small_blocks(matrix)
    x = tf.reshape(x, [-1, x.shape[2]])
    products = [tf.matmul(x[:, rows], matrix[rows, cols]) for rows, cols in blocks]
    return tf.concat(products, axis=1)[tf.newaxis]


def small_blocks(matrix: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """(rows, columns) of blocks below SMALL_WEIGHTS that hold every number that is not zero."""
    count, start = matrix.shape[1], 0
    for stop in range(1, count + 1):
        rows = _rows_used(matrix[:, start : stop + 1])
        if stop == count or (rows.stop - rows.start) * (stop + 1 - start) >= SMALL_WEIGHTS:
            yield _rows_used(matrix[:, start:stop]), slice(start, stop)
            start = stop


def _rows_used(block: np.ndarray) -> slice:
    used = np.flatnonzero(block.any(axis=1))
    return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)


def _stack(layer: Stack) -> Stage:
    """(1, frames, width) -> (ceil(frames / stride), stride * width)."""

    def stage(x: tf.Tensor) -> tf.Tensor:
        x = tf.pad(x, [[0, 0], [0, -tf.shape(x)[1] % layer.stride], [0, 0]])
        return tf.reshape(x, [-1, layer.stride * x.shape[2]])

    return stage


def _convolutions(layer: Convolutions) -> Stage:
    """(1, frames, width) -> (ceil(frames / stride), frequencies * channels)."""
    weights = [(*conv.get_weights(), conv.strides) for conv in layer.convolutions]

    def stage(x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [1, -1, x.shape[2], 1])
        for kernel, bias, strides in weights:
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides, "VALID") + bias)
        return tf.reshape(x, [-1, x.shape[2] * x.shape[3]])

    return stage


SUBSAMPLING: dict[type, Callable[..., Stage]] = {Stack: _stack, Convolutions: _convolutions}


def _affine(kernel: np.ndarray, bias: np.ndarray) -> Stage:
    return lambda x: tf.matmul(x, kernel) + bias


def _layer_norm(layer: keras.layers.LayerNormalization) -> Stage:
    gamma, beta = layer.get_weights()

    def stage(x: tf.Tensor) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + layer.epsilon) * gamma + beta

    return stage


def _beside_cells(norm: Stage, units: int) -> Stage:
    """For a layer that hands up its memory cells: they pass by what is done to its outputs."""

    def stage(x: tf.Tensor) -> tf.Tensor:
        outputs, cells = layers.split_cells(x, units)
        return tf.concat([norm(outputs), cells], axis=-1)

    return stage


def recurrent(layer: keras.layers.Layer) -> Stage:
    """(frames, inputs) -> (frames, units), or twice as wide where ``layer`` is bidirectional."""
    if isinstance(layer, keras.layers.Bidirectional):
        forward = recurrent(layer.forward_layer)
        backward = recurrent(layer.backward_layer)
        return lambda x: tf.concat(
            [forward(x), tf.reverse(backward(tf.reverse(x, [0])), [0])], axis=-1
        )
    if not isinstance(layer, layers.FastRecurrence) or not layer.has_equations():
        raise ModelError(
            f"{layer.name}, a {type(layer).__name__}, has no form for TFLite; the layers of "
            "speechrnn.layers have, with plain activations and without dropout within the "
            "recurrence. Export a SavedModel."
        )
    weights = layer.get_weights()

    def stage(x: tf.Tensor) -> tf.Tensor:
        zeros = [tf.zeros([1, size]) for size in tf.nest.flatten(layer.cell.state_size)]
        run = functools.partial(_nested_loop, sequences=layer.shown)
        states = layer.recurrence(weights, tf.expand_dims(x, 1), zeros, run)
        # One utterance: the batch axis of the scan's step order goes again.
        return tf.concat([tf.reshape(s, [-1, s.shape[2]]) for s in states[: layer.shown]], axis=-1)

    return stage


def _nested_loop(
    cell: layers.Equations, x: tf.Tensor, initial: State, sequences: int
) -> list[tf.Tensor]:
    """``scan.run`` in operations of the device: (frames, 1, inputs) -> ``sequences`` of the states.

    Zeros fill the last block: a backward layer's input must be reversed before it comes here.
    """
    count = min(sequences, cell.states)
    frames, width = tf.shape(x)[0], count * cell.units
    iterations = BLOCK_FRAMES // UNROLLED_FRAMES
    projected = cell.inputs(tf.reshape(x, [-1, x.shape[2]]))
    projected = tf.pad(projected, [[0, -frames % BLOCK_FRAMES], [0, 0]])
    blocks = tf.reshape(projected, [-1, iterations, UNROLLED_FRAMES, projected.shape[1]])

    def run_block(block: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
            outputs = []
            for row in tf.split(tf.gather(block, i), UNROLLED_FRAMES):
                u = tf.matmul(state[0], cell.recurrent)
                state, _ = cell.step(row, u, state, cell.vectors)
                outputs.append(tf.concat(state[:count], axis=-1))
            return i + 1, written.write(i, tf.concat(outputs, axis=0)), list(state)

        return _loop(tf.constant(iterations), body, [UNROLLED_FRAMES, width], state)

    def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
        outputs, state = run_block(tf.gather(blocks, i), state)
        return i + 1, written.write(i, tf.reshape(outputs, [BLOCK_FRAMES, width])), state

    outputs, _ = _loop(tf.shape(blocks)[0], body, [BLOCK_FRAMES, width], list(initial))
    outputs = tf.reshape(outputs, [-1, 1, width])[:frames]
    return tf.split(outputs, count, axis=-1)


def _loop(
    iterations: tf.Tensor, body: Callable[..., tuple], shape: list[int], state: State
) -> tuple[tf.Tensor, State]:
    """body(i, written, state) for each i -> all that was written, (iterations, *shape), and the
    state."""
    written = tf.TensorArray(tf.float32, iterations, element_shape=shape)
    _, written, state = tf.while_loop(
        lambda i, *_: i < iterations, body, (tf.constant(0), written, state)
    )
    return written.stack(), state
