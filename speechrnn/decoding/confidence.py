"""How likely a word is right, from the posteriors of its symbols. NumPy only.

A network that is trained to the end is surer than it is right, and a word is right only if all its
symbols are. The posterior of the weakest is mapped to how often that was right on the development
set: Platt's logistic map (1999) of the log odds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.errors import ModelError

SUREST = 1e-4  # what is nearer to 0 or 1 counts as that


def log_odds(probabilities: Sequence[float] | np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each, bounded by those of ``SUREST``."""
    bounded = np.clip(np.asarray(probabilities, np.float64), SUREST, 1 - SUREST)
    return np.log(bounded) - np.log1p(-bounded)


@dataclass(frozen=True)
class Calibration:
    """Smallest posterior of a word's symbols -> the probability that the word is right.

    1 / (1 + exp(-(offset + slope * log odds))); it never falls. Travels in a model's card. The
    figures after ``slope`` are those of the fit: words, of them the right ones, and the expected
    calibration error without the map and with it, of speakers that the map was not fitted on: None
    where there was one only.
    """

    offset: float
    slope: float
    words: int = 0
    right: int = 0
    ece_before: float = 0.0
    ece: float | None = None

    def __post_init__(self) -> None:
        if not (self.slope >= 0 and abs(self.offset) < 100 and self.slope < 100):
            raise ValueError(f"{self}: the slope must not be negative, nor either beyond 100")

    def __call__(self, weakest: Sequence[float] | np.ndarray) -> list[float]:
        """The smallest posterior of each word -> its confidence, in (0, 1)."""
        logits = self.offset + self.slope * log_odds(weakest)
        return (1 / (1 + np.exp(-np.clip(logits, -50, 50)))).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Calibration:
        """Raises ModelError where a field is missing, unknown or out of range."""
        try:
            return Calibration(**data)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the model's calibration is not one this version reads ({error!r}); export it "
                "again with this version"
            ) from error
