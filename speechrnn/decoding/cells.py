"""The recurrent cells one step at a time, in NumPy: what a decoder needs of a language model.

``layers`` is where they are defined and trained. Here a cell is made of its layer's weights, in
the layer's own order, and works on n hypotheses at once. All of a hypothesis's state stands in one
row, so that hypotheses are picked, kept and put together as rows of one array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from speechrnn.specs import ModelSpec

Array = np.ndarray


class Cell(Protocol):
    """One layer: ``project`` is all that can be known before the step, ``step`` is the rest."""

    state_size: int  # columns; all zeros at the start

    def project(self, x: Array) -> Array:
        """(n, inputs) -> (n, width)."""

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        """(n, width), (n, state_size) -> outputs (n, units), new states."""


class SimpleRNN:
    """h' = tanh(x W + b + h U)"""

    def __init__(self, kernel: Array, recurrent: Array, bias: Array):
        self.kernel, self.recurrent, self.bias = kernel, recurrent, bias
        self.state_size = len(recurrent)

    def project(self, x: Array) -> Array:
        return x @ self.kernel + self.bias

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        h = np.tanh(projected + state @ self.recurrent)
        return h, h


class LSTM:
    """i, f, o = sigmoid(x W + b + h U), g = tanh(x W + b + h U)
    c' = f * c + i * g
    h' = o * tanh(c')

    The state is h, c.
    """

    def __init__(self, kernel: Array, recurrent: Array, bias: Array):
        # Keras has the gates in the order i, f, g, o; here g is the last, behind all sigmoids.
        self.kernel, self.recurrent, self.bias = map(_gates_first, (kernel, recurrent, bias))
        self.units = len(recurrent)
        self.state_size = 2 * self.units

    def project(self, x: Array) -> Array:
        return x @ self.kernel + self.bias

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        n = self.units
        z = projected + state[:, :n] @ self.recurrent
        gates, g = _sigmoid(z[:, : 3 * n]), np.tanh(z[:, 3 * n :])
        after = np.empty_like(state)
        h, c = after[:, :n], after[:, n:]
        c[:] = gates[:, n : 2 * n] * state[:, n:] + gates[:, :n] * g
        h[:] = gates[:, 2 * n :] * np.tanh(c)
        return h, after


def _gates_first(weight: Array) -> Array:
    """Columns of i, f, g, o -> i, f, o, g."""
    i, f, g, o = np.split(weight, 4, axis=-1)
    return np.concatenate([i, f, o, g], axis=-1)


class GRU:
    """z, r = sigmoid(x W + b + h U + b')
    n = tanh(x W + b + r * (h U + b'))
    h' = z * h + (1 - z) * n

    The gates lie in the order z, r, n; ``biases`` are b and b'.
    """

    def __init__(self, kernel: Array, recurrent: Array, biases: Array):
        self.kernel, self.recurrent = kernel, recurrent
        self.bias, self.recurrent_bias = biases
        self.state_size = self.units = len(recurrent)

    def project(self, x: Array) -> Array:
        return x @ self.kernel + self.bias

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        both = 2 * self.units  # columns of z and r
        u = state @ self.recurrent + self.recurrent_bias
        zr = _sigmoid(projected[:, :both] + u[:, :both])
        z, r = zr[:, : self.units], zr[:, self.units :]
        n = np.tanh(projected[:, both:] + r * u[:, both:])
        h = n + z * (state - n)
        return h, h


class Clockwork:
    """h_i' = tanh(x W_i + b_i + sum over j >= i of h_j U_ji) where t mod T_i = 0, else h_i.

    The state is h and the clock, t modulo the least common multiple of the periods.
    """

    def __init__(self, periods: Sequence[int], kernel: Array, bias: Array, *blocks: Array):
        self.kernel, self.bias = kernel, bias
        self.units, self.cycle = len(bias), math.lcm(*periods)
        self.state_size = self.units + 1
        width = self.units // len(periods)
        self.periods = np.repeat(periods, width)
        # One matrix, zero where a faster module would reach a slower one.
        self.recurrent = np.zeros((self.units, self.units), np.float32)
        for i, block in enumerate(blocks):
            self.recurrent[i * width :, i * width : (i + 1) * width] = block

    def project(self, x: Array) -> Array:
        return x @ self.kernel + self.bias

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        h, clock = state[:, : self.units], state[:, self.units :]
        new = np.tanh(projected + h @ self.recurrent)
        h = np.where(clock % self.periods == 0, new, h)
        return h, np.concatenate([h, (clock + 1) % self.cycle], axis=1)


class DepthGated:
    """i, f, d = sigmoid(.. + w * c), the depth gate d also of w_ld * l
    c' = f * c + i * tanh(..) + d * l
    o = sigmoid(.. + w_co * c')
    h' = o * tanh(c')

    l is the memory cell of the layer below at the same step: projected in the bottom layer, the
    last columns of the input elsewhere. The gates lie in the order i, f, g, o, d, and l; the state
    is h, c.
    """

    def __init__(
        self, bottom: bool, kernel: Array, recurrent: Array, bias: Array, peepholes: Array
    ):
        self.bottom, self.kernel, self.recurrent, self.bias = bottom, kernel, recurrent, bias
        self.peepholes, self.units = peepholes, len(recurrent)
        self.state_size = 2 * self.units

    def project(self, x: Array) -> Array:
        if self.bottom:
            return x @ self.kernel + self.bias
        inputs = len(self.kernel)
        return np.concatenate([x[:, :inputs] @ self.kernel + self.bias, x[:, inputs:]], axis=1)

    def step(self, projected: Array, state: Array) -> tuple[Array, Array]:
        h, c = state[:, : self.units], state[:, self.units :]
        w_ci, w_cf, w_co, w_cd, w_ld = self.peepholes
        i, f, g, o, d, lower = np.split(projected, 6, axis=1)
        u_i, u_f, u_g, u_o = np.split(h @ self.recurrent, 4, axis=1)
        i = _sigmoid(i + u_i + w_ci * c)
        f = _sigmoid(f + u_f + w_cf * c)
        d = _sigmoid(d + w_cd * c + w_ld * lower)
        c = f * c + i * np.tanh(g + u_g) + d * lower
        h = _sigmoid(o + u_o + w_co * c) * np.tanh(c)
        return h, np.concatenate([h, c], axis=1)


def weights_of(model: ModelSpec) -> int:
    """How many arrays a layer's weights are."""
    counts = {"clockwork": 2 + len(model.periods), "depth_gated": 4}
    return counts.get(model.cell, 3)


def make(model: ModelSpec, layer: int, weights: Sequence[Array]) -> Cell:
    """A layer of this description, on its weights in Keras's order."""
    if model.cell == "clockwork":
        return Clockwork(model.periods, *weights)
    if model.cell == "depth_gated":
        return DepthGated(layer == 0, *weights)
    plain: dict[str, type[SimpleRNN] | type[LSTM] | type[GRU]]
    plain = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
    return plain[model.cell](*weights)


def _sigmoid(x: Array) -> Array:
    # Of tanh, which overflows for no x.
    return 0.5 * np.tanh(0.5 * x) + 0.5
