"""What is trained: the rows of the table, and the trainings that they are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CELLS = ("simple_rnn", "lstm", "gru", "clockwork", "depth_gated")
TWO_WAY, ONE_WAY = "two", "one"
DIRECTIONS = (TWO_WAY, ONE_WAY)
SEEDS = (1, 2, 3)
TRIAL, TRAINING = "trial", "training"
KEYS = {"kind", "cell", "directions", "seed", "settings"}  # of a line of the results, at least


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    cell: str
    directions: str


@dataclass(frozen=True)
class Job:
    """One training: a seed of a row, or a trial of a learning rate."""

    kind: str
    cell: str
    directions: str
    seed: int
    learning_rate: float

    @property
    def row(self) -> Row:
        return Row(self.cell, self.directions)

    @property
    def name(self) -> str:
        parts = (self.kind, self.cell, self.directions, str(self.seed), f"{self.learning_rate:g}")
        return "-".join(parts)

    def is_told_by(self, line: dict[str, Any]) -> bool:
        """Whether a line of the results is of this training."""
        return all(line.get(key) == value for key, value in asdict(self).items())
