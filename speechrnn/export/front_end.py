"""What stands before the recurrent layers, in operations of the device: features, subsampling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from speechrnn.features import graph
from speechrnn.model import Convolutions, Stack
from speechrnn.specs import RecogniserSpec

BLOCK_FRAMES = 256  # output frames of a block, at most
SMALL_WEIGHTS = 1024  # numbers; the converter quantises no smaller weight than this

# (1, frames, width), the first output frame, and the feature frames since the beginning.
Subsampling = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class FrontEnd:
    """A waveform, whole or piece by piece -> the input of the first recurrent layer.

    Each output frame reads the feature frames of ``ModelSpec.context`` on either side of its
    own: zeros before an utterance's first and behind its last.

    Args:
        precision: that the weights are going to have. The features are computed in float32.
        by_block: whether a loop may go over a long recording.
    """

    def __init__(
        self, layer: keras.layers.Layer, spec: RecogniserSpec, precision: str, by_block: bool = True
    ):
        self._looping = by_block
        self._spec = spec
        self._before, self._behind = spec.model.context
        self._subsampling = SUBSAMPLING[type(layer)](layer, precision == "int8")
        self._product = HalvesProduct() if precision == "float16" else ExactProduct()

    def features(self, waveform: tf.Tensor) -> tf.Tensor:
        """(samples,), one window or more -> (feature frames, dimension), normalised."""
        power = functools.partial(power_spectrum, product=self._product)
        features = graph.features(waveform[tf.newaxis], self._spec.features, self._product, power)
        frames = tf.shape(features)[1:2]
        return graph.normalise(features, frames, self._spec.statistics)[0]

    def whole(self, waveform: tf.Tensor) -> tf.Tensor:
        """(samples,), one window or more -> (frames, width).

        Computed block by block where it may be, so that memory grows with the result alone: what
        stands between a waveform and its spectrum takes many times more. Only an utterance's own
        normalisation has to see all features at once.
        """
        if self._spec.statistics is None:
            return self.subsampled(self.features(waveform))
        window, hop = self._spec.features.window_samples, self._spec.features.hop_samples
        blocks = self._blocks(1 + (tf.shape(waveform)[0] - window) // hop)
        missing = (blocks.frames - blocks.total + self._behind) * hop + window
        waveform = tf.pad(waveform, [[self._before * hop, missing]])

        def features(start: tf.Tensor) -> tf.Tensor:
            samples = (blocks.read - 1) * hop + window
            return self.features(tf.slice(waveform, [start * hop], [samples]))

        return self._by_block(blocks, features)

    def subsampled(self, features: tf.Tensor) -> tf.Tensor:
        """(feature frames, dimension) of a whole recording -> (frames, width)."""
        blocks = self._blocks(tf.shape(features)[0])
        missing = blocks.frames - blocks.total + self._behind
        padded = tf.pad(features, [[self._before, missing], [0, 0]])
        size = tf.stack([blocks.read, features.shape[1]])
        return self._by_block(blocks, lambda start: tf.slice(padded, [start, 0], size))

    def _blocks(self, total: tf.Tensor) -> _Blocks:
        return _Blocks(self._spec, total, BLOCK_FRAMES if self._looping else None)

    def _by_block(self, blocks: _Blocks, features: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """``features`` gives the ``blocks.read`` frames from one on, counted from the first that is
        read; what lies outside of the recording may be anything."""
        width = _width(self._spec)

        def body(i: tf.Tensor, written: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = i * blocks.size * self._spec.model.time_stride
            index = start - self._before + tf.range(blocks.read)
            inside = (index >= 0) & (index < blocks.total)
            x = tf.ensure_shape(features(start), [None, self._spec.features.dimension])
            x *= tf.cast(inside, tf.float32)[:, tf.newaxis]
            x = self._subsampling(x[tf.newaxis], i * blocks.size, blocks.total)
            return i + 1, tf.concat([written, x], axis=0)

        begin = (tf.constant(0), tf.zeros([0, width]))
        if not self._looping:
            return body(*begin)[1]
        shapes = (tf.TensorShape([]), tf.TensorShape([None, width]))
        _, x = tf.while_loop(lambda i, _: i < blocks.count, body, begin, shapes)
        return tf.slice(x, [0, 0], tf.stack([blocks.outputs, width]))

    def piece(
        self, samples: tf.Tensor, frame: tf.Tensor, final: tf.Tensor, more: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples that begin ``spec.carried_samples`` before those of output ``frame`` -> the
        frames from there on that they are enough for, (frames, width), and how many these are.

        Before an utterance's first frame any samples will do. If ``final`` is not zero nothing
        follows: all frames are given, and ``more`` that mean nothing behind them.
        """
        x = self.features(samples)
        stride, hop = self._spec.model.time_stride, self._spec.features.hop_samples
        carried = self._spec.carried_samples // hop
        index = frame * stride - carried + tf.range(tf.shape(x)[0])
        total = index[-1] + 1
        x *= tf.cast(index >= 0, tf.float32)[:, tf.newaxis]
        enough = (total - 1 - self._behind) // stride + 1
        going_on = tf.equal(final, 0)
        outputs = tf.where(going_on, enough, self._spec.model.output_frames(total)) - frame
        given = tf.where(going_on, outputs, outputs + more)
        x = self._ending_after(x[tf.newaxis, carried - self._before :], given, more)
        return self._subsampling(x, frame, total), outputs

    def _ending_after(self, x: tf.Tensor, outputs: tf.Tensor, more: int = 0) -> tf.Tensor:
        """Just the frames that so many outputs read, with zeros where there are too few."""
        reach = self._before + self._behind
        missing = reach + self._spec.model.time_stride * (1 + more)
        x = tf.pad(x, [[0, 0], [0, missing], [0, 0]])
        frames = (outputs - 1) * self._spec.model.time_stride + reach + 1
        return tf.slice(x, [0, 0, 0], tf.stack([1, frames, x.shape[2]]))


class _Blocks:
    """How a recording of ``total`` feature frames is cut: ``count`` blocks of ``size`` outputs,
    ``frames`` feature frames in all, of which each block reads ``read``.

    They are equal, so that a short recording is one block and no longer than it is. ``most`` limits
    their outputs; None: there is one block.
    """

    def __init__(self, spec: RecogniserSpec, total: tf.Tensor, most: int | None):
        stride = spec.model.time_stride
        self.total, self.outputs = total, spec.model.output_frames(total)
        self.count = 1 if most is None else -(-self.outputs // most)
        self.size = -(-self.outputs // self.count)
        self.frames = self.count * self.size * stride
        self.read = (self.size - 1) * stride + sum(spec.model.context) + 1


class ExactProduct:
    """Products with constants in float32, though the weights become int8."""

    def __call__(self, x: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
        """(n, frames, m) times (m, k).

        With int8 weights the runtime rounds the other operand too, each frame relative to its
        largest value: of a power spectrum only the loudest bins would be left. The converter
        leaves small weights alone, so the product is put together from small blocks. They leave
        out rows of zeros, which are most of a mel filterbank.
        """
        rows = tf.reshape(x, [-1, x.shape[2]])
        y = tf.concat(
            [tf.matmul(rows[:, i], matrix[i, j]) for i, j in small_blocks(matrix)], axis=1
        )
        return tf.reshape(y, [tf.shape(x)[0], tf.shape(x)[1], matrix.shape[1]])

    def scaled(self, x: tf.Tensor, constant: np.ndarray) -> tf.Tensor:
        return x * constant


class HalvesProduct(ExactProduct):
    """The same where every constant becomes float16: each is split into two that lose nothing."""

    def __call__(self, x: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
        high, low = _halves(matrix)
        return super().__call__(x, high) + super().__call__(x, low)

    def scaled(self, x: tf.Tensor, constant: np.ndarray) -> tf.Tensor:
        high, low = _halves(constant)
        return x * high + x * low


def _halves(constant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    high = constant.astype(np.float16).astype(np.float32)
    return high, (constant - high).astype(np.float16).astype(np.float32)


def power_spectrum(frames: tf.Tensor, fft_length: int, product: ExactProduct) -> tf.Tensor:
    """(1, frames, window) -> (1, frames, fft_length / 2 + 1), without the RFFT2D operation.

    In LiteRT 2.3 a second call of the same length in a row gives other results for some lengths, as
    if the operation's tables, written once, lay in memory that the rest of the graph uses too.

    With N = fft_length = r c, n = c i + j and k = p + r q this is the Cooley-Tukey split into
    transforms of r and of c points, as matrix products:

        X[p + r q] = sum over j of w^(j p) exp(-2 pi i j q / c) sum over i of x[c i + j]
                     exp(-2 pi i i p / r),   w = exp(-2 pi i / N)

    A real x needs the bins up to N / 2 only: q <= c / 2.
    """
    r = 2 ** (int(fft_length).bit_length() // 2)
    c = fft_length // r
    x = tf.pad(frames, [[0, 0], [0, 0], [0, fft_length - frames.shape[2]]])
    x = tf.transpose(tf.reshape(x, [-1, r, c]), [0, 2, 1])  # (frames, j, i)
    cos, sin = _turns(r, r, r)  # (i, p)
    real, imag = product(x, cos), product(x, sin)  # (frames, j, p)
    cos, sin = _turns(c, r, fft_length)  # (j, p)
    real, imag = (
        product.scaled(real, cos) - product.scaled(imag, sin),
        product.scaled(real, sin) + product.scaled(imag, cos),
    )
    real, imag = tf.transpose(real, [0, 2, 1]), tf.transpose(imag, [0, 2, 1])  # (frames, p, j)
    cos, sin = _turns(c, c // 2 + 1, c)  # (j, q)
    power = tf.square(product(real, cos) - product(imag, sin)) + tf.square(
        product(real, sin) + product(imag, cos)
    )
    bins = tf.reshape(tf.transpose(power, [0, 2, 1]), [1, -1, r * (c // 2 + 1)])  # by k = p + r q
    return bins[:, :, : fft_length // 2 + 1]


def _turns(rows: int, columns: int, circle: int) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part of exp(-2 pi i m n / circle), (rows, columns) float32."""
    angles = -2 * np.pi * np.outer(np.arange(rows), np.arange(columns)) / circle
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


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


def _stack(layer: Stack, frame_by_frame: bool) -> Subsampling:
    def stage(x: tf.Tensor, frame: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, layer.stride * x.shape[2]])

    return stage


def _convolutions(layer: Convolutions, frame_by_frame: bool) -> Subsampling:
    """Along time the zeros around are part of x already, those around what lies between the
    convolutions are put in here."""
    (first, first_bias), (second, second_bias) = (c.get_weights() for c in layer.convolutions)
    strides, (first_stride, _) = [c.strides for c in layer.convolutions], layer.strides

    def stage(x: tf.Tensor, frame: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, [1, -1, x.shape[2], 1])
        x = _convolved(x, first, first_bias, strides[0], frame_by_frame)
        index = frame * layer.strides[1] - 1 + tf.range(tf.shape(x)[1])
        inside = (index >= 0) & (index < -(-total // first_stride))
        x *= tf.reshape(tf.cast(inside, tf.float32), [1, -1, 1, 1])
        x = _convolved(x, second, second_bias, strides[1], frame_by_frame)
        return tf.reshape(x, [-1, x.shape[2] * x.shape[3]])

    return stage


def _convolved(
    x: tf.Tensor,
    kernel: np.ndarray,
    bias: np.ndarray,
    strides: tuple[int, int],
    frame_by_frame: bool,
) -> tf.Tensor:
    """A convolution and ReLU, unpadded along time, padded along frequency, of just the frames that
    its outputs read.

    Where its weights are int8 the runtime rounds its inputs relative to the largest of a row of
    the batch. With the whole recording in one row, what is said later, or in another piece,
    would change what was heard before. So each output's frames become a row.
    """
    if frame_by_frame and kernel.size >= SMALL_WEIGHTS:
        x = _windows(x, kernel.shape[0], strides[0])
    x = tf.pad(x, [[0, 0], [0, 0], [1, 1], [0, 0]])
    y = tf.nn.relu(tf.nn.conv2d(x, kernel, strides, "VALID") + bias)
    return tf.reshape(y, [1, -1, y.shape[2], y.shape[3]])


def _windows(x: tf.Tensor, height: int, stride: int) -> tf.Tensor:
    """(1, (n - 1) * stride + height, width, channels) -> n windows of ``height`` frames.

    Put together from groups of ``stride`` frames: a slice with steps copies number by number.
    """
    width, channels = x.shape[2:]
    x = tf.pad(x, [[0, 0], [0, -height % stride], [0, 0], [0, 0]])
    groups = tf.reshape(x, [-1, stride, width, channels])
    n = tf.shape(groups)[0] - -(-height // stride) + 1
    taken = [min(stride, height - start) for start in range(0, height, stride)]
    parts = [
        tf.slice(groups, [i, 0, 0, 0], tf.stack([n, frames, width, channels]))
        for i, frames in enumerate(taken)
    ]
    return tf.concat(parts, axis=1)


def _width(spec: RecogniserSpec) -> int:
    """Numbers in a frame that the first recurrent layer reads."""
    model, dimension = spec.model, spec.features.dimension
    if model.subsampling == "stack":
        return model.time_stride * dimension
    return -(-dimension // 4) * model.conv_channels  # both convolutions halve it, rounded up


SUBSAMPLING: dict[type, Callable[..., Subsampling]] = {Stack: _stack, Convolutions: _convolutions}
