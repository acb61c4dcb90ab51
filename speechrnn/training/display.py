"""What is shown while training runs: a progress bar, a line an epoch, TensorBoard logs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from speechrnn.errors import ModelError
from speechrnn.files import write_atomically
from speechrnn.recipe import TrainingSection
from speechrnn.training.step import Score

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Validation:
    """How the model did on the dev split after an epoch."""

    epoch: int
    step: int
    train_loss: float  # mean over the epoch's steps since the last validation, nats
    score: Score
    learning_rate: float
    rate: float  # of training, this epoch: units of data per second
    unit: str
    training_seconds: float  # so far, stops left out

    def to_dict(self) -> dict[str, Any]:
        """A line of the history."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": self.train_loss,
            "dev_loss": self.score.loss,
            **self.score.measures,
            "learning_rate": self.learning_rate,
            f"{self.unit}_per_second": self.rate,
            "training_seconds": self.training_seconds,
        }


def history(output: Path) -> list[dict[str, Any]]:
    """The validations of a run so far, the oldest first, as ``Validation.to_dict`` has them.

    Raises:
        ModelError: the file is damaged.
    """
    path = output / HISTORY
    lines = path.read_bytes().splitlines() if path.exists() else []
    try:
        found = [json.loads(line) for line in lines]
        if not all(isinstance(each["epoch"], int) for each in found):
            raise ValueError("an epoch is no number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged ({error!r}); training needs no line of it: move it away, and it is "
            "begun anew"
        ) from error
    return found


class Display:
    """Progress on stderr, logs under the run directory. ``unit`` is the data's, for people.

    Of several workers the chief alone shows and writes.
    """

    def __init__(
        self,
        output: Path,
        section: TrainingSection,
        unit: str,
        quiet: bool = False,
        is_chief: bool = True,
    ):
        self.console = Console(stderr=True, quiet=quiet or not is_chief, soft_wrap=True)
        self._shown, self._unit, epochs = section.show_pairs, unit, section.epochs
        self._output = output
        self._writer: Any = None
        if is_chief:
            self._guarded(self._open)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.2f}  {task.fields[rate]:,.0f} " + f"{unit}/s"),
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
        if self._writer is not None:
            self._guarded(self._writer.close)

    def _open(self) -> None:
        self._writer = tf.summary.create_file_writer(str(self._output / "events"))

    def _log(self, step: int, values: dict[str, float]) -> None:
        def write() -> None:
            with self._writer.as_default(step=step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)

        if self._writer is not None:
            self._guarded(write)

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do it; where the machine refuses, go on without logs: training needs none."""
        try:
            action()
        except tf.errors.OpError as error:
            self._writer = None
            self.say(f"no more logs for TensorBoard in {self._output / 'events'}: {error.message}")

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
        by_layer = {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        self._log(step, {"train/loss": loss, "train/learning_rate": learning_rate, **by_layer})

    def validation(self, v: Validation) -> None:
        measures = {"dev_loss": v.score.loss, **v.score.measures}
        self._log(v.step, {f"dev/{name}": value for name, value in measures.items()})
        self._write_history([*history(self._output), v.to_dict()])
        self.say(
            f"epoch {v.epoch + 1:3d}  train loss {v.train_loss:7.2f}  dev loss {v.score.loss:7.2f}"
            f"  {v.score.line}  {v.rate:4,.0f} {self._unit}/s  {v.training_seconds:5.0f} s"
        )
        table = Table.grid(padding=(0, 1))
        for label, text in itertools.chain(*v.score.examples[: self._shown]):
            table.add_row(f"  {label}", text)
        self.console.print(table, markup=False, highlight=False)
