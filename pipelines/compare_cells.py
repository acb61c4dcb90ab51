"""The recurrent cells side by side: equal parameters, equal training time, one table.

    python pipelines/compare_cells.py                          AN4 (64 MB) to ./data, an hour
    python pipelines/compare_cells.py --cells lstm,gru --minutes 5
    python pipelines/compare_cells.py model.layers=2           any value of configs/an4.yaml

Each cell gets the units that bring the network to the LSTM recipe's number of parameters, and
as many epochs as its own measured speed allows in the time. The same command again goes on
where it was stopped: complete rows are kept, a row under way continues from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import an4
import network_size
import training_speed
import yaml
from rich.console import Console
from rich.table import Table

from speechrnn import recipe as recipes
from speechrnn.data.dataset import recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import RecipeError, SpeechRNNError, UsageError
from speechrnn.files import write_atomically
from speechrnn.runtime.operations import multiply_adds
from speechrnn.training import run, threads, train
from speechrnn.training.display import history

CELLS = ("simple_rnn", "lstm", "gru", "clockwork", "depth_gated")
# What one cell needs otherwise than the recipe has it. A plain tanh recurrence is unstable at the
# gated cells' learning rate of 2e-3: no gate limits what a state makes of the one before it.
CELL_OVERRIDES: dict[str, list[str]] = {
    "simple_rnn": ["training.learning_rate=0.001"],
}

CALIBRATION_SECONDS = 50.0  # about three epochs of AN4
FILL = 0.98  # of the budget; the rest is for checkpoints and for what calibration missed
HARD_LIMIT = 1.05  # of the budget

console = Console(stderr=True, soft_wrap=True)


# One row, in a process of its own


@dataclass(frozen=True)
class Comparison:
    """What all rows have in common."""

    recipe_file: Path
    output: Path
    minutes: float  # of training and validation, for each cell
    overrides: tuple[str, ...]

    def folder(self, cell: str) -> Path:
        return self.output / cell

    def row_overrides(self, cell: str) -> list[str]:
        return [
            f"name={self.output.name}-{cell}",
            f"output={self.folder(cell) / 'run'}",
            f"data.prepared={self.output / 'prepared'}",
            f"model.cell={cell}",
            *CELL_OVERRIDES.get(cell, []),
            *self.overrides,
        ]

    def settings(self, cell: str) -> dict[str, Any]:
        """What a row that is taken up again must have been started with."""
        return {
            "minutes": self.minutes,
            "overrides": [*CELL_OVERRIDES.get(cell, []), *self.overrides],
            "recipe": yaml.safe_load(self.recipe_file.read_text(encoding="utf-8")),
        }

    def read(self, cell: str, name: str) -> dict[str, Any] | None:
        """``plan.json`` or ``row.json`` of a row, None where there is none.

        Raises:
            RecipeError: it is of other settings.
        """
        path = self.folder(cell) / name
        if not path.exists():
            return None
        found = json.loads(path.read_bytes())
        settings = found.pop("settings")
        differing = [key for key, value in self.settings(cell).items() if settings[key] != value]
        if differing:
            raise RecipeError(
                f"{path} was made with other {' and '.join(differing)}; name another --output, or "
                f"delete {path.parent}"
            )
        return found

    def write(self, cell: str, name: str, content: dict[str, Any]) -> None:
        text = json.dumps({**content, "settings": self.settings(cell)}, indent=1)
        write_atomically(self.folder(cell) / name, f"{text}\n".encode())


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold a row: two processes would overwrite each other's checkpoints. Ends with the process.

    Raises:
        UsageError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is training {folder}; wait for it, or end it first"
            ) from error
        yield


def plan_row(comparison: Comparison, cell: str) -> dict[str, Any]:
    """The units and epochs of a row; kept in ``plan.json``, so that a stop changes neither."""
    plan = comparison.read(cell, "plan.json")
    if plan is not None:
        return plan
    overrides = comparison.row_overrides(cell)
    recipe = recipes.load(comparison.recipe_file, overrides)
    spec = recogniser_spec(recipe, prepare(recipe))
    lstm = dataclasses.replace(spec, model=dataclasses.replace(spec.model, cell="lstm"))
    units, parameters = network_size.units_for(spec, network_size.count_parameters(lstm))
    console.print(f"{cell}: {units} units, {parameters:,} parameters; measuring its speed")
    sized = recipes.load(comparison.recipe_file, [*overrides, f"model.units={units}"])
    budget = 60 * comparison.minutes
    speed = training_speed.measure(sized, min(CALIBRATION_SECONDS, budget))
    epochs = speed.epochs_within(FILL * budget)
    limit = max(0.9 * budget, HARD_LIMIT * budget - speed.first_validation)
    plan = {
        "units": units,
        "parameters": parameters,
        "epochs": epochs,
        "validate_every_epochs": training_speed.validate_every(epochs),
        "max_minutes": limit / 60,  # a validation follows
        "expected_seconds": speed.total(epochs),
        "speed": dataclasses.asdict(speed),
    }
    comparison.write(cell, "plan.json", plan)
    return plan


def train_row(comparison: Comparison, cell: str) -> None:
    """Train one cell, from its checkpoint where there is one, and write ``row.json``."""
    plan = plan_row(comparison, cell)
    planned = [
        f"model.units={plan['units']}",
        *(f"training.{k}={plan[k]}" for k in ("epochs", "validate_every_epochs", "max_minutes")),
    ]
    recipe = recipes.load(comparison.recipe_file, [*comparison.row_overrides(cell), *planned])
    console.print(
        f"{cell}: {plan['epochs']} epochs, expected to take {plan['expected_seconds']:.0f} s of "
        f"{60 * comparison.minutes:.0f} s"
    )
    train(recipe)
    validations = history(recipe.output)
    best, last = run.load(recipe.output), validations[-1]
    speeds = [v["audio_seconds_per_second"] for v in validations]
    comparison.write(
        cell,
        "row.json",
        {
            "cell": cell,
            "units": plan["units"],
            "parameters": plan["parameters"],
            "multiply_adds_per_second": multiply_adds(best.spec),
            "learning_rate": recipe.training.learning_rate,
            "epochs": last["epoch"] + 1,
            "epochs_planned": plan["epochs"],
            "training_seconds": last["training_seconds"],
            "out_of_time": last["training_seconds"] >= 60 * plan["max_minutes"],
            "audio_seconds_per_second": statistics.median(speeds),
            "best_epoch": best.card["epoch"],
            **best.card["dev"],
            "last_wer": last["wer"],
            "last_cer": last["cer"],
        },
    )


# All rows


def train_rows(comparison: Comparison, cells: Sequence[str], command: list[str]) -> list[str]:
    """Run ``command --row CELL`` for every cell without a row; returns the cells that failed."""
    missing = [cell for cell in cells if comparison.read(cell, "row.json") is None]
    for cell in missing:
        comparison.read(cell, "plan.json")  # of other settings: better known now than in an hour
    failed = []
    for cell in cells:
        if cell not in missing:
            console.print(f"{cell}: complete")
            continue
        console.rule(cell)
        comparison.folder(cell).mkdir(parents=True, exist_ok=True)
        log = comparison.folder(cell) / "log.txt"
        if _run_logged([*command, "--row", cell], log) != 0:
            console.print(f"{cell}: stopped by an error; see {log}")
            failed.append(cell)
    return failed


def _run_logged(command: list[str], log: Path) -> int:
    """Run a command whose output goes to stderr and to the end of ``log``; its exit code."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}  # errors only
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        try:
            for line in process.stdout or []:
                file.write(line)
                file.flush()
                sys.stderr.write(line)
        except BaseException:  # a row must not train on beside the one that takes it up again
            process.terminate()
            raise
    return process.returncode


COLUMNS = (
    "cell", "units", "parameters", "10⁶ multiply-adds a s", "minutes", "epochs",
    "s of audio a s", "dev WER, best (95 %)", "CER", "WER, last",
)  # fmt: skip
TABLE_WIDTH = 145  # characters, where the output is a file


def cells_of_table(row: dict[str, Any]) -> list[str]:
    """A row as it is read, in the order of ``COLUMNS``."""
    low, high = row["wer_ci95"]
    return [
        row["cell"],
        str(row["units"]),
        f"{row['parameters']:,}",
        f"{row['multiply_adds_per_second'] / 1e6:.0f}",
        f"{row['training_seconds'] / 60:.1f}",
        f"{row['epochs']} of {row['epochs_planned']}",
        f"{row['audio_seconds_per_second']:.0f}",
        f"{row['wer']:.1%} ({low:.1%} to {high:.1%})",
        f"{row['cer']:.1%}",
        f"{row['last_wer']:.1%}",
    ]


def notes(comparison: Comparison, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{comparison.minutes:g} minutes of training and validation for each cell, one after the "
        "other on the same machine; measuring its speed beforehand is not counted.",
        f"The best of about {training_speed.VALIDATIONS} validations is chosen on the dev split it "
        "is scored on, which flatters it a little; CER is of that epoch. The last is not chosen.",
        "The interval is over speakers and says nothing of another training run.",
        "Multiply-adds are those of products and convolutions in inference, for a second of audio.",
        "Seconds of audio a second: training steps, the median of the epochs validated.",
    ]
    overridden = [
        f"{row['cell']}: {', '.join(CELL_OVERRIDES[row['cell']])}"
        for row in rows
        if row["cell"] in CELL_OVERRIDES
    ]
    if overridden:
        lines.append(f"Otherwise than the recipe has it: {'; '.join(overridden)}.")
    cut = [row["cell"] for row in rows if row["out_of_time"]]
    if cut:
        lines.append(f"Out of time before the learning rate's end: {', '.join(cut)}.")
    return lines


def write_table(comparison: Comparison, rows: list[dict[str, Any]]) -> None:
    """The table on stdout, as ``table.md`` and as ``table.json``."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells_of_table(row))
    Console(width=max(TABLE_WIDTH, Console().width)).print(table)
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *map(cells_of_table, rows)]
    markdown = ["| " + " | ".join(line) + " |" for line in lines]
    text = "\n".join([*markdown, "", *(f"- {note}" for note in notes(comparison, rows)), ""])
    write_atomically(comparison.output / "table.md", text.encode())
    content = json.dumps({"minutes": comparison.minutes, "rows": rows}, indent=1)
    write_atomically(comparison.output / "table.json", f"{content}\n".encode())


def _cells(text: str) -> list[str]:
    """What --cells is given: names with commas between them."""
    cells = text.split(",")
    if unknown := set(cells) - set(CELLS):
        raise argparse.ArgumentTypeError(f"{unknown} not among {','.join(CELLS)}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=_cells, default=CELLS, help="default: " + ",".join(CELLS))
    parser.add_argument("--minutes", type=float, default=12, help="for each cell")
    parser.add_argument("--output", type=Path, default=Path("runs/compare_cells"))
    parser.add_argument("--recipe", type=Path, default=an4.CONFIG, help="default: AN4's")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--row", choices=CELLS, help="train this cell in this process; no table")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    source = f"data.manifest={an4.find_manifest(arguments.data)}"
    comparison = Comparison(
        arguments.recipe, arguments.output, arguments.minutes, (source, *arguments.overrides)
    )
    if arguments.row:
        threads.configure(recipes.load(arguments.recipe, comparison.overrides).training.threads)
        with only_process(comparison.folder(arguments.row)):
            train_row(comparison, arguments.row)
        return
    # Ended from outside, the row under way is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = train_rows(comparison, arguments.cells, [sys.executable, *sys.argv])
    rows = [comparison.read(cell, "row.json") for cell in arguments.cells]
    write_table(comparison, [row for row in rows if row is not None])
    if failed:
        raise SpeechRNNError(f"no row for {', '.join(failed)}")


if __name__ == "__main__":  # preparation starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
