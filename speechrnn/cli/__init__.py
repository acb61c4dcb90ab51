"""The speechrnn command: ``app`` is what all subcommands share, every other module has a few."""

# The order of imports is that of the commands in `speechrnn --help`.
from speechrnn.cli import (  # noqa: I001
    training,
    measuring,
    compare,
    transcribing,
    align,
    language,
    tuning,
    doctor,
    corpora,
)
from speechrnn.cli.app import app, main

__all__ = [
    "align",
    "app",
    "compare",
    "corpora",
    "doctor",
    "language",
    "main",
    "measuring",
    "training",
    "transcribing",
    "tuning",
]
