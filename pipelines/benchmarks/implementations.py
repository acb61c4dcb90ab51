"""The rows of the tables: which implementations of a recurrent stack there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Actions = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Implementation:
    """A row of the tables.

    Args:
        title: for people.
        precision: of the matrix products' operands.
        padding: whether the frames behind each row's end are computed too.
    """

    title: str
    precision: str = "float32"
    padding: bool = True


STACKS = {
    "keras": Implementation("Keras"),
    "keras-sparse-ctc": Implementation("Keras + sparse CTC"),
    "keras-xla": Implementation("Keras, compiled by XLA"),
    "keras-rnn-cell": Implementation("keras.layers.RNN(cell)"),
    "pytorch-dense": Implementation("PyTorch dense"),
    "pytorch-packed": Implementation("PyTorch packed", padding=False),
    "pytorch-dense-bfloat16": Implementation("PyTorch dense", "bfloat16"),
    "pytorch-packed-bfloat16": Implementation("PyTorch packed", "bfloat16", padding=False),
    "ours-float32": Implementation("speechrnn"),
    "ours-bfloat16": Implementation("speechrnn", "bfloat16"),
}


class LeftOut(Exception):
    """This implementation cannot be measured here; the message says why."""


def timed(action: Callable[[], object], seconds: float) -> tuple[float, object]:
    """Mean time of one ``action``, repeated for at least ``seconds``; what the last one gave."""
    count, start = 0, time.perf_counter()
    while True:
        found = action()
        count += 1
        passed = time.perf_counter() - start
        if passed >= seconds:
            return passed / count, found
