"""What is shown while training runs: a progress bar, a line an epoch, TensorBoard logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from speechrnn.evaluation.error_rates import ErrorRates
from speechrnn.files import write_atomically

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Validation:
    """How the model did on the dev split after an epoch; ``wer`` and ``cer`` are fractions."""

    epoch: int
    step: int
    train_loss: float  # mean over the epoch's utterances since the last validation, nats
    dev_loss: float
    wer: float
    cer: float
    learning_rate: float
    audio_seconds_per_second: float  # of training, this epoch
    training_seconds: float  # so far, stops left out


def history(output: Path) -> list[dict[str, Any]]:
    """The validations of a run so far, the oldest first; a ``Validation``'s fields each."""
    path = output / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


class Display:
    """Progress on stderr, logs under the run directory."""

    def __init__(self, output: Path, epochs: int, pairs: int, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)
        self._pairs = pairs
        self._output = output
        self._writer = tf.summary.create_file_writer(str(output / "events"))
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.2f}  {task.fields[rate]:.0f} s audio/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task("train", total=epochs, epoch=0, loss=0.0, rate=0.0)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self._writer.close()

    def rewind(self, epoch: int) -> None:
        """Forget validations from ``epoch`` on: training goes on before them."""
        self._write_history([v for v in history(self._output) if v["epoch"] < epoch])

    def _write_history(self, validations: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(v) + "\n" for v in validations)
        write_atomically(self._output / HISTORY, lines.encode())

    def say(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False)

    def step(
        self,
        step: int,
        progress: float,
        loss: float,
        learning_rate: float,
        norms: dict[str, float],
        rate: float,
    ) -> None:
        """``progress`` in epochs; ``norms``: the gradient's norm overall and by layer."""
        self._progress.update(
            self._task, completed=progress, epoch=int(progress) + 1, loss=loss, rate=rate
        )
        with self._writer.as_default(step=step):
            tf.summary.scalar("train/loss", loss)
            tf.summary.scalar("train/learning_rate", learning_rate)
            for name, norm in norms.items():
                tf.summary.scalar(f"gradient_norm/{name}", norm)

    def validation(
        self, v: Validation, rates: ErrorRates, pairs: Sequence[tuple[str, str]]
    ) -> None:
        with self._writer.as_default(step=v.step):
            for name in ("dev_loss", "wer", "cer"):
                tf.summary.scalar(f"dev/{name}", getattr(v, name))
        self._write_history([*history(self._output), asdict(v)])
        low, high = rates.wer_ci95
        self.say(
            f"epoch {v.epoch + 1:3d}  train loss {v.train_loss:7.2f}  dev loss {v.dev_loss:7.2f}  "
            f"WER {v.wer:6.1%} ({low:.1%} to {high:.1%})  CER {v.cer:6.1%}  "
            f"{v.audio_seconds_per_second:4.0f} s audio/s  {v.training_seconds:5.0f} s"
        )
        table = Table.grid(padding=(0, 1))
        for reference, hypothesis in pairs[: self._pairs]:
            table.add_row("  reference ", reference)
            table.add_row("  hypothesis", hypothesis or "(nothing)")
        self.console.print(table, markup=False, highlight=False)
