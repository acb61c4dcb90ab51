"""The loop, exact checkpoints, schedules, and what is shown while training runs."""

from speechrnn.training.loop import train

__all__ = ["train"]
