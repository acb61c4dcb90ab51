"""Clockwork RNN (Koutnik, Greff, Gomez, Schmidhuber 2014, arXiv 1402.3511)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn.layers import scan
from speechrnn.layers.rnn import CellLayer, RecurrentCell, Run
from speechrnn.layers.simple_rnn import SimpleRNNEquations


@keras.saving.register_keras_serializable("speechrnn")
class ClockworkCell(RecurrentCell):
    """The cell of ``ClockworkRNN``: its weights, and one frame of its equations.

    One frame at a time there is nothing to skip: every module is computed, and the inactive
    ones are thrown away. The state is the output and the clock, (batch, 1): frames since the
    first, modulo the least common multiple of the periods.
    """

    def __init__(self, units: int, periods: Sequence[int] = (1, 2, 4, 8), **kwargs: Any):
        super().__init__(units, **kwargs)
        self.periods = [int(period) for period in periods]
        if not self.periods or min(self.periods) < 1 or sorted(self.periods) != self.periods:
            raise ValueError(f"periods are {periods}; they must be positive and rising")
        if units % len(self.periods):
            raise ValueError(
                f"{units} units do not divide into {len(self.periods)} modules; "
                f"take {units - units % len(self.periods) + len(self.periods)}"
            )
        self.width = units // len(self.periods)  # of each module
        self.cycle = math.lcm(*self.periods)

    @property
    def state_size(self) -> list[int]:
        return [self.units, 1]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        exact = {"bfloat16": 2**8, "float16": 2**11}.get(self.compute_dtype, 2**24)
        if self.cycle > exact:
            raise ValueError(
                f"periods {self.periods} repeat after {self.cycle} frames; a clock in "
                f"{self.compute_dtype} counts to {exact}. Use float32 or periods that divide "
                "each other."
            )
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        # Of each module from itself and all slower ones. No weight from a faster one exists.
        self.recurrent_kernels = [
            self.add_weight(
                shape=(self.units - start, self.width),
                initializer=_recurrent_initializer,
                name=f"recurrent_kernel_{i}",
            )
            for i, start in enumerate(range(0, self.units, self.width))
        ]

    def call(self, inputs: tf.Tensor, states: scan.Tensors, training: bool = False) -> tuple:
        h, clock = states
        x = tf.matmul(inputs, self.kernel) + self.bias
        modules = []
        for i, recurrent in enumerate(self.recurrent_kernels):
            start, stop = i * self.width, (i + 1) * self.width
            new = tf.tanh(x[:, start:stop] + tf.matmul(h[:, start:], recurrent))
            active = tf.math.floormod(clock, tf.cast(self.periods[i], clock.dtype)) == 0
            modules.append(tf.where(active, new, h[:, start:stop]))
        output = tf.concat(modules, axis=-1)
        return output, [output, tf.math.floormod(clock + 1, tf.cast(self.cycle, clock.dtype))]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "periods": self.periods}


def _recurrent_initializer(shape: tuple[int, int], dtype: Any = None) -> tf.Tensor:
    """A module's own part orthogonal, as in a SimpleRNN, so that it keeps what it holds; the
    part of slower modules zero, so that modules begin as networks of their own.

    What a slow module holds is old, and to a fast one noise as long as neither has learnt: with
    random weights there, AN4's dev WER was still 99 % after 33 epochs.
    """
    slower, width = shape[0] - shape[1], shape[1]
    own = keras.initializers.Orthogonal()((width, width), dtype)
    return tf.concat([own, tf.zeros((slower, width), own.dtype)], axis=0)


@keras.saving.register_keras_serializable("speechrnn")
class ClockworkRNN(CellLayer):
    """A plain recurrent network in modules that tick at different rates.

    Module i has a period T_i; the modules are of equal size, the fastest first. Where t mod
    T_i = 0, t counting frames from each row's first (in the backward direction its last),

        h_i' = tanh(x W_i + b_i + sum over j >= i of h_j U_ji)

    and elsewhere h_i stays as it is. Only a module itself and slower ones, j >= i, reach it. So
    the slowest can be computed for the whole utterance by itself, then the next one with the
    slowest as a further input, and so on: each is a plain recurrence over its own active frames,
    and the others are skipped.

    With n units in m modules and p inputs a frame costs, in multiply-adds, on average

        sum over i of (n / m) (p + n (m - i) / m) / T_i,   i = 0 .. m - 1

    where a SimpleRNN costs n (p + n): for periods 1, 2, 4, 8 and p = n the former is 0.43 of the
    latter. The loops make sum of 1 / T_i times as many turns, so that small layers gain less.

    Args:
        units: of the output; a multiple of the number of modules.
        periods: of the modules, rising; their number is that of the modules.

    The state is the output and the clock, so that chunks give what the whole gives.

    Weights: kernel (inputs, units), bias (units,), and for each module a recurrent kernel
    (units of itself and of all slower modules, units of the module).
    """

    cell_class = ClockworkCell

    def recurrence(
        self, weights: list[scan.Weight], x: tf.Tensor, initial_state: scan.Tensors, run: Run
    ) -> list[tf.Tensor]:
        """(steps, batch, inputs) -> the output and the clock after every step."""
        h0, clock = initial_state
        kernel, bias, *recurrent = weights
        width, periods = self.cell.width, self.cell.periods
        count = len(periods)
        start = tf.cast(clock[:, 0], tf.int32)
        ticks = [_Ticks(x, start, period) for period in periods]
        modules: list[tf.Tensor] = [None] * count
        outputs: list[tf.Tensor] = [None] * count
        for i in reversed(range(count)):
            own = slice(i * width, (i + 1) * width)
            # What the slower modules held before this one's ticks is known by now: inputs too.
            held = [ticks[j].held_before(modules[j], ticks[i]) for j in range(i + 1, count)]
            weights_in = _stacked(kernel[:, own], recurrent[i][width:])
            equations = SimpleRNNEquations(weights_in, bias[own], recurrent[i][:width])
            initial = h0[:, own]
            (h,) = run(equations, tf.concat([ticks[i].take(x), *held], axis=-1), [initial])
            modules[i] = tf.concat([initial[None], h], axis=0)
            outputs[i] = ticks[i].held(modules[i])
        cycle = tf.range(1, tf.shape(x)[0] + 1)[:, None] + start
        after = tf.cast(cycle % self.cell.cycle, x.dtype)[:, :, None]
        return [tf.concat(outputs, axis=-1), after]


def _stacked(above: scan.Weight, below: scan.Weight) -> scan.Weight:
    """(m, n) and (k, n) -> (m + k, n), an array if they are arrays."""
    return (np.concatenate if isinstance(above, np.ndarray) else tf.concat)([above, below], 0)


class _Ticks:
    """When one module is active: the steps of its updates in every row.

    Rows may stand at different times of the clock, so a row's first update comes at its own
    step; from there on it is every ``period`` steps.
    """

    def __init__(self, x: tf.Tensor, start: tf.Tensor, period: int):
        self.steps, self.batch, self.period = tf.shape(x)[0], tf.shape(x)[1], period
        self.first = -start % period
        count = (self.steps + period - 1) // period
        # Of rows that begin late the last one may lie behind the end: nothing reads it.
        self.at = self.first + period * tf.range(count)[:, None]

    def take(self, x: tf.Tensor) -> tf.Tensor:
        """(steps, batch, width) -> the active ones, (ticks, batch, width)."""
        return x if self.period == 1 else _pick(x, tf.minimum(self.at, self.steps - 1))

    def held(self, module: tf.Tensor) -> tf.Tensor:
        """(1 + ticks, batch, width), the initial state first -> after every step."""
        if self.period == 1:
            return module[1:]
        return self._held_after(module, tf.range(self.steps)[:, None])

    def held_before(self, module: tf.Tensor, other: _Ticks) -> tf.Tensor:
        """(1 + ticks, batch, width) -> before every tick of another module."""
        return self._held_after(module, other.at - 1)

    def _held_after(self, module: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        updates = (step - self.first + self.period) // self.period
        return _pick(module, tf.minimum(updates, tf.shape(module)[0] - 1))


def _pick(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """x (n, batch, width), index (m, batch) -> x[index[k, row], row], (m, batch, width)."""
    shape = tf.shape(x)
    flat = tf.reshape(x, [-1, x.shape[2]])
    return tf.gather(flat, index * shape[1] + tf.range(shape[1]))
