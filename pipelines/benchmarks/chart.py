"""The ratios of all benchmarks as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glance import Ratio

BETTER, WORSE, INK = "#2a6f97", "#bc6c25", "#333333"
ROW_INCHES, WIDTH_INCHES = 0.27, 8.0


def draw(ratios: Sequence[Ratio], path: Path) -> None:
    """Bars on a logarithmic scale, to the right where speechrnn is better; PNG. Without any ratio
    there is no picture."""
    if not ratios:
        path.unlink(missing_ok=True)
        return
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 1.1 + ROW_INCHES * len(ratios)))
    places = range(len(ratios))
    for place, each in zip(places, ratios, strict=True):
        colour = BETTER if each.value >= 1 else WORSE
        axes.barh(place, each.value - 1, left=1, height=0.72, color=colour)
        right = each.value >= 1
        axes.annotate(
            f"{each.value:.2f}" if each.value < 10 else f"{each.value:.0f}",
            (each.value, place),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    values = [each.value for each in ratios]
    axes.set_xlim(min(0.4, 0.6 * min(values)), max(4.0, 1.6 * max(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(places, [f"{each.what}: {each.peer}" for each in ratios], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("times as fast, or times less memory, as the other one named (log scale)")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
