"""What the benchmarks found, as docs/benchmarks.md has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from glance import Ratio, ratios
from machine import busy, described
from sections import SECTIONS, markdown, memory

__all__ = ["page", "ratios"]

Found = dict[str, Any]

HEAD = """# Benchmarks

How fast speechrnn trains, transcribes, decodes and computes features, and in how much memory,
beside Keras, PyTorch, ONNX Runtime, librosa, flashlight-text and pocketsphinx. Written by

```
python pipelines/benchmarks/all.py
```

from `pipelines/results/benchmarks.json`. Rows of a table were measured in turns, in one run on one
machine, each runtime in a process of its own; times are the best of the rounds, and ratios are of
those. Ratios carry over to similar machines, times do not. PyTorch, ONNX Runtime and pocketsphinx
are optional (`pip install torch onnx onnxruntime pocketsphinx`); what was not there is named.
"""
QUICK = """
**These figures mean nothing: they are of a try with the smallest sizes (`--quick`), which shows
that everything runs.**
"""
FOOT = """## Other measurements

| | |
|---|---|
| three sizes of models to start from | [presets](presets.md) |
| preparing recordings, reading shards, the start of a training | [scale](scale.md) |
| error rate against latency of streams | `python pipelines/latency.py RUN` |
| one model of yours, or two in turn | `speechrnn benchmark MODEL --compare OTHER` |
"""


def page(results: Found, parts: Sequence[str]) -> str:
    """The whole page. ``parts`` are those there should be, in their order."""
    quick = any(part["quick"] for part in results.values())
    lines = [HEAD, QUICK] if quick else [HEAD]
    lines += [f"{each}\n" for each in _shared(results)]
    glance = ratios(results)
    if glance:
        lines += ["## At a glance\n", *_glance(glance)]
    for name in parts:
        title, render = SECTIONS[name]
        lines.append(f"## {title}\n")
        part = results.get(name)
        if part is None:
            lines.append("Not measured yet.\n")
            continue
        lines += [f"{each}\n" for each in _conditions(part) if each not in _shared(results)]
        if "failed" in part:
            lines.append(f"Could not be measured: {part['failed']}\n")
        else:
            lines += [*render(part["found"]), ""]
        lines.append(f"`{part['command']}`: {part['minutes']:.1f} minutes.\n")
        if name == "inference":
            lines += ["## Memory\n", *memory(results), ""]
    return "\n".join([*lines, FOOT])


def _conditions(part: Found) -> list[str]:
    """Where a part was measured, and what else ran there, if anything did."""
    where = f"Measured on: {described(part['machine'], part['versions'])}"
    return [each for each in (where, busy(part["load"])) if each]


def _shared(results: Found) -> list[str]:
    """The conditions of all parts, which are said once."""
    each = [_conditions(part) for part in results.values()]
    return (
        [condition for condition in each[0] if all(condition in of for of in each)] if each else []
    )


def _glance(found: Sequence[Ratio]) -> Iterator[str]:
    yield "Above 1, speechrnn is so many times as fast, or needs so many times less memory.\n"
    yield "![How many times as fast as others, and as small](images/benchmarks.png)\n"
    yield markdown(
        ["", "beside", "times as fast, or as small"],
        [[each.what, each.peer, f"{each.value:.2f}"] for each in found],
    )
    yield ""
