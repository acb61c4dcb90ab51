"""The results file -> docs/cells.md: the rows, a table of them between markers, and the plot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trainings import page as pages
from trainings import rates, results

from cells import figure
from cells.rows import CELLS, DIRECTIONS, KEYS, TRAINING, TRIAL, Row
from speechrnn.errors import DataError
from speechrnn.evaluation import bootstrap
from speechrnn.files import write_atomically

PAGE = Path(__file__).parents[2] / "docs" / "cells.md"
BEGIN, END = "<!-- compare_cells: begin -->", "<!-- compare_cells: end -->"
IMAGE = "cells.png"  # in ``images`` beside the page
CAPTION = "Word error rate of each cell against its multiply-adds"
REFERENCE = "lstm"  # that every row is held against, in its own directions
REACH_FRACTION = 0.1  # of the largest derivative
NAMES = {
    "simple_rnn": "SimpleRNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "clockwork": "Clockwork RNN",
    "depth_gated": "depth-gated LSTM",
}
COLUMNS = (
    "cell", "directions", "units", "parameters", "10⁶ multiply-adds a s of audio",
    "dev WER (95 %)", "seeds", "against LSTM, points (95 %)", "CER", "learning rate",
    "s of audio trained on in a s", "device, ms for a s of audio", "int8 file, MB",
    "reach back / ahead, s",
)  # fmt: skip


@dataclass(frozen=True)
class Pooled:
    """A row over its seeds. Its error rate is the seeds' mean: each hears the same words."""

    row: Row
    lines: tuple[results.Line, ...]
    units: np.ndarray  # (speakers, 2): word errors and words of all seeds
    speed: dict[str, Any] | None

    @property
    def wer(self) -> float:
        return rates.rate(self.units)

    @property
    def interval(self) -> tuple[float, float]:
        """Over speakers, each drawn with what all seeds made of it."""
        return bootstrap.interval(self.units)

    @property
    def seeds(self) -> list[float]:
        """The error rate of each seed."""
        return [line["wer"] for line in self.lines]

    @property
    def multiply_adds(self) -> float:
        return float(self.lines[0]["multiply_adds_per_second"])

    def mean(self, key: str) -> float:
        return float(np.mean([line[key] for line in self.lines]))

    def reach(self, side: str) -> float:
        """Seconds, the median of the seeds."""
        frames = [reach(line[f"gradient_{side}"], REACH_FRACTION) for line in self.lines]
        return float(np.median(frames)) * self.lines[0]["frame_ms"] / 1000


def reach(values: Sequence[float], fraction: float) -> int:
    """The farthest frame of a profile (``reach.Profile``) that is at or above ``fraction``."""
    return max((k for k, value in enumerate(values) if value >= fraction), default=0)


def pooled(lines: Sequence[results.Line], speeds: dict[str, Any] | None = None) -> list[Pooled]:
    """The rows that there are, in the order of the table.

    Raises:
        DataError: the seeds of a row differ in their network.
    """
    by_row = defaultdict(list)
    for line in lines:
        if line["kind"] == TRAINING:
            by_row[Row(line["cell"], line["directions"])].append(line)
    by_speed = {Row(s["cell"], s["directions"]): s for s in (speeds or {}).get("rows", [])}
    order = [Row(cell, way) for way in DIRECTIONS for cell in CELLS]
    return [
        _pool(row, sorted(by_row[row], key=lambda line: line["seed"]), by_speed.get(row))
        for row in order
        if row in by_row
    ]


def _pool(row: Row, lines: list[results.Line], speed: dict[str, Any] | None) -> Pooled:
    speakers = sorted(lines[0]["by_speaker"])
    sizes = {(line["units"], line["learning_rate"]) for line in lines}
    if len(sizes) > 1 or any(sorted(line["by_speaker"]) != speakers for line in lines):
        raise DataError(
            f"the seeds of {row.cell}, {row.directions}-way differ in units, learning rate or "
            "speakers; delete their lines, and train them again"
        )
    units = rates.over_seeds([line["by_speaker"] for line in lines])
    return Pooled(row, tuple(lines), units, speed)


def _cells(row: Pooled, reference: Pooled | None) -> list[str]:
    """A row as it is read, in the order of ``COLUMNS``."""
    first, speed = row.lines[0], row.speed or {}
    low, high = row.interval
    against = "–"
    if reference is not None and reference is not row and _comparable(row, reference):
        middle, least, most = (
            100 * value for value in rates.difference(row.units, reference.units)
        )
        against = f"{middle:+.1f} ({least:+.1f} to {most:+.1f})"
    trained = speed.get("trained_audio_seconds_per_second")
    device = speed.get("real_time_factor")
    size = first.get("int8_bytes", speed.get("int8_bytes"))
    return [
        NAMES[row.row.cell],
        row.row.directions,
        str(first["units"]),
        f"{first['parameters'] / 1e6:.2f} M",
        f"{row.multiply_adds / 1e6:.1f}",
        f"{100 * row.wer:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        ", ".join(f"{100 * wer:.1f}" for wer in row.seeds),
        against,
        f"{100 * row.mean('cer'):.1f} %",
        f"{first['learning_rate']:g}",
        "–" if trained is None else f"{trained:.0f}",
        "–" if device is None else f"{1000 * device:.2f}",
        "–" if size is None else f"{size / 1e6:.2f}",
        f"{row.reach('back'):.2f} / {row.reach('ahead'):.2f}",
    ]


def _comparable(row: Pooled, reference: Pooled) -> bool:
    """The same seeds and speakers."""
    one, other = ([line["seed"] for line in each.lines] for each in (row, reference))
    return one == other and len(row.units) == len(reference.units)


def markdown(lines: Sequence[results.Line], speeds: dict[str, Any] | None = None) -> str:
    """The table, and a line that says which trials the learning rates are from."""
    rows = pooled(lines, speeds)
    if not rows:
        return "No row is trained yet."
    references = {row.row.directions: row for row in rows if row.row.cell == REFERENCE}
    shown = [_cells(row, references.get(row.row.directions)) for row in rows]
    table = [COLUMNS, ["---", "---", *["---:"] * (len(COLUMNS) - 2)], *shown]
    text = "\n".join("| " + " | ".join(line) + " |" for line in table)
    return "\n\n".join([text, f"![{CAPTION}](images/{IMAGE})", *_notes(lines, rows, speeds)])


def _notes(
    lines: Sequence[results.Line], rows: list[Pooled], speeds: dict[str, Any] | None
) -> list[str]:
    trainings = [line for line in lines if line["kind"] == TRAINING]
    seconds = [line["training_seconds"] for line in trainings]
    rates = [line["audio_seconds_per_second"] for line in trainings]
    notes = [
        f"{len(rows)} rows, {len(trainings)} trainings of {trainings[0]['epochs']} epochs, seeds "
        f"{', '.join(map(str, sorted({line['seed'] for line in trainings})))}; a training took "
        f"{min(seconds) / 60:.1f} to {max(seconds) / 60:.1f} minutes on one core that had others "
        f"beside it ({min(rates):.0f} to {max(rates):.0f} s of audio a second)."
    ]
    worse = [line["int8_wer"] - line["wer"] for line in trainings if line.get("int8_wer")]
    if worse:
        notes.append(
            f"The int8 files of {len(worse)} rows, one seed of each: their dev WER differs from "
            f"the float32 network's by {100 * min(worse):+.1f} to {100 * max(worse):+.1f} points."
        )
    refused = [line for line in trainings if "not_exported" in line]
    notes += [f"Not exported, {NAMES[r['cell']]}: {r['not_exported']}" for r in refused]
    if speeds:
        notes.append(
            f"Seconds on one thread of {speeds['machine']}, the best of {speeds['rounds']} rounds."
        )
    trials = _trials(lines)
    return [*notes, trials] if trials else notes


def _trials(lines: Sequence[results.Line]) -> str:
    """Dev losses of the learning rates that were tried, as a small table."""
    losses: dict[str, dict[float, float | None]] = defaultdict(dict)
    for line in lines:
        if line["kind"] == TRIAL:
            losses[line["cell"]][line["learning_rate"]] = line["dev_loss"]
    rates = sorted({rate for found in losses.values() for rate in found})
    if not rates:
        return ""
    head = ["dev loss of the trials at", *(f"{rate:g}" for rate in rates)]
    table = [head, ["---", *["---:"] * len(rates)]]
    for cell in (cell for cell in CELLS if cell in losses):
        row = [losses[cell].get(rate) for rate in rates]
        table.append([NAMES[cell], *("–" if x is None else f"{x:.1f}" for x in row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def read_speed(path: Path, lines: Sequence[results.Line]) -> dict[str, Any] | None:
    """What ``speed.write`` wrote; None where it has not been measured.

    Raises:
        DataError: it is of other settings than the results.
    """
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_bytes())
    if lines and found["settings"] != lines[0]["settings"]:
        raise DataError(
            f"{path} was measured with other settings ({found['settings']}) than the results have "
            f"({lines[0]['settings']}); measure again with --speed, or delete it"
        )
    return found


def write(file: Path, speed_file: Path, page: Path) -> None:
    """Table and plot, from the results alone, into the page and to ``images`` beside it; the table
    on stdout, too. A page that is not there yet is begun.

    Raises:
        DataError: a damaged results file, or one of several settings, speeds of other settings, a
            page without markers.
    """
    lines = results.read(file, KEYS)
    if len(mixed := sorted({line["settings"] for line in lines})) > 1:
        raise DataError(
            f"{file} holds results of several settings ({', '.join(mixed)}), which no table can "
            "mix; delete the lines of all but one"
        )
    speeds = read_speed(speed_file, lines)
    table = markdown(lines, speeds)
    print(table)
    rows = pooled(lines, speeds)
    if rows:
        image = page.parent / "images" / IMAGE
        image.parent.mkdir(parents=True, exist_ok=True)
        figure.plot([figure.Point.of(row, NAMES[row.row.cell]) for row in rows]).savefig(
            image, dpi=150
        )
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    told = pages.between(text, BEGIN, END, f"\n{table}\n", page)
    write_atomically(page, told.encode())
