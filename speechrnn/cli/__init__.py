"""The speechrnn command: ``app`` is what all subcommands share, every other module has a few."""

# The order of imports is that of the commands in `speechrnn --help`.
from speechrnn.cli import training, measuring, transcribing, align, corpora  # noqa: I001
from speechrnn.cli.app import app, main

__all__ = ["align", "app", "corpora", "main", "measuring", "training", "transcribing"]
