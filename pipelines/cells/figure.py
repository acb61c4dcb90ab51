"""Word error rate against multiply-adds, a point a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cells.rows import CELLS, TWO_WAY
from speechrnn.errors import MissingExtra

if TYPE_CHECKING:
    from cells.table import Pooled

# Okabe and Ito's colours, which people who do not see all colours tell apart.
COLOURS = dict(zip(CELLS, ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7"), strict=True))
SAME = 0.08  # of a value: what differs by less is drawn as one group
GAP = 0.022  # of the largest value, between two points of a group
MARKS = dict(zip(CELLS, "soD^v", strict=True))


@dataclass(frozen=True)
class Point:
    """A row as it is drawn; rates as fractions."""

    cell: str
    name: str
    two_way: bool
    multiply_adds: float
    wer: float
    interval: tuple[float, float]
    seeds: tuple[float, ...]

    @staticmethod
    def of(row: Pooled, name: str) -> Point:
        return Point(
            row.row.cell,
            name,
            row.row.directions == TWO_WAY,
            row.multiply_adds,
            row.wer,
            row.interval,
            tuple(row.seeds),
        )


def plot(points: Sequence[Point]) -> Any:
    """A matplotlib figure; points of nearly the same multiply-adds stand side by side.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise MissingExtra("plotting the comparison", "notebooks") from error
    drawn = Figure(figsize=(8, 5), layout="constrained")
    axes = drawn.subplots()
    for point, x in zip(points, apart([p.multiply_adds / 1e6 for p in points]), strict=True):
        colour = COLOURS[point.cell]
        fill = colour if point.two_way else "white"
        low, high = (100 * bound for bound in point.interval)
        axes.plot([x, x], [low, high], color=colour, linewidth=1.5, zorder=1)
        axes.plot([x] * len(point.seeds), [100 * wer for wer in point.seeds], "_", color=colour)
        axes.plot(
            x, 100 * point.wer, MARKS[point.cell], color=colour, markerfacecolor=fill, markersize=9,
            markeredgewidth=1.8, zorder=2,
        )  # fmt: skip
    names = {point.cell: point.name for point in points}
    handles = [
        Line2D([], [], color=COLOURS[cell], marker=MARKS[cell], linestyle="", label=name)
        for cell, name in names.items()
    ]
    for label, fill in (("two directions", "0.3"), ("one direction", "white")):
        handles.append(
            Line2D([], [], color="0.3", marker="o", markerfacecolor=fill, linestyle="", label=label)
        )
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    axes.set_xlabel("million multiply-adds for a second of audio (nearly equal ones side by side)")
    axes.set_ylabel("AN4 dev, word error rate (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_title("Mean of the seeds (dashes), 95 % interval over speakers", fontsize="medium")
    return drawn


def apart(values: Sequence[float]) -> list[float]:
    """Where points are drawn: those of nearly the same value side by side about their mean, in the
    order that they came in; the others where they are."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and values[i] <= (1 + SAME) * values[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    placed = list(values)
    for group in (sorted(group) for group in groups if len(group) > 1):
        middle = sum(values[i] for i in group) / len(group)
        for at, i in enumerate(group):
            placed[i] = middle + GAP * max(values) * (at - (len(group) - 1) / 2)
    return placed
