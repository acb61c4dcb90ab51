"""The results of pipelines/experiment_log.py -> the table in its page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainings import rates

from speechrnn.evaluation import bootstrap


def over_seeds(rows: Sequence[dict[str, Any]], name: str) -> tuple[float, float, float]:
    """The mean word error rate of the seeds, and its interval over speakers: each speaker that is
    drawn brings the errors of every seed."""
    units = rates.over_seeds([row["errors_words_by_speaker"][name] for row in rows])
    return rates.rate(units), *bootstrap.interval(units)


def percent(values: Sequence[float]) -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def table(changes: Mapping[str, str], rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: an experiment a line, in the order of ``changes``: its name, what it changes. Where
    ``outdated`` lines are among its own, it says so."""
    lines = [
        "| | what is changed | seeds | greedy (95 %) | each seed | last epoch | CER | dev loss "
        "| lexicon and 3-gram | core minutes |",
        "|---|---|---:|---|---|---:|---:|---:|---|---:|",
    ]
    for name, change in changes.items():
        own = [each for each in rows if each["experiment"] == name]
        if not own:
            continue

        def mean(key: str, own: list[dict[str, Any]] = own) -> float:
            return statistics.mean(each[key] for each in own)

        old = " (before the recipe's last change)" if any(r.get("outdated") for r in own) else ""
        each_seed = ", ".join(f"{100 * each['wer']:.1f}" for each in own)
        lines.append(
            f"| `{name}`{old} | {change} | {len(own)} "
            f"| {percent(over_seeds(own, 'greedy'))} | {each_seed} "
            f"| {100 * mean('last_wer'):.1f} % | {100 * mean('cer'):.1f} % "
            f"| {mean('last_dev_loss'):.2f} "
            f"| {percent(over_seeds(own, 'lexicon-and-3-gram'))} | {mean('core_minutes'):.0f} |"
        )
    return "\n".join(lines)
