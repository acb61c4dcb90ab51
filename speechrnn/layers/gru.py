"""Gated recurrent unit (Cho et al. 2014) in the form of cuDNN: reset after the product."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn.layers import scan
from speechrnn.layers.rnn import KerasRecurrence


class GRUEquations(scan.Equations):
    """z, r = sigmoid(x W + b + h U + b')
    n = tanh(x W + b + r * (h U + b'))
    h' = z * h + (1 - z) * n

    The gates lie side by side in the order z, r, n. Of b' only the part of n has to be added in
    the loop: it is the one vector. The others are in the bias.
    """

    saves = (2, 1, 1)
    keeps = (1,)

    def step(
        self, x: tf.Tensor, u: tf.Tensor, state: scan.Tensors, vectors: scan.Tensors
    ) -> tuple[scan.Tensors, scan.Tensors]:
        (h,), width = state, 2 * self.units
        u_n = u[:, width:] + vectors[0]
        zr = tf.sigmoid(x[:, :width] + u[:, :width])
        z, r = tf.split(zr, 2, axis=-1)
        n = tf.tanh(x[:, width:] + r * u_n)
        return [n + z * (h - n)], [zr, n, u_n]

    # Every gradient of a frame is its total dh times something known beforehand.

    def coefficients(self, x: Any, u: Any, before: Any, after: Any, saved: Any) -> list:
        zr, n, u_n = saved
        z, r = tf.split(zr, 2, axis=-1)
        dz_by_dh = (before[0] - n) * z * (1 - z)
        dn_by_dh = (1 - z) * (1 - tf.square(n))
        dr_by_dh = dn_by_dh * u_n * r * (1 - r)
        return [tf.concat([dz_by_dh, dr_by_dh, dn_by_dh * r], axis=-1), z, dn_by_dh]

    def back(self, coefficients: scan.Tensors, dstate: scan.Tensors, vectors: Any) -> tuple:
        du_by_dh, z, _ = coefficients
        (dh,) = dstate
        du = tf.tile(dh, [1, 3]) * du_by_dh
        return du, [dh * z], [dh]

    def finish(self, du: tf.Tensor, kept: scan.Tensors, coefficients: Any, vectors: Any) -> tuple:
        dn = tf.cast(kept[0] * coefficients[2], du.dtype)
        dx = tf.concat([du[..., : 2 * self.units], dn], axis=-1)
        return dx, [scan.sum_of_rows(du[..., 2 * self.units :])]


@keras.saving.register_keras_serializable("speechrnn")
class GRU(KerasRecurrence, keras.layers.GRU):
    """``keras.layers.GRU`` with the same weights and results, trained faster on a CPU."""

    def equations(self, weights: list[scan.Weight]) -> GRUEquations:
        kernel, recurrent, biases = weights
        of_gates = np.repeat([1, 1, 0], self.units).astype(tf.as_dtype(biases.dtype).as_numpy_dtype)
        bias = biases[0] + of_gates * biases[1]
        return GRUEquations(kernel, bias, recurrent, [biases[1][2 * self.units :]])
