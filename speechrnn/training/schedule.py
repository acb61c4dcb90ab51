"""The learning rate, a pure function of how much of the training is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechrnn.recipe import TrainingSection


def learning_rate(progress: float, section: TrainingSection) -> float:
    """``progress`` 0 to 1 -> a linear rise to the peak, then half a cosine to the final rate."""
    if progress < section.warmup_fraction:
        return section.learning_rate * progress / section.warmup_fraction
    decayed = (progress - section.warmup_fraction) / max(1e-9, 1 - section.warmup_fraction)
    weight = 0.5 * (1 + math.cos(math.pi * min(1.0, decayed)))
    return section.final_learning_rate + weight * (
        section.learning_rate - section.final_learning_rate
    )
