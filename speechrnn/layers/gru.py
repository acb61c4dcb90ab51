"""Gated recurrent unit (Cho et al. 2014) in the form of cuDNN: reset after the product."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from speechrnn.layers import scan


@keras.saving.register_keras_serializable("speechrnn")
class GRU(scan.FastRecurrence, keras.layers.GRU):
    """``keras.layers.GRU`` with the same weights and results, trained faster on a CPU.

    z, r = sigmoid(x W + h U + b)
    n = tanh(x W + b + r * (h U + b_n))
    h' = z * h + (1 - z) * n
    """

    def recurrence(self, x: tf.Tensor, initial_state: scan.Tensors) -> list[tf.Tensor]:
        """(steps, batch, inputs) -> h (steps, batch, units)."""
        bias, recurrent_bias = tf.unstack(tf.convert_to_tensor(self.cell.bias))
        total = scan.project(x, tf.convert_to_tensor(self.cell.kernel), bias, self.product_dtype)
        recurrent = tf.convert_to_tensor(self.cell.recurrent_kernel)
        (h0,) = initial_state
        return [_recurrence(total, recurrent, recurrent_bias, h0, self.product_dtype)]


def _recurrence(
    x: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor, h0: tf.Tensor, dtype: str
) -> tf.Tensor:
    """The loop with its analytic gradient: x (steps, batch, 3 units) -> h.

    Every gradient of a frame is the total dh of that frame times something known beforehand,
    so the backward loop carries dh alone.
    """
    units = recurrent.shape[0]

    @tf.custom_gradient
    def run(x: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor, h0: tf.Tensor) -> Any:
        operand = tf.cast(recurrent, dtype)

        def step(inputs: scan.Tensors, state: scan.Tensors) -> tuple:
            (h,) = state
            u = scan.product(h, operand, dtype) + bias
            zr = tf.sigmoid(inputs[0][:, : 2 * units] + u[:, : 2 * units])
            z, r, u_n = zr[:, :units], zr[:, units:], u[:, 2 * units :]
            n = tf.tanh(inputs[0][:, 2 * units :] + r * u_n)
            h = n + z * (h - n)
            return (h,), (h, zr, n, u_n)

        widths = (units, 2 * units, units, units)
        (h, zr, n, u_n), _ = scan.loop(step, [x], [h0], widths)

        def gradient(dh_out: tf.Tensor) -> tuple:
            z, r = tf.split(zr, 2, axis=-1)
            before = scan.shifted(h0, h)
            z_by_dh = (before - n) * z * (1 - z)
            n_by_dh = (1 - z) * (1 - tf.square(n))
            r_by_dh = n_by_dh * u_n * r * (1 - r)
            u_by_dh = tf.concat([z_by_dh, r_by_dh, n_by_dh * r], axis=-1)

            def back(inputs: scan.Tensors, state: scan.Tensors) -> tuple:
                dh_out, u_by_dh, z = inputs
                dh = state[0] + dh_out
                du = tf.concat([dh, dh, dh], axis=-1) * u_by_dh
                return (dh * z + scan.product(du, operand, dtype, transpose_b=True),), (dh, du)

            (dh, du), (dh0,) = scan.loop(
                back, [dh_out, u_by_dh, z], [tf.zeros_like(h0)], [units, 3 * units], reverse=True
            )
            dx = tf.concat([du[..., : 2 * units], dh * n_by_dh], axis=-1)
            d_recurrent = scan.outer_product(before, du, dtype)
            return dx, d_recurrent, tf.reduce_sum(du, axis=[0, 1]), dh0

        return h, gradient

    return run(x, recurrent, bias, h0)
