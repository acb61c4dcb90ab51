"""Steps whose loss or gradient is not finite: each is told, and too many in a row end training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from speechrnn.errors import TrainingDiverged

IN_A_ROW = 5  # steps without a finite loss after which training gives up


class NonFiniteSteps:
    """Those since the last finite step, however many epochs that is. ``say`` tells people."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._count = say, 0

    def over(self) -> None:
        """A step was finite."""
        self._count = 0

    def add(self, step: int, names: Sequence[str]) -> None:
        """One more, with what was in it.

        Raises:
            TrainingDiverged: it is the last that is put up with.
        """
        self._count += 1
        told = ", ".join(names)
        self._say(
            f"step {step}: loss or gradient not finite; the weights were left as they were. "
            f"In it: {told}"
        )
        if self._count == IN_A_ROW:
            raise TrainingDiverged(
                f"{IN_A_ROW} steps in a row had a loss or gradient that is not finite, the last at "
                f"step {step} with {told}. Lower training.learning_rate, or look at these by hand."
            )
