"""What makes a cell a Keras layer: its weights, its directions, its masks and its states."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from speechrnn.layers import scan
from speechrnn.layers.order import StepOrder, lengths_of

Run = Callable[[scan.Equations, tf.Tensor, scan.Tensors], list[tf.Tensor]]


class RecurrentCell(keras.layers.Layer):
    """A cell of our own: ``keras.layers.RNN(cell)`` runs it as it stands, a ``CellLayer`` fast.

    A subclass creates its weights in ``build`` and gives ``equations``.

    Args:
        units: of the output, positive.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"{type(self).__name__} has {units} units; it needs at least 1")
        self.units = units

    def equations(self, weights: list[scan.Weight]) -> scan.Equations:
        """The equations on weights in the order of ``self.weights``."""
        raise NotImplementedError

    @property
    def state_size(self) -> list[int]:
        return [self.units]

    @property
    def output_size(self) -> int:
        return self.units

    def call(self, inputs: tf.Tensor, states: scan.Tensors, training: bool = False) -> tuple:
        """One frame, (batch, inputs) -> the output (batch, units), the new states."""
        equations = self.equations([tf.convert_to_tensor(w) for w in self.weights])
        u = tf.matmul(states[0], equations.recurrent)
        state, _ = equations.step(equations.inputs(inputs), u, states, equations.vectors)
        return state[0], list(state)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class FastRecurrence(keras.layers.RNN):
    """Mixed into a Keras recurrent layer: replaces its loop where the fast one covers the call.

    A subclass gives ``equations``, or ``recurrence`` where its cell takes more than one scan.

    Args:
        product_dtype: of the operands of matrix products, ``float32`` or ``bfloat16``; all else
            stays in float32. The other arguments are Keras's. Under Keras's mixed_bfloat16
            policy products are in bfloat16 too; states stay in float32 within a call.
    """

    shown = 1  # how many of the state's tensors, side by side, are the layer's output

    def __init__(self, *args: Any, product_dtype: str = "float32", **kwargs: Any):
        if product_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"product_dtype is {product_dtype!r}; use float32 or bfloat16")
        super().__init__(*args, **kwargs)
        self.product_dtype = product_dtype

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "product_dtype": self.product_dtype}

    def equations(self, weights: list[scan.Weight]) -> scan.Equations:
        """The cell's equations on weights in the order of ``self.weights``."""
        return self.cell.equations(weights)

    def recurrence(
        self, weights: list[scan.Weight], x: tf.Tensor, initial_state: scan.Tensors, run: Run
    ) -> list[tf.Tensor]:
        """(steps, batch, inputs) -> the states after every step, the output first.

        In step order. ``run`` is what computes equations: ``scan.run`` in training, a loop of
        device operations in an export; ``weights`` are tensors there, arrays here.
        """
        return run(self.equations(weights), x, initial_state)

    def inner_loop(
        self,
        sequences: tf.Tensor,
        initial_state: scan.Tensors,
        mask: tf.Tensor | None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        if self.deferred():
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)
        # A state that nobody asked for needs no gradient either.
        wanted = len(initial_state) if self.return_state or self.stateful else self.shown
        order = StepOrder(sequences, None if mask is None else lengths_of(mask), self.go_backwards)
        states = self.all_states(order.enter(sequences), initial_state, wanted)
        initial_state = [tf.cast(state, self.working_dtype) for state in initial_state]
        final = [order.last(y, h) for y, h in zip(states, initial_state, strict=False)]
        output = tf.concat(states[: self.shown], axis=-1) if self.shown > 1 else states[0]
        output = order.leave(output, repeat=not self.zero_output_for_mask)
        return output[:, -1], output, final

    def all_states(self, x: tf.Tensor, initial_state: scan.Tensors, wanted: int) -> list[tf.Tensor]:
        """(steps, batch, inputs) in step order -> the first ``wanted`` of the state's tensors after
        every step, the output first, each (steps, batch, n)."""
        dtype = "bfloat16" if self.compute_dtype == "bfloat16" else self.product_dtype
        return self.recurrence(
            [tf.cast(w, self.working_dtype) for w in self.cell.weights],
            tf.cast(x, self.working_dtype),
            [tf.cast(state, self.working_dtype) for state in initial_state],
            lambda equations, x, state: scan.run(
                equations, x, state, dtype, min(wanted, equations.states)
            ),
        )[:wanted]

    @property
    def working_dtype(self) -> str:
        """Of states and of all but matrix products."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def has_equations(self) -> bool:
        """Whether ``equations`` say all that the layer does, as they must for an export."""
        return True

    def deferred(self) -> bool:
        """Whether the loop is left to Keras."""
        return not self.has_equations()


class KerasRecurrence(FastRecurrence):
    """Mixed into Keras's own layers, which it leaves to Keras where the fast loop is not the
    same or not faster: other activations, dropout within the recurrence, cuDNN on a GPU."""

    def has_equations(self) -> bool:
        cell = self.cell
        gates = getattr(cell, "recurrent_activation", None)
        return (
            cell.activation.__name__ == "tanh"
            and (gates is None or gates.__name__ == "sigmoid")
            and cell.use_bias
            and getattr(cell, "reset_after", True)
            and not (cell.dropout or cell.recurrent_dropout)
        )

    def deferred(self) -> bool:
        return not self.has_equations() or bool(tf.config.list_logical_devices("GPU"))


class CellLayer(FastRecurrence):
    """The layer of one kind of ``RecurrentCell``: what ``keras.layers.RNN(cell)`` is, faster.

    A subclass names its ``cell_class``. The arguments are those of the cell, and Keras's.
    """

    cell_class: type[RecurrentCell]

    def __init__(self, units: int, *args: Any, **kwargs: Any):
        own = inspect.signature(self.cell_class.__init__).parameters
        of_cell = {name: kwargs.pop(name) for name in list(kwargs) if name in own}
        if "dtype" in kwargs:
            of_cell["dtype"] = kwargs["dtype"]
        super().__init__(self.cell_class(units, *args, name="cell", **of_cell), **kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        of_cell = config.pop("cell")["config"]
        own = inspect.signature(self.cell_class.__init__).parameters
        return {**config, **{name: of_cell[name] for name in own if name in of_cell}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CellLayer:
        return cls(**config)
