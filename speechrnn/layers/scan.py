"""What every recurrent layer shares: the loop over frames, lengths and direction.

A recurrence is computed in *step order*: time-major, each row's first step at index 0. For
a forward layer step order is time order; a backward layer starts at each row's last valid
frame. Padding follows at the end of either, so a loop that knows nothing of lengths is right
for all of them, and a row's result cannot depend on its batch-mates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Tensors = Sequence[tf.Tensor]
Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


def loop(
    step: Step, inputs: Tensors, state: Tensors, widths: Sequence[int], reverse: bool = False
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Run ``step`` over the first axis of ``inputs``, the last frame first if ``reverse``.

    step(frame of each input, state) -> (new state, outputs), all (batch, width).

    Returns the outputs, each (frames, batch, width), and the final state.
    """
    frames = tf.shape(inputs[0])[0]
    read = [tf.TensorArray(x.dtype, frames).unstack(x) for x in inputs]
    write = [tf.TensorArray(tf.float32, frames, element_shape=[None, width]) for width in widths]

    def body(t: tf.Tensor, state: Tensors, write: Sequence[tf.TensorArray]) -> tuple:
        at = frames - 1 - t if reverse else t
        state, outputs = step([array.read(at) for array in read], state)
        written = [array.write(at, out) for array, out in zip(write, outputs, strict=True)]
        return t + 1, list(state), written

    _, final, written = tf.while_loop(
        lambda t, *_: t < frames, body, (0, list(state), write), parallel_iterations=1
    )
    return [array.stack() for array in written], final


class StepOrder:
    """The way from (batch, time) to step order and back, for one batch and one direction.

    ``lengths`` (batch,) counts the valid frames of each row; None: all are.
    """

    def __init__(self, x: tf.Tensor, lengths: tf.Tensor | None, backwards: bool):
        batch, frames = tf.shape(x)[0], tf.shape(x)[1]
        self.backwards = backwards
        self.shape = (batch, frames)
        self.lengths = tf.fill([batch], frames) if lengths is None else lengths
        time = tf.range(frames)[:, None]
        # An involution: the step of a frame is found by the same rule as the frame of a step.
        mirrored = tf.where(time < self.lengths, self.lengths - 1 - time, time)
        self._frame = mirrored if backwards else tf.broadcast_to(time, [frames, batch])

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """(batch, time, width) -> (steps, batch, width)."""
        batch, frames = self.shape
        rows = tf.range(batch)
        to_steps = rows * frames + self._frame
        to_frames = tf.transpose(self._frame * batch + rows)
        return _permute(x, to_steps, to_frames)

    def leave(self, y: tf.Tensor) -> tf.Tensor:
        """(steps, batch, width) -> (batch, time, width), zero past each row's end.

        As in Keras a backward layer's output runs from the last frame (padding first) to the
        first.
        """
        batch, frames = self.shape
        valid = tf.sequence_mask(self.lengths, frames, y.dtype)
        rows, steps = tf.range(batch), self._frame
        position = tf.range(frames)[:, None]
        if self.backwards:
            valid, steps = valid[:, ::-1], steps[::-1]
            position = frames - 1 - self._frame
        to_frames = tf.transpose(steps * batch + rows)
        to_steps = rows * frames + position
        return _permute(y, to_frames, to_steps) * valid[:, :, None]

    def last(self, y: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
        """(steps, batch, width) -> (batch, width) at each row's last valid step.

        A row without frames gives its ``initial`` state.
        """
        batch, frames = self.shape
        at = tf.maximum(self.lengths - 1, 0) * batch + tf.range(batch)
        width = y.shape[-1]
        # One more row, so that a batch without frames has something to gather from.
        flat = tf.concat([tf.reshape(y, [frames * batch, width]), initial], axis=0)
        return tf.where(self.lengths[:, None] > 0, tf.gather(flat, at), initial)


def _permute(x: tf.Tensor, forth: tf.Tensor, back: tf.Tensor) -> tf.Tensor:
    """Rearrange the rows of ``x``'s first two axes; ``back`` is the inverse of ``forth``.

    The gradient of a gather is a scatter, many times slower; of a permutation it is a gather.
    """

    @tf.custom_gradient
    def gather(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        flat = tf.reshape(x, [-1, x.shape[-1]])
        return tf.gather(flat, forth), lambda upstream: tf.gather(
            tf.reshape(upstream, [-1, x.shape[-1]]), back
        )

    return gather(x)


def project(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, dtype: str) -> tf.Tensor:
    """(steps, batch, inputs) times (inputs, outputs) for all frames in one product."""
    shape = tf.shape(x)
    flat = product(tf.reshape(x, [-1, kernel.shape[0]]), kernel, dtype)
    flat = flat if bias is None else flat + bias
    return tf.reshape(flat, [shape[0], shape[1], kernel.shape[1]])


def product(a: tf.Tensor, b: tf.Tensor, dtype: str, **transpose: bool) -> tf.Tensor:
    """a @ b with operands of ``dtype``, accumulated and given back in float32."""
    if dtype == "float32":
        return tf.matmul(a, b, **transpose)
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **transpose), tf.float32)


def shifted(initial: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """(batch, width) and (steps, batch, width) -> the value before each step."""
    return tf.concat([initial[None], y[:-1]], axis=0)


def outer_product(a: tf.Tensor, b: tf.Tensor, dtype: str) -> tf.Tensor:
    """Sum over steps and rows of a (.., m) times b (.., n) -> (m, n): a weight's gradient."""
    return product(
        tf.reshape(a, [-1, a.shape[-1]]), tf.reshape(b, [-1, b.shape[-1]]), dtype, transpose_a=True
    )


def _lengths(mask: tf.Tensor) -> tf.Tensor:
    """(batch, time) bool -> (batch,) int32. The mask must be true up to each row's end."""
    lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    tf.debugging.assert_equal(
        mask,
        tf.sequence_mask(lengths, tf.shape(mask)[1]),
        "padding must follow the valid frames: this mask has holes or begins with padding",
    )
    return lengths


class FastRecurrence(keras.layers.RNN):
    """Mixed into a Keras recurrent layer: replaces its loop where the fast one covers the call.

    A subclass gives ``recurrence(x, initial_state)`` over step order, returning the state
    sequences, the output first.

    Args:
        product_dtype: dtype of matrix products' operands, ``float32`` or ``bfloat16``; results
            accumulate in float32. The other arguments are Keras's.
    """

    def __init__(self, units: int, product_dtype: str = "float32", **kwargs: Any):
        super().__init__(units, **kwargs)
        self.product_dtype = product_dtype

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "product_dtype": self.product_dtype}

    def inner_loop(
        self,
        sequences: tf.Tensor,
        initial_state: Tensors,
        mask: tf.Tensor | None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        if not self._covers(mask):
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)
        lengths = None if mask is None else _lengths(mask)
        order = StepOrder(sequences, lengths, self.go_backwards)
        states = self.recurrence(order.enter(sequences), initial_state)
        final = [order.last(y, h) for y, h in zip(states, initial_state, strict=True)]
        return final[0], order.leave(states[0]), final

    def _covers(self, mask: tf.Tensor | None) -> bool:
        """Whether the fast loop computes what Keras would: plain activations, no dropout,
        zeros (not repeated outputs) past each row's end, no GPU with its cuDNN kernels."""
        cell = self.cell
        gates = getattr(cell, "recurrent_activation", None)
        return (
            cell.activation.__name__ == "tanh"
            and (gates is None or gates.__name__ == "sigmoid")
            and cell.use_bias
            and getattr(cell, "reset_after", True)
            and not (cell.dropout or cell.recurrent_dropout)
            and self.compute_dtype == "float32"
            and (mask is None or self.zero_output_for_mask)
            and not tf.config.list_logical_devices("GPU")
        )
