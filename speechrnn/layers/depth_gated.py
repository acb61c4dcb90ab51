"""Depth-gated LSTM (Yao, Cohn, Vylomova, Duh, Dyer 2015, arXiv 1508.03790)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from speechrnn.layers import scan
from speechrnn.layers.rnn import CellLayer, RecurrentCell


class DepthGatedEquations(scan.Equations):
    """i = sigmoid(W_i x + U_i h + w_ci * c + b_i)
    f = sigmoid(W_f x + U_f h + w_cf * c + b_f)
    d = sigmoid(W_d x + w_cd * c + w_ld * l + b_d)
    c' = f * c + i * tanh(W_g x + U_g h + b_g) + d * l
    o = sigmoid(W_o x + U_o h + w_co * c' + b_o)
    h' = o * tanh(c')

    l is the memory cell of the layer below at the same frame: W_l x + b_l in the bottom layer,
    taken from the input elsewhere. What the scan calls x holds, side by side, i, f, g, o, d and
    l; its vectors are w_ci, w_cf, w_co, w_cd and w_ld.

    Args:
        lower: the input's columns that are the lower memory cell; None in the bottom layer.
    """

    states = 2

    def __init__(self, *weights: Any, lower: slice | None):
        super().__init__(*weights)
        self.lower = lower

    def inputs(self, rows: tf.Tensor, dtype: str = "float32") -> tf.Tensor:
        if self.lower is None:
            return super().inputs(rows, dtype)
        x = super().inputs(rows[:, : self.kernel.shape[0]], dtype)
        return tf.concat([tf.cast(x, rows.dtype), rows[:, self.lower]], axis=-1)

    def step(
        self, x: tf.Tensor, u: tf.Tensor, state: scan.Tensors, vectors: scan.Tensors
    ) -> tuple[scan.Tensors, scan.Tensors]:
        (_, c), n = state, self.units
        w_ci, w_cf, w_co, w_cd, w_ld = vectors
        i, f, g, o = tf.split(x[:, : 4 * n] + u, 4, axis=-1)
        d, lower = tf.split(x[:, 4 * n :], 2, axis=-1)
        i = tf.sigmoid(i + w_ci * c)
        f = tf.sigmoid(f + w_cf * c)
        d = tf.sigmoid(d + w_cd * c + w_ld * lower)
        c = f * c + i * tf.tanh(g) + d * lower
        o = tf.sigmoid(o + w_co * c)
        return [o * tf.tanh(c), c], []


@keras.saving.register_keras_serializable("speechrnn")
class DepthGatedCell(RecurrentCell):
    """The cell of ``DepthGatedLSTM``: its weights, and one frame of its equations.

    Args:
        units: of the output and of the memory cell.
        lower_cells: how many memory cells of the layer below stand at the end of the input, each
            of ``units`` columns: 0 in the bottom layer, which projects its input instead.
        own: which of them is this cell's.
        return_cells: put the memory cell behind the output.
    """

    def __init__(
        self,
        units: int,
        lower_cells: int = 0,
        own: int = 0,
        return_cells: bool = False,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        self.lower_cells, self.own, self.return_cells = lower_cells, own, return_cells

    @property
    def state_size(self) -> list[int]:
        return [self.units, self.units]

    @property
    def output_size(self) -> int:
        return self.units * (1 + self.return_cells)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        units, inputs = self.units, int(input_shape[-1] or 0) - self.lower_cells * self.units
        if inputs < 1:
            raise ValueError(
                f"{self.name}: the input has {input_shape[-1]} columns, {self.lower_cells} memory "
                f"cells of {units} units included; at least one more is needed"
            )
        # Gates i, f, g, o, d; in the bottom layer the lower cell's projection behind them.
        gates = 5 if self.lower_cells else 6
        self.kernel = self.add_weight(
            shape=(inputs, gates * units), initializer="glorot_uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(units, 4 * units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(gates * units,), initializer=self._bias, name="bias")
        self.peepholes = self.add_weight(shape=(5, units), initializer="zeros", name="peepholes")

    def _bias(self, shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        """Ones for the forget gate (Jozefowicz et al. 2015), zeros for all else."""
        gates = tf.one_hot(1, shape[0] // self.units, dtype=dtype or tf.float32)
        return tf.repeat(gates, self.units)

    def equations(self, weights: list[scan.Weight]) -> DepthGatedEquations:
        kernel, recurrent, bias, peepholes = weights
        vectors = [peepholes[i] for i in range(5)]
        start = int(kernel.shape[0]) + self.own * self.units
        lower = slice(start, start + self.units) if self.lower_cells else None
        return DepthGatedEquations(kernel, bias, recurrent, vectors, lower=lower)

    def call(self, inputs: tf.Tensor, states: scan.Tensors, training: bool = False) -> tuple:
        h, state = super().call(inputs, states, training)
        return (tf.concat(state, axis=-1) if self.return_cells else h), state

    def get_config(self) -> dict[str, Any]:
        own = {"lower_cells": self.lower_cells, "own": self.own, "return_cells": self.return_cells}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("speechrnn")
class DepthGatedLSTM(CellLayer):
    """An LSTM with peepholes whose memory cell also takes in that of the layer below, through a
    depth gate. The equations are ``DepthGatedEquations``.

    A stack hands its memory cells upward behind the outputs:

        >>> bottom = DepthGatedLSTM(8, return_cells=True, return_sequences=True)
        >>> top = DepthGatedLSTM(8, lower_cells=1, return_sequences=True)
        >>> top(bottom(tf.zeros([2, 5, 3]))).shape
        TensorShape([2, 5, 8])

    In ``keras.layers.Bidirectional`` each direction takes the memory cells of its own direction
    below; ``split_cells`` parts a layer's output where something stands between two layers:

        >>> bottom = keras.layers.Bidirectional(bottom)
        >>> top = keras.layers.Bidirectional(
        ...     DepthGatedLSTM(8, lower_cells=2, return_sequences=True))
        >>> outputs, cells = split_cells(bottom(tf.zeros([2, 5, 3])), units=8)
        >>> top(tf.concat([outputs, cells], axis=-1)).shape
        TensorShape([2, 5, 16])

    Args:
        units: of the output and of the memory cell.
        lower_cells: 0 in the bottom layer, whose lower cell is a learnt projection of its input;
            1 where the input ends in the lower layer's memory cells; 2 where it ends in those of
            a forward and a backward layer, in this order.
        return_cells: the output is (batch, time, 2 units), the memory cells behind the outputs.

    Weights: kernel (inputs, 5 units) and bias (5 units,) for i, f, g, o, d, in the bottom layer
    6 units, the last for l; recurrent_kernel (units, 4 units) for i, f, g, o; peepholes
    (5, units), the rows being w_ci, w_cf, w_co, w_cd, w_ld.
    """

    cell_class = DepthGatedCell

    def __init__(self, units: int, lower_cells: int = 0, return_cells: bool = False, **kwargs: Any):
        if lower_cells not in (0, 1, 2):
            raise ValueError(f"lower_cells is {lower_cells}; 0, 1 or 2 (of both directions)")
        # Of two, the first is the forward layer's. Bidirectional turns a copy's direction round.
        kwargs["own"] = int(lower_cells == 2 and kwargs.get("go_backwards", False))
        super().__init__(units, lower_cells=lower_cells, return_cells=return_cells, **kwargs)
        self.shown = 1 + return_cells


def split_cells(y: tf.Tensor, units: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What a layer with ``return_cells`` gives, or Bidirectional around one -> its outputs and its
    memory cells, each (batch, time, units), or twice as wide with both directions."""
    parts = tf.split(y, y.shape[-1] // units, axis=-1)
    return tf.concat(parts[0::2], axis=-1), tf.concat(parts[1::2], axis=-1)
