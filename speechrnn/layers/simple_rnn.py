"""The plain recurrent network (Elman 1990)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from speechrnn.layers import scan


@keras.saving.register_keras_serializable("speechrnn")
class SimpleRNN(scan.FastRecurrence, keras.layers.SimpleRNN):
    """``keras.layers.SimpleRNN`` with the same weights and results, trained faster on a CPU.

    h' = tanh(x W + h U + b)
    """

    def recurrence(self, x: tf.Tensor, initial_state: scan.Tensors) -> list[tf.Tensor]:
        """(steps, batch, inputs) -> h (steps, batch, units)."""
        weights = [self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias]
        kernel, recurrent, bias = (tf.convert_to_tensor(w) for w in weights)
        total = scan.project(x, kernel, bias, self.product_dtype)
        (h0,) = initial_state
        return [_recurrence(total, recurrent, h0, self.product_dtype)]


def _recurrence(x: tf.Tensor, recurrent: tf.Tensor, h0: tf.Tensor, dtype: str) -> tf.Tensor:
    """The loop with its analytic gradient: x (steps, batch, units) -> h."""
    units = recurrent.shape[0]

    @tf.custom_gradient
    def run(x: tf.Tensor, recurrent: tf.Tensor, h0: tf.Tensor) -> Any:
        operand = tf.cast(recurrent, dtype)

        def step(inputs: scan.Tensors, state: scan.Tensors) -> tuple:
            h = tf.tanh(inputs[0] + scan.product(state[0], operand, dtype))
            return (h,), (h,)

        (h,), _ = scan.loop(step, [x], [h0], [units])

        def gradient(dh_out: tf.Tensor) -> tuple:
            def back(inputs: scan.Tensors, state: scan.Tensors) -> tuple:
                dh_out, slope = inputs
                dx = (state[0] + dh_out) * slope
                return (scan.product(dx, operand, dtype, transpose_b=True),), (dx,)

            (dx,), (dh0,) = scan.loop(
                back, [dh_out, 1 - tf.square(h)], [tf.zeros_like(h0)], [units], reverse=True
            )
            return dx, scan.outer_product(scan.shifted(h0, h), dx, dtype), dh0

        return h, gradient

    return run(x, recurrent, h0)
