"""From the times of all rounds to what is reported: medians, ratios, shares of the peak."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from implementations import STACKS
from shapes import (
    PEAK_SIZE,
    Shape,
    audio_seconds,
    frame_lengths,
    layer_multiply_adds,
    multiply_adds,
)
from workers import Bench, Times

PYTORCH = ("pytorch-dense", "pytorch-packed")
KERAS = ("keras", "keras-rnn-cell")  # the second where Keras has no such layer


def summary(rounds: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(rounds), "best": min(rounds), "rounds": rounds}


def peak_rates(times: dict[str, Times]) -> dict[str, float]:
    """Multiply-adds a second of one large product, by dtype: the best, so that no share of it
    flatters."""
    measured = times.get("peak", {})
    return {dtype: PEAK_SIZE**3 / min(rounds) for dtype, rounds in measured.items()}


def rows(bench: Bench, times: dict[str, Times], shape: Shape) -> list[dict[str, Any]]:
    """One record for each implementation of one comparison, its ratios included."""
    peaks = peak_rates(times)
    found = []
    for name, by_action in times.items():
        if name not in STACKS:
            continue
        row: dict[str, Any] = {"implementation": name, **asdict(STACKS[name])}
        worker = bench.workers[name]
        row["peak_memory_bytes"] = worker.peak_memory()
        row["memory_before_bytes"] = worker.memory_before
        row["first_loss"] = worker.first_result
        work = multiply_adds(shape, row["padding"])
        for action, rounds in by_action.items():
            row[action] = summary(rounds)
            seconds = row[action]["median"]
            row[action]["audio_seconds_per_second"] = audio_seconds(shape) / seconds
            row[action]["multiply_adds"] = work[action]
            if row["precision"] in peaks:
                rate = work[action] / seconds
                row[action]["share_of_peak"] = rate / peaks[row["precision"]]
        found.append(row)
    for action in ("train", "infer"):
        for statistic in ("median", "best"):
            add_ratios(found, action, statistic)
    return found


def add_ratios(found: list[dict[str, Any]], action: str, statistic: str) -> None:
    """row[action]["ratios"][statistic]: how many times as long the others take, by their names.

    "stock" is Keras, "pytorch" the faster of PyTorch's rows of the same precision.
    """
    times = {row["implementation"]: row[action][statistic] for row in found}
    stock = [times[name] for name in KERAS if name in times][:1]
    for row in found:
        own = row[action][statistic]
        ratios = {name: other / own for name, other in times.items()}
        suffix = "" if row["precision"] == "float32" else "-" + row["precision"]
        rivals = [times[name + suffix] for name in PYTORCH if name + suffix in times]
        if stock:
            ratios["stock"] = stock[0] / own
        if rivals:
            ratios["pytorch"] = min(rivals) / own
        row[action].setdefault("ratios", {})[statistic] = ratios


def comparison(bench: Bench, times: dict[str, Times], shape: Shape) -> dict[str, Any]:
    """The record of one cell at one size."""
    work = {"padded": multiply_adds(shape, True), "valid": multiply_adds(shape, False)}
    return {
        **asdict(shape),
        "valid_frames": int(frame_lengths(shape).sum()),
        "audio_seconds": audio_seconds(shape),
        "multiply_adds": work,
        "peak_multiply_adds_per_second": peak_rates(times),
        "rows": rows(bench, times, shape),
        "left_out": bench.left_out,
    }


def unsteadiness(found: list[dict[str, Any]]) -> float:
    """The largest median over best: about 1 on a machine that does nothing else."""
    ratios = [
        row[action]["median"] / row[action]["best"]
        for row in found
        for action in ("train", "infer")
    ]
    return max(ratios, default=1.0)


def scaling(
    times: Times, batches: Sequence[int], frames: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Of every size, as "16x250": the rounds, the step's median, the share of CTC in it, and the
    step and the step without CTC by batch x frames, relative to the first size's.

    CTC takes frames x labels, and a longer utterance has more labels: it alone grows faster than
    its frames.
    """
    sizes = {f"{b}x{t}": b * t for b in batches for t in frames if f"{b}x{t}" in times}
    median = {size: statistics.median(times[size]) for size in sizes}
    loss = {size: statistics.median(times[f"{size} loss"]) for size in sizes}
    rest = {size: median[size] - loss[size] for size in sizes}
    return {
        "rounds": {**times},
        "median": {**median},
        "ctc_share": {size: loss[size] / median[size] for size in sizes},
        "relative_per_frame": _relative(median, sizes),
        "relative_per_frame_without_ctc": _relative(rest, sizes),
    }


def _relative(seconds: dict[str, float], frames: dict[str, int]) -> dict[str, float]:
    """By frame, the first being 1."""
    per_frame = {size: seconds[size] / count for size, count in frames.items()}
    first = next(iter(per_frame.values()), 1.0)
    return {size: value / first for size, value in per_frame.items()}


def layers(bench: Bench, times: dict[str, Times]) -> dict[str, Any]:
    """One record for each layer; "ratio" is the time of our SimpleRNN of the same precision by
    its own."""
    found = []
    for label, by_action in times.items():
        shape = bench.workers[label].shape
        lengths = np.full(shape.batch, shape.frames)
        forward = sum(layer_multiply_adds(shape, 0, lengths))
        _, kind = label.split(" ")
        plain = times.get("simple_rnn " + kind)
        row: dict[str, Any] = {"title": label, **asdict(shape), "multiply_adds": forward}
        for action, rounds in by_action.items():
            row[action] = summary(rounds)
            if plain:
                row[action]["ratio"] = statistics.median(plain[action]) / row[action]["median"]
        found.append(row)
    return {"rows": found, "left_out": bench.left_out}


def parts(times: Times) -> dict[str, float]:
    """Of parts.parts_of_a_step, the rounds -> what a step is made of, in seconds.

    The best of the rounds: some parts are differences, in which a slow moment would show twice.
    """
    best = {action: min(rounds) for action, rounds in times.items()}
    found = {
        "step": best["step"],
        "forward": best["forward"],
        "loss": best["loss"],
        "backward": best["gradients"] - best["forward"] - best["loss"],
        "update": best["update"],
    }
    if "large_products" in best:
        found["large_products"] = best["large_products"]
        found["loop_products"] = best["loop_products"] - best["empty_loops"]
        found["empty_loops"] = best["empty_loops"]
        found["rest"] = found["forward"] + found["backward"]
        found["rest"] -= best["large_products"] + best["loop_products"]
    return found
