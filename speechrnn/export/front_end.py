"""What stands before the recurrent layers, in operations of the device: features, subsampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from speechrnn.features import graph
from speechrnn.model import Convolutions, Stack
from speechrnn.specs import RecogniserSpec

SMALL_WEIGHTS = 1024  # numbers; the converter quantises no smaller weight than this

# (1, frames, width), the first output frame, and the feature frames since the beginning.
Subsampling = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class FrontEnd:
    """A waveform, whole or piece by piece -> the input of the first recurrent layer.

    Each output frame reads the feature frames of ``ModelSpec.context`` on either side of its
    own: zeros before an utterance's first and behind its last.
    """

    def __init__(self, layer: keras.layers.Layer, spec: RecogniserSpec):
        self._spec = spec
        self._before, self._behind = spec.model.context
        self._subsampling = SUBSAMPLING[type(layer)](layer)

    def whole(self, waveform: tf.Tensor) -> tf.Tensor:
        """(samples,), one window or more -> (frames, width)."""
        features = graph.features(waveform[tf.newaxis], self._spec.features, _exact_product)
        total = tf.shape(features)[1]
        x = graph.normalise(features, total[tf.newaxis], self._spec.statistics)
        x = tf.pad(x, [[0, 0], [self._before, 0], [0, 0]])
        outputs = self._spec.model.output_frames(total)
        return self._subsampling(self._ending_after(x, outputs), tf.constant(0), total)

    def piece(
        self, samples: tf.Tensor, frame: tf.Tensor, final: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples that begin ``spec.carried_samples`` before those of output ``frame`` -> the
        frames they are enough for, at least one, (frames, width), and the samples to carry.

        Before an utterance's first frame any samples will do. If ``final`` is not zero no more
        will come, and all frames are given.
        """
        features = graph.features(samples[tf.newaxis], self._spec.features, _exact_product)
        stride, hop = self._spec.model.time_stride, self._spec.features.hop_samples
        carried = self._spec.carried_samples // hop
        index = frame * stride - carried + tf.range(tf.shape(features)[1])
        total = index[-1] + 1
        known = tf.cast(index >= 0, tf.float32)[tf.newaxis, :, tf.newaxis]
        x = graph.normalise(features, tf.shape(features)[1:2], self._spec.statistics) * known
        enough = (total - 1 - self._behind) // stride + 1
        last = tf.where(tf.equal(final, 0), enough, self._spec.model.output_frames(total))
        outputs = last - frame
        x = self._ending_after(x[:, carried - self._before :], outputs)
        return self._subsampling(x, frame, total), samples[outputs * stride * hop :]

    def _ending_after(self, x: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Just the frames that so many outputs read, with zeros where there are too few."""
        reach = self._before + self._behind
        x = tf.pad(x, [[0, 0], [0, reach + self._spec.model.time_stride], [0, 0]])
        return x[:, : (outputs - 1) * self._spec.model.time_stride + reach + 1]


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


def _stack(layer: Stack) -> Subsampling:
    def stage(x: tf.Tensor, frame: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, layer.stride * x.shape[2]])

    return stage


def _convolutions(layer: Convolutions) -> Subsampling:
    """Along time the zeros around are part of x already, those around what lies between the
    convolutions are put in here."""
    (first, first_bias), (second, second_bias) = (c.get_weights() for c in layer.convolutions)
    strides, (first_stride, _) = [c.strides for c in layer.convolutions], layer.strides

    def stage(x: tf.Tensor, frame: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [1, -1, x.shape[2], 1])
        x = _convolved(x, first, first_bias, strides[0])
        index = frame * layer.strides[1] - 1 + tf.range(tf.shape(x)[1])
        inside = (index >= 0) & (index < -(-total // first_stride))
        x *= tf.reshape(tf.cast(inside, tf.float32), [1, -1, 1, 1])
        x = _convolved(x, second, second_bias, strides[1])
        return tf.reshape(x, [-1, x.shape[2] * x.shape[3]])

    return stage


def _convolved(x: tf.Tensor, kernel: np.ndarray, bias: np.ndarray, strides: object) -> tf.Tensor:
    x = tf.pad(x, [[0, 0], [0, 0], [1, 1], [0, 0]])
    return tf.nn.relu(tf.nn.conv2d(x, kernel, strides, "VALID") + bias)


SUBSAMPLING: dict[type, Callable[..., Subsampling]] = {Stack: _stack, Convolutions: _convolutions}
