"""Which recurrent cell? Each cell in one direction and two, with equal parameters and equal data.

    python pipelines/compare_cells.py                   AN4 (64 MB) to ./data; about two hours
    python pipelines/compare_cells.py --cells lstm,gru --seeds 1
    python pipelines/compare_cells.py --speed           seconds, and not error rates: five minutes
    python pipelines/compare_cells.py --table           from what is in the files: no training

First a learning rate is tried out for each cell, then every row is trained with every seed, as many
at a time as there are cores. Each result is a line of pipelines/results/compare_cells.jsonl, and
only what is missing there is trained: the same command goes on where it was stopped. What is
compared, and how: docs/cells.md, where the table goes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import an4
from cells import table
from cells.rows import CELLS, DIRECTIONS, KEYS, SEEDS, Job, Row
from rich.console import Console
from trainings import jobs, results

from speechrnn.errors import SpeechRNNError
from speechrnn.files import locked

if TYPE_CHECKING:
    from cells.comparison import Comparison

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "pipelines" / "results" / "compare_cells.jsonl"
LOCK = "compare_cells.lock"  # in the output's folder

console = Console(stderr=True, soft_wrap=True)


def train_missing(
    comparison: Comparison, wanted: Sequence[Job], file: Path, at_once: int, command: list[str]
) -> list[str]:
    """Train those of ``wanted`` that the file has no line of; returns the names of what failed.

    Args:
        command: trains what the folder, given as a last word, orders.

    Raises:
        RecipeError: the file holds results of other settings.
    """
    # What needs TensorFlow: a table needs none.
    from cells.training import Order, finished

    settings = comparison.settings
    lines = results.of_settings(file, KEYS, settings)
    missing = [job for job in wanted if not any(job.is_told_by(line) for line in lines)]
    by_folder = {comparison.output / settings / job.name: job for job in missing}
    units = {row: comparison.sized(row).model.units for row in {job.row for job in missing}}
    first_seed = min((job.seed for job in wanted), default=0)
    failed: list[str] = []

    def order(folder: Path) -> None:
        job = by_folder[folder]
        done = len(by_folder) - len(waiting)
        waiting.remove(folder)
        console.print(f"{done + 1} of {len(by_folder)}: {job.name}, {units[job.row]} units")
        recipe = comparison.recipe_of(job, units[job.row], folder)
        Order(job, settings, job.seed == first_seed).write(folder, recipe)

    def take(folder: Path, code: int) -> None:
        job = by_folder[folder]
        line = finished(folder, job, settings)
        if code or line is None:
            console.print(f"{job.name}: ended with {code}; see {folder / jobs.LOG}")
            failed.append(job.name)
            return
        results.append(file, line)
        console.print(f"{job.name}: {_told(line)}")

    # Of a process that ended while nobody was there to take its line.
    for folder, job in list(by_folder.items()):
        if finished(folder, job, settings):
            take(folder, 0)
            del by_folder[folder]
    waiting = set(by_folder)
    jobs.run([(folder, [*command, str(folder)]) for folder in by_folder], at_once, order, take)
    return failed


def _told(line: results.Line) -> str:
    if "wer" in line:
        return f"dev WER {line['wer']:.1%} after {line['training_seconds']:.0f} s"
    return f"dev loss {line['dev_loss']} with a learning rate of {line['learning_rate']:g}"


def train_all(
    comparison: Comparison,
    rows: Sequence[Row],
    seeds: Sequence[int],
    file: Path,
    at_once: int,
    command: list[str],
) -> None:
    """All trials that are missing, then all trainings.

    Raises:
        SpeechRNNError: some failed; the others are in the file.
    """
    comparison.output.mkdir(parents=True, exist_ok=True)
    held = f"another comparison writes into {comparison.output}; wait for it, or end it first"
    with locked(comparison.output / LOCK, held), jobs.ending_by_signal():
        cells = list(dict.fromkeys(row.cell for row in rows))
        failed: list[str] = []
        while not failed:
            lines = results.of_settings(file, KEYS, comparison.settings)
            trials = comparison.trials(cells, lines)
            if all(any(trial.is_told_by(line) for line in lines) for trial in trials):
                break
            failed = train_missing(comparison, trials, file, at_once, command)
        if not failed:
            wanted = comparison.trainings(rows, seeds, lines)
            failed = train_missing(comparison, wanted, file, at_once, command)
    if failed:
        raise SpeechRNNError(
            f"not trained: {', '.join(failed)}. The same command tries these again, and only these."
        )


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """What an option is given: some of these names, with commas between them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{unknown} not among {','.join(known)}")
        return names

    return parse


def _seeds(text: str) -> list[int]:
    seeds = [int(word) for word in text.split(",")]
    if min(seeds) < 1:
        raise argparse.ArgumentTypeError("seeds are 1 and more; 0 is that of the trials")
    return seeds


def speed_of(results_file: Path) -> Path:
    """What ``--speed`` writes, beside the results."""
    return results_file.with_name(f"{results_file.stem}_speed.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {"cells": CELLS, "directions": DIRECTIONS}
    for name, known in names.items():
        parser.add_argument(f"--{name}", type=_names(known), default=known, help=",".join(known))
    parser.add_argument("--seeds", type=_seeds, default=SEEDS, help="default: 1,2,3")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="trainings at a time")
    parser.add_argument("--output", type=Path, default=Path("runs/compare_cells"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=table.PAGE, help="where the table goes")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs" / "compare_cells.yaml")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--table", action="store_true", help="table and plot only")
    parser.add_argument("--speed", action="store_true", help="measure the rows' speed only")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # a child's folder
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = _arguments()
    if arguments.train:
        from cells.training import train_one

        train_one(arguments.train)
        return
    speed_file = speed_of(arguments.results)
    if not arguments.table:
        from cells.comparison import Comparison

        source = f"data.manifest={an4.find_manifest(arguments.data)}"
        overrides = (source, *arguments.overrides)
        comparison = Comparison(arguments.recipe, arguments.output, overrides)
        rows = [Row(cell, way) for way in arguments.directions for cell in arguments.cells]
        if arguments.speed:
            from cells import speed

            speed.write(comparison, rows, speed_file)
        else:
            command = [sys.executable, __file__, "--train"]
            train_all(comparison, rows, arguments.seeds, arguments.results, arguments.jobs, command)
    table.write(arguments.results, speed_file, arguments.page)


if __name__ == "__main__":  # preparation starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
