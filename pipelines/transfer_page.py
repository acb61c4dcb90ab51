"""The results of pipelines/transfer.py -> the table in docs/transfer.md, and its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trainings import page as pages
from trainings import rates, results

from speechrnn.errors import DataError
from speechrnn.evaluation import bootstrap
from speechrnn.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "transfer.md"
IMAGE = "transfer.png"
BEGIN, END = "<!-- transfer: begin -->", "<!-- transfer: end -->"
COLUMNS = (
    "minutes", "recordings", "WER from scratch (95 %)", "WER from LibriSpeech (95 %)",
    "difference, points (95 %)", "CER of both", "minutes of training of both",
)  # fmt: skip
# Okabe and Ito's colours, which people who do not see all colours tell apart.
LOOKS = {
    "scratch": ("from scratch", "#D55E00", "o"),
    "pretrained": ("from a model of LibriSpeech", "#0072B2", "s"),
}
KEYS = {"minutes", "init", "seed", "settings", "pretrained", "wer"}  # of a line, at least


@dataclass(frozen=True)
class Point:
    """The trainings on so many minutes from one kind of start, all seeds of them."""

    init: str
    lines: tuple[results.Line, ...]

    @property
    def minutes(self) -> float:
        return float(self.lines[0]["audio_minutes"])

    @property
    def seeds(self) -> list[int]:
        return sorted(line["seed"] for line in self.lines)

    @property
    def units(self) -> np.ndarray:
        """(speakers, 2): word errors and words, summed over seeds."""
        return rates.over_seeds([line["by_speaker"] for line in self.lines])

    @property
    def wer(self) -> float:
        return rates.rate(self.units)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, over speakers."""
        return bootstrap.interval(self.units)

    def mean(self, key: str) -> float:
        return float(np.mean([line[key] for line in self.lines]))


def points(lines: Sequence[results.Line]) -> list[Point]:
    """What there is, by minutes and start.

    Raises:
        DataError: trainings of different settings, or starts, are among them.
    """
    kept = {(line["settings"], None) for line in lines}
    starts = {line["pretrained"] for line in lines if line["init"] == "pretrained"}
    if len(kept) > 1 or len(starts) > 1:
        raise DataError(
            "the results are of different settings, or of starts from different models, and make "
            "no table; delete the lines of one of them"
        )
    by_point: dict[tuple[float, str], list[results.Line]] = {}
    for line in lines:
        by_point.setdefault((line["audio_minutes"], line["init"]), []).append(line)
    return [Point(init, tuple(found)) for (_, init), found in sorted(by_point.items())]


def markdown(found: Sequence[Point]) -> str:
    """The table and what has to be said of it."""
    if not found:
        return "No training is done yet."
    rows = [COLUMNS, ["---:"] * len(COLUMNS)]
    for minutes in sorted({point.minutes for point in found}):
        here = {point.init: point for point in found if point.minutes == minutes}
        rows.append(_cells(here.get("scratch"), here.get("pretrained")))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\n{_note(found)}\n\n![The same as a curve](images/{IMAGE})"


def _cells(scratch: Point | None, pretrained: Point | None) -> list[str]:
    both = [point for point in (scratch, pretrained) if point]
    first = both[0]
    apart = "–"
    if scratch and pretrained and scratch.seeds == pretrained.seeds:
        middle, low, high = (
            100 * value for value in rates.difference(pretrained.units, scratch.units)
        )
        apart = f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
    return [
        f"{first.minutes:.0f}",
        f"{first.lines[0]['utterances']} of {first.lines[0]['speakers']} speakers",
        *(_rate(point) for point in (scratch, pretrained)),
        apart,
        ", ".join(f"{100 * point.mean('cer'):.1f} %" for point in both),
        ", ".join(f"{point.mean('training_seconds') / 60:.1f}" for point in both),
    ]


def _rate(point: Point | None) -> str:
    if point is None:
        return "–"
    low, high = (100 * bound for bound in point.interval)
    return f"{100 * point.wer:.1f} % ({low:.1f} to {high:.1f})"


def _note(found: Sequence[Point]) -> str:
    lines = [line for point in found for line in point.lines]
    updates = {
        name: _range([line["updates"] for line in lines if line["init"] == init])
        for init, (name, _, _) in LOOKS.items()
    }
    told = " and ".join(f"{each} {name}" for name, each in updates.items() if each)
    threads = " or ".join(sorted({str(line["threads"]) for line in lines}))
    rates = _range([line["audio_seconds_per_second"] for line in lines])
    seeds = ", ".join(map(str, sorted({line["seed"] for line in lines})))
    return (
        f"Updates: {told}. Seeds: {seeds}. Training ran on {threads} threads and heard {rates} s "
        "of audio a second."
    )


def _range(values: Sequence[float]) -> str:
    low, high = (f"{bound:.0f}" for bound in (min(values, default=0), max(values, default=0)))
    return "" if not values else low if low == high else f"{low} to {high}"


def plot(found: Sequence[Point]) -> Any:
    """A matplotlib figure: error rate against minutes."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawn.subplots()
    for aside, (init, (name, colour, mark)) in zip((0.985, 1.015), LOOKS.items(), strict=True):
        mine = [point for point in found if point.init == init]
        if not mine:
            continue
        x = [aside * point.minutes for point in mine]  # so that intervals do not hide each other
        rates = np.array([[point.wer, *point.interval] for point in mine]) * 100
        apart = [rates[:, 0] - rates[:, 1], rates[:, 2] - rates[:, 0]]
        axes.errorbar(x, rates[:, 0], apart, color=colour, marker=mark, capsize=3, label=name)
    ticks = sorted({point.minutes for point in found})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{minutes:.0f}" for minutes in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes of AN4 to train on")
    axes.set_ylabel("AN4 dev, word error rate (%)")
    axes.set_title("Greedy decoding; 95 % interval over speakers", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return drawn


def write(file: Path, page: Path) -> None:
    """Table and curve from the results into the page and to ``images`` beside it; the table on
    stdout, too.

    Raises:
        DataError: a damaged results file, or a page without markers.
    """
    found = points(results.read(file, KEYS))
    table = markdown(found)
    print(table)
    if found:
        (page.parent / "images").mkdir(parents=True, exist_ok=True)
        plot(found).savefig(page.parent / "images" / IMAGE, dpi=150)
    text = page.read_text(encoding="utf-8")
    told = pages.between(text, BEGIN, END, f"\n{table}\n", page)
    write_atomically(page, told.encode())
