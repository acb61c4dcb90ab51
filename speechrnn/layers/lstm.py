"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate by Gers et al. 2000)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from speechrnn.layers import scan
from speechrnn.layers.rnn import KerasRecurrence


class LSTMEquations(scan.Equations):
    """i, f, o = sigmoid(x W + b + h U), g = tanh(x W + b + h U)
    c' = f * c + i * g
    h' = o * tanh(c')

    The gates lie side by side in the order i, f, o, g, so that one sigmoid serves three.
    """

    states = 2
    saves = (3, 1)
    keeps = ()

    def step(
        self, x: tf.Tensor, u: tf.Tensor, state: scan.Tensors, vectors: scan.Tensors
    ) -> tuple[scan.Tensors, scan.Tensors]:
        z, n = x + u, self.units
        gates, g = tf.sigmoid(z[:, : 3 * n]), tf.tanh(z[:, 3 * n :])
        i, f, o = tf.split(gates, 3, axis=-1)
        c = f * state[1] + i * g
        return [o * tf.tanh(c), c], [gates, g]

    def coefficients(self, x: Any, u: Any, before: Any, after: Any, saved: Any) -> list:
        gates, g = saved
        i, f, o = tf.split(gates, 3, axis=-1)
        squashed = tf.tanh(after[1])
        dc_by_dh = o * (1 - tf.square(squashed))
        do_by_dh = squashed * o * (1 - o)
        # What dc is multiplied with to give the gradients of i, f and g before activation.
        di_by_dc, df_by_dc, dg_by_dc = g * i * (1 - i), before[1] * f * (1 - f), i * (1 - g * g)
        return [dc_by_dh, do_by_dh, tf.concat([di_by_dc, df_by_dc, dg_by_dc], -1), f]

    def back(self, coefficients: scan.Tensors, dstate: scan.Tensors, vectors: Any) -> tuple:
        dc_by_dh, do_by_dh, by_dc, f = coefficients
        dh, dc = dstate
        dc = dc + dh * dc_by_dh
        di_by_dc, df_by_dc, dg_by_dc = tf.split(by_dc, 3, axis=-1)
        dz = tf.concat([dc * di_by_dc, dc * df_by_dc, dh * do_by_dh, dc * dg_by_dc], axis=-1)
        return dz, [None, dc * f], []

    def finish(self, du: tf.Tensor, kept: Any, coefficients: Any, vectors: Any) -> tuple:
        return du, []


@keras.saving.register_keras_serializable("speechrnn")
class LSTM(KerasRecurrence, keras.layers.LSTM):
    """``keras.layers.LSTM`` with the same weights and results, trained faster on a CPU."""

    def equations(self, weights: list[scan.Weight]) -> LSTMEquations:
        # Keras has them in the order i, f, g, o.
        kernel, recurrent, bias = (scan.columns(w, (0, 1, 3, 2), 4) for w in weights)
        return LSTMEquations(kernel, bias, recurrent)
