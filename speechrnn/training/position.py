"""Where a training stands: what a checkpoint holds beside its arrays."""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = 2  # of a checkpoint's arrays and state


@dataclass
class Position:
    """Where training stands, apart from the arrays; saved with every checkpoint."""

    epoch: int = 0
    batch: int = 0  # within the epoch
    step: int = 0
    seconds: float = 0.0  # of training so far, stops left out
    best: list[float] | None = None  # the rank of the model kept
    validations_without_gain: int = 0
    loss_sum: float = 0.0  # of the steps since the last validation
    losses: int = 0  # so many
