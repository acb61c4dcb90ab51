"""The scan that runs every recurrent cell: its loop over frames, and the gradient of that loop.

A cell is stated as ``Equations``. The scan computes their products with the inputs before the
loop, for all frames at once: what is left in the loop is the one product that has to wait for
the frame before. The gradient's loop likewise carries only what has to be carried.

All is in step order (``order.StepOrder``): time-major, each row's first step at index 0,
padding behind its last. A loop that knows nothing of lengths is then right for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Tensors = Sequence[tf.Tensor]
Weight = Any  # a tensor, or an array
Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


class Equations:
    """A cell on given weights: tensors to train, arrays to become constants of an exported file.

    A frame's input enters as x = input kernel + bias, the state as u = h recurrent, where h is
    the state's first tensor and the cell's output; ``step`` says the rest, for each row of a
    batch by itself.

    ``step`` is all that a cell has to give: its gradient is then derived automatically, frame by
    frame for what hangs on the frames behind it and for all frames at once for the rest. Where
    a derivation on paper is faster, a cell overrides what follows ``step`` here.

    Args:
        kernel: (inputs, width), for all gates side by side.
        bias: (width,).
        recurrent: (units, recurrent width).
        vectors: further weights for ``step``, each (n,), such as peepholes.
    """

    states = 1  # tensors (batch, units) in the state
    saves: tuple[int, ...] = ()  # what ``step`` saves for the gradient: widths in units

    def __init__(
        self, kernel: Weight, bias: Weight, recurrent: Weight, vectors: Sequence[Weight] = ()
    ):
        self.kernel, self.bias, self.recurrent = kernel, bias, recurrent
        self.vectors = list(vectors)
        self.units = int(recurrent.shape[0])

    def inputs(self, rows: tf.Tensor, dtype: str = "float32") -> tf.Tensor:
        """(n, inputs) -> x (n, width), of any number of frames; of ``dtype`` if bfloat16."""
        return affine(rows, self.kernel, self.bias, dtype)

    def step(self, x: tf.Tensor, u: tf.Tensor, state: Tensors, vectors: Tensors) -> tuple:
        """One frame: (batch, width), (batch, recurrent width) -> new state, what is saved."""
        raise NotImplementedError

    @property
    def keeps(self) -> tuple[int, ...]:
        """What ``back`` keeps of a frame for ``finish``, beside du: widths in units."""
        return (1,) * self.states

    def coefficients(
        self, x: tf.Tensor, u: Callable[[], tf.Tensor], before: Tensors, after: Tensors, saved: Any
    ) -> list[tf.Tensor]:
        """What ``back`` reads, computed for all frames at once, each (steps, batch, n).

        ``before`` and ``after`` are the states around a step; ``u()`` computes u again.
        """
        return [x, u(), *before]

    def back(self, coefficients: Tensors, dstate: Tensors, vectors: Tensors) -> tuple:
        """One frame of the gradient: the loss's derivative by the new state -> by u (du), by the
        state before as far as it does not pass through u, and what is kept."""
        x, u, *before = coefficients
        du, *dbefore = _pullback(
            lambda u, *before: self.step(x, u, before, vectors)[0], [u, *before], dstate
        )
        return du, dbefore, dstate

    def finish(
        self, du: tf.Tensor, kept: Tensors, coefficients: Tensors, vectors: Tensors
    ) -> tuple:
        """All frames at once: derivatives by x and by each of the vectors."""
        x, u, *before = (_rows(c) for c in coefficients)
        dx, *dvectors = _pullback(
            lambda x, *vectors: self.step(x, u, before, vectors)[0],
            [x, *vectors],
            [_rows(k) for k in kept],
        )
        return _as_rows_of(dx, coefficients[0]), dvectors


def run(
    equations: Equations,
    inputs: tf.Tensor,
    initial_state: Tensors,
    dtype: str = "float32",
    sequences: int | None = None,
) -> list[tf.Tensor]:
    """(steps, batch, inputs) -> the state's tensors after every step, each (steps, batch, units).

    Args:
        equations: the cell, its weights being tensors.
        inputs: in step order.
        initial_state: the state's tensors, each (batch, units).
        dtype: of the operands of matrix products; ``bfloat16``, or float32 for the inputs' own.
        sequences: how many of the state's tensors to give; all by default.
    """
    cell, shape = equations, tf.shape(inputs)
    shown = cell.states if sequences is None else sequences

    @tf.custom_gradient
    def recurrence(x: tf.Tensor, recurrent: tf.Tensor, *rest: tf.Tensor) -> Any:
        initial, vectors = rest[: cell.states], rest[cell.states :]
        # Cast once: in the loop it would be cast for every frame.
        operand = tf.cast(recurrent, dtype) if dtype == "bfloat16" else recurrent
        after, saved = _forth(cell, x, operand, initial, vectors)

        def gradient(*upstream: tf.Tensor) -> tuple:
            before = [shifted(first, y) for first, y in zip(initial, after, strict=True)]
            coefficients = cell.coefficients(
                tf.cast(x, before[0].dtype),
                lambda: _as_rows_of(product(_rows(before[0]), operand), x),
                before,
                after,
                saved,
            )
            (du, *kept), dinitial = _back(cell, upstream, coefficients, operand, initial, vectors)
            dx, dvectors = cell.finish(du, kept, coefficients, vectors)
            drecurrent = tf.cast(outer_product(before[0], du), recurrent.dtype)
            return tf.cast(dx, x.dtype), drecurrent, *dinitial, *dvectors

        return after[:shown], gradient

    x = cell.inputs(_rows(inputs), dtype)
    x = tf.reshape(x, [shape[0], shape[1], x.shape[1]])
    return list(recurrence(x, cell.recurrent, *initial_state, *cell.vectors))


def _forth(
    cell: Equations, x: tf.Tensor, operand: tf.Tensor, initial: Tensors, vectors: Tensors
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The states after every step, and what the steps saved."""
    working = initial[0].dtype

    def step(frame: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        u = product(state[0], operand)
        state, saved = cell.step(tf.cast(frame[0], working), u, state, vectors)
        return state, [*state, *saved]

    widths = [(cell.units * n, working) for n in ((1,) * cell.states + cell.saves)]
    outputs, _ = loop(step, [x], initial, widths)
    return outputs[: cell.states], outputs[cell.states :]


def _back(
    cell: Equations,
    upstream: Tensors,
    coefficients: Tensors,
    operand: tf.Tensor,
    initial: Tensors,
    vectors: Tensors,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """du and what ``cell.back`` kept, of every step; the derivatives by the initial state.

    ``upstream`` are the derivatives by the first of the state's tensors, or by all of them.
    """
    working, shown = initial[0].dtype, len(upstream)
    # A product with a transposed operand is three times slower than one with this.
    transposed = tf.transpose(operand)

    def step(frame: Tensors, carry: Tensors) -> tuple[Tensors, Tensors]:
        dstate = list(carry)
        for i, derivative in enumerate(frame[:shown]):
            dstate[i] += derivative
        du, dbefore, kept = cell.back(frame[shown:], dstate, vectors)
        du = tf.cast(du, operand.dtype)
        through = tf.cast(tf.matmul(du, transposed), working)
        dbefore[0] = through if dbefore[0] is None else dbefore[0] + through
        return dbefore, [du, *kept]

    zeros = [tf.zeros_like(state) for state in initial]
    widths = [(operand.shape[1], operand.dtype), *((cell.units * n, working) for n in cell.keeps)]
    return loop(step, [*upstream, *coefficients], zeros, widths, reverse=True)


def loop(
    step: Step,
    inputs: Tensors,
    state: Tensors,
    outputs: Sequence[tuple[int, tf.DType]],
    reverse: bool = False,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Run ``step`` over the first axis of ``inputs``, the last frame first if ``reverse``.

    step(frame of each input, state) -> (new state, outputs), all (batch, width); ``outputs``
    gives the width and the dtype of each.

    Returns the outputs, each (frames, batch, width), and the final state.
    """
    frames = tf.shape(inputs[0])[0]
    write = [tf.TensorArray(dtype, frames, element_shape=[None, n]) for n, dtype in outputs]

    def body(t: tf.Tensor, state: Tensors, write: Sequence[tf.TensorArray]) -> tuple:
        at = frames - 1 - t if reverse else t
        begin = tf.reshape(at, [1])
        state, outputs = step([_frame(x, begin) for x in inputs], state)
        written = [array.write(at, out) for array, out in zip(write, outputs, strict=True)]
        return t + 1, list(state), written

    _, final, written = tf.while_loop(
        lambda t, *_: t < frames, body, (0, list(state), write), parallel_iterations=1
    )
    return [array.stack() for array in written], final


def _frame(x: tf.Tensor, begin: tf.Tensor) -> tf.Tensor:
    """x[begin[0]], in the one form that TensorFlow does not copy."""
    frame = tf.raw_ops.StridedSlice(
        input=x, begin=begin, end=begin + 1, strides=[1], shrink_axis_mask=1
    )
    frame.set_shape(x.shape[1:])
    return frame


def product(a: tf.Tensor, b: Weight) -> tf.Tensor:
    """a @ b with operands of b's dtype; the result is of a's."""
    return tf.cast(tf.matmul(tf.cast(a, b.dtype), b), a.dtype)


def outer_product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Sum over steps and rows of a (.., m) times b (.., n) -> (m, n): a weight's gradient."""
    return tf.matmul(tf.cast(_rows(a), b.dtype), _rows(b), transpose_a=True)


def sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """(.., n) -> (n,): the gradient of what was added to every row.

    In bfloat16 a product, which adds up in float32, where a sum would add up in bfloat16.
    """
    if x.dtype != tf.bfloat16:
        return tf.reduce_sum(_rows(x), axis=0)
    return tf.cast(tf.matmul(tf.ones([1, tf.shape(_rows(x))[0]], x.dtype), _rows(x))[0], tf.float32)


def affine(rows: tf.Tensor, kernel: Weight, bias: Weight, dtype: str) -> tf.Tensor:
    """rows (n, inputs) times kernel plus bias -> (n, width), of ``dtype`` if that is bfloat16.

    There its gradient casts what it needs once and adds up in float32.
    """
    if dtype != "bfloat16":
        return tf.matmul(rows, kernel) + bias

    @tf.custom_gradient
    def rounded(rows: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        left, right = tf.cast(rows, dtype), tf.cast(kernel, dtype)

        def gradient(dy: tf.Tensor) -> tuple:
            drows = tf.cast(tf.matmul(dy, right, transpose_b=True), rows.dtype)
            dkernel = tf.cast(tf.matmul(left, dy, transpose_a=True), kernel.dtype)
            return drows, dkernel, sum_of_rows(dy)

        return tf.nn.bias_add(tf.matmul(left, right), tf.cast(bias, dtype)), gradient

    return rounded(rows, kernel, bias)


def shifted(initial: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """(batch, width) and (steps, batch, width) -> the value before each step."""
    return tf.concat([initial[None], y[:-1]], axis=0)


def columns(weight: Weight, order: Sequence[int], parts: int) -> Weight:
    """The last axis cut into ``parts`` equal ones and put together again in this ``order``."""
    if isinstance(weight, np.ndarray):
        cut = np.split(weight, parts, axis=-1)
        return np.concatenate([cut[i] for i in order], axis=-1)
    cut = tf.split(weight, parts, axis=-1)
    return tf.concat([cut[i] for i in order], axis=-1)


def _pullback(function: Callable[..., Tensors], at: Tensors, upstream: Tensors) -> list[tf.Tensor]:
    """The derivatives by each of ``at`` of function(*at), given those by its results."""
    with tf.GradientTape() as tape:
        tape.watch(at)
        results = function(*at)
    return tape.gradient(results, at, upstream, unconnected_gradients="zero")


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(steps, batch, width) -> (steps * batch, width)."""
    return tf.reshape(x, [-1, x.shape[-1]])


def _as_rows_of(rows: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """(steps * batch, width) -> (steps, batch, width), with the first two axes of ``x``."""
    shape = tf.shape(x)
    return tf.reshape(rows, [shape[0], shape[1], rows.shape[-1]])
