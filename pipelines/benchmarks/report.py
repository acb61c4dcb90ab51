"""The tables for people."""

from __future__ import annotations

from typing import Any

from records import unsteadiness
from rich.console import Console
from rich.table import Table
from shapes import FRAME_SECONDS, Shape

PARTS = {
    "step": "whole training step",
    "forward": "  forward",
    "loss": "  CTC with its gradient",
    "backward": "  backward (gradients less the two above)",
    "update": "  clipping and Adam",
    "large_products": "  products of all frames at once",
    "loop_products": "  products within the loops over frames",
    "empty_loops": "  the same loops without them",
    "rest": "  the rest: gates, rearranging, storing",
}


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """The first column is of names, the others of numbers."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def machine_line(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; {packages}"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.4g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def comparison(console: Console, record: dict[str, Any]) -> None:
    """Two tables: the training step and the inference pass."""
    work = record["multiply_adds"]
    peaks = record["peak_multiply_adds_per_second"]
    size = f"{record['batch']} x {record['frames']} x {record['units']}"
    console.print(
        f"\n[bold]{record['cell']}[/bold], {record['layers']} bidirectional layers, batch x frames "
        f"x units {size}: {record['audio_seconds']:.0f} s of audio at {1000 * FRAME_SECONDS:.0f} "
        f"ms a frame, {record['valid_frames']} of {record['batch'] * record['frames']} frames "
        "valid"
    )
    console.print(
        f"matrix products of a training step: {work['padded']['train'] / 1e9:.1f} G multiply-adds "
        f"(padding left out {work['valid']['train'] / 1e9:.1f}); measured peak "
        + ", ".join(f"{rate / 1e9:.0f} G/s {dtype}" for dtype, rate in peaks.items())
    )
    for action, title in (("train", "training step"), ("infer", "inference pass")):
        columns = [title, "products in", "median ms", "best ms", "x Keras", "x PyTorch"]
        columns += ["audio s/s", "of peak"] + ["memory MB"] * (action == "train")
        console.print(table("", columns, [_row(row, action) for row in record["rows"]]))
    left_out(console, record["left_out"])
    if (ratio := unsteadiness(record["rows"])) > 1.2:
        console.print(
            f"The machine was not steady: a median is {ratio:.1f} times its best. Trust the best "
            "times, and the ratios of best times in the JSON."
        )


def _row(row: dict[str, Any], action: str) -> list[str]:
    found = row[action]
    ratios = found["ratios"]["median"]
    share = found.get("share_of_peak")
    cells = [
        row["title"],
        row["precision"],
        milliseconds(found["median"]),
        milliseconds(found["best"]),
        f"{ratios['stock']:.2f}" if "stock" in ratios else "-",
        f"{ratios['pytorch']:.2f}" if "pytorch" in ratios else "-",
        f"{found['audio_seconds_per_second']:.0f}",
        f"{share:.0%}" if share is not None else "-",
    ]
    return [*cells, f"{row['peak_memory_bytes'] / 1e6:.0f}"] if action == "train" else cells


def scaling(console: Console, record: dict[str, Any]) -> None:
    """Batches down, frames across."""
    batches, frames = record["batches"], record["frames"]
    columns = ["batch \\ frames", *map(str, frames)]
    for key, shown, title in (
        ("median", milliseconds, "ms of a training step"),
        ("ctc_share", "{:.0%}".format, "CTC's share, which takes frames x labels"),
        ("relative_per_frame", "{:.2f}".format, "by batch x frames, the first being 1"),
        ("relative_per_frame_without_ctc", "{:.2f}".format, "the same without CTC"),
    ):
        values = record[key]
        sizes = [[f"{b}x{t}" for t in frames] for b in batches]
        rows = [
            [str(batch), *(shown(values[size]) if size in values else "-" for size in row)]
            for batch, row in zip(batches, sizes, strict=True)
        ]
        name = f"{record['cell']} {record['precision']}, {record['units']} units: {title}"
        console.print(table(name, columns, rows))
    left_out(console, record["left_out"])


def layers(console: Console, record: dict[str, Any]) -> None:
    """One layer: the clockwork RNN of eight modules and plain ones."""
    rows, size = [], ""
    for row in record["rows"]:
        size = f"{row['batch']} x {row['frames']} x {row['units']}"
        cells = [row["title"]]
        for action in ("infer", "train"):
            ratio = row[action].get("ratio")
            cells += [milliseconds(row[action]["median"]), f"{ratio:.2f}" if ratio else "-"]
        rows.append([*cells, f"{row['multiply_adds'] / 1e9:.3g}"])
    columns = ["layer", "forward ms", "x", "and backward ms", "x", "forward G multiply-adds"]
    title = f"one layer without a mask, {size}; x: times as fast as our SimpleRNN"
    console.print(table(title, columns, rows))
    left_out(console, record["left_out"])


def breakdown(console: Console, shape: Shape, record: dict[str, Any]) -> None:
    """What a step is made of."""
    found = record["seconds"]
    rows = [
        [title, milliseconds(found[key]), f"{found[key] / found['step']:.0%}"]
        for key, title in PARTS.items()
        if key in found
    ]
    console.print(
        table(f"{shape}, {record['precision']}", ["part", "best ms", "of the step"], rows)
    )
    left_out(console, record["left_out"])


def left_out(console: Console, reasons: dict[str, str]) -> None:
    """Who is left out for which reason."""
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, its in reasons.items() if its == reason]
        console.print(f"left out: {', '.join(names)}: {reason}", markup=False)
