"""How fast an exported recogniser runs: speechrnn's device file, Keras, PyTorch and ONNX Runtime.

    python pipelines/benchmarks/inference.py                 3 x bidirectional LSTM(256), a minute
    python pipelines/benchmarks/inference.py --linearity     10, 40 and 160 s of audio
    python pipelines/benchmarks/inference.py --table         every cell, direction and precision
    python pipelines/benchmarks/inference.py --json out.json --rounds 20

PyTorch and ONNX Runtime are optional (pip install torch onnx onnxruntime); without them their rows
are left out.

One network with random weights, the same for all: log-mels, two strided convolutions (a frame for
every 40 ms), bidirectional LSTMs with a layer norm behind each, log-softmax. Each form is a process
of its own with one thread; they take turns in every round. All get the same features, since the
others cannot compute them: the file under test is the exported one from there on. A form in
float32 whose log_probs are more than 1e-4 from the Keras model's is not timed. "Keras" are its own
layers (keras.layers.LSTM) in one graph of TensorFlow. int8 are weights; what is
computed with them is float32.

The columns: "of ORT float32" and "of ORT int8" are the row's best time by that of ONNX Runtime,
below 1 where the row is faster ("int8" is the faster of its two rows: by default its quantiser
takes the convolutions too). "memory" is the most that the process has held (VmHWM), Python, the
runtime and the features included. "difference" is the largest |a - b| / (1 + |b|) to the log_probs
of the model in Keras.

--linearity gives times relative to that of 10 s. --table exports untrained weights through the
checks of every export and prints Markdown; its real-time factor is that of ``speechrnn benchmark``,
waveform in.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report
from machine import machine
from networks import FORMS, Network
from rich.console import Console
from rich.progress import Progress
from shapes import CELLS
from workers import Bench

LITERT = ("litert-float32", "litert-int8")
RIVALS = {
    "of ORT float32": ("onnx-float32",),
    "of ORT int8": ("onnx-int8", "onnx-int8-float-convolutions"),
}
SECONDS = 10.0
LINEARITY = (10.0, 40.0, 160.0)
PRECISIONS = ("float32", "float16", "int8")


def measure(
    network: Network, names: Sequence[str], seconds: Sequence[float], options: argparse.Namespace
) -> dict[str, Any]:
    """The forms' times on recordings of so many seconds, in turns."""
    from exported_network import write  # TensorFlow; --help does without

    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(stderr=True)) as progress,
        Bench(progress) as bench,
    ):
        precisions = [FORMS[name].precision for name in names if name in LITERT]
        write(network, seconds, precisions, Path(folder))
        for name in names:
            bench.start(name, name, network, folder=folder)
        times = bench.run(options.rounds, options.seconds, "in turns")
        rows = [
            {
                "form": name,
                **dataclasses.asdict(FORMS[name]),
                "difference": bench.workers[name].first_result,
                "peak_memory_bytes": bench.workers[name].peak_memory(),
                "rounds": {action: by for action, by in rounds.items() if action != "difference"},
            }
            for name, rounds in times.items()
        ]
        versions = bench.versions()
    found = {"network": dataclasses.asdict(network), "seconds": list(seconds), "rows": rows}
    return {**found, "left_out": bench.left_out, "machine": {**machine(), "versions": versions}}


def add_ratios(rows: list[dict[str, Any]], seconds: float) -> None:
    """row["best"], row["median"] and row["ratios"]: the best by that of each of RIVALS."""
    for row in rows:
        rounds = row["rounds"][f"{seconds:g}"]
        row["best"], row["median"] = min(rounds), statistics.median(rounds)
    best = {row["form"]: row["best"] for row in rows}
    for row in rows:
        row["ratios"] = {
            title: row["best"] / min(best[name] for name in names if name in best)
            for title, names in RIVALS.items()
            if set(names) & set(best)
        }


def compare(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All forms on one recording."""
    found = measure(_network(options), options.forms, [SECONDS], options)
    add_ratios(found["rows"], SECONDS)
    rows = [
        [
            row["runtime"],
            row["precision"],
            *(report.milliseconds(row[statistic]) for statistic in ("best", "median")),
            *(f"{row['ratios'][title]:.2f}" if title in row["ratios"] else "-" for title in RIVALS),
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            f"{row['difference']:.0e}",
        ]
        for row in found["rows"]
    ]
    columns = ["form", "weights", "best ms", "median ms", *RIVALS, "memory MB", "difference"]
    title = f"{_network(options)}; {SECONDS:g} s of audio, features in, one thread"
    console.print(report.table(title, columns, rows))
    report.left_out(console, found["left_out"])
    return found


def linearity(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The exported files on longer and longer recordings."""
    found = measure(_network(options), LITERT, LINEARITY, options)
    rows = []
    for row in found["rows"]:
        row["best"] = {seconds: min(rounds) for seconds, rounds in row["rounds"].items()}
        first = row["best"][f"{LINEARITY[0]:g}"]
        row["relative"] = {seconds: best / first for seconds, best in row["best"].items()}
        shown = [
            f"{report.milliseconds(row['best'][seconds])} ({row['relative'][seconds]:.2f})"
            for seconds in row["best"]
        ]
        rows.append([row["precision"], *shown])
    columns = ["weights", *(f"{seconds:g} s" for seconds in LINEARITY)]
    title = "best ms, in brackets by that of the first"
    console.print(report.table(title, columns, rows))
    return found


def table(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Every cell, direction and precision through the gate of an export, as Markdown."""
    from exported_network import export

    from speechrnn.runtime import benchmark

    columns = ["cell", "direction", "weights", "operations", "MB", "difference", "real-time factor"]
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|" + "---:|" * (len(columns) - 3))
    rows = []
    for cell, bidirectional, precision in itertools.product(
        options.cells, (False, True), PRECISIONS
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            made = export(_network(options), cell, bidirectional, precision, path)
            cost = benchmark.measure(path, SECONDS, options.rounds)
        row = {
            "cell": cell,
            "direction": "both" if bidirectional else "forward",
            "precision": precision,
            "operations": len(made.operations),
            "size_bytes": made.size_bytes,
            "difference": max(difference.relative for difference in made.differences),
            "real_time_factor": cost.real_time_factor,
        }
        rows.append(row)
        shown = [
            *(str(row[key]) for key in ("cell", "direction", "precision", "operations")),
            f"{made.size_bytes / 1e6:.2f}",
            f"{row['difference']:.0e}",
            f"{cost.real_time_factor:.4f}",
        ]
        print("| " + " | ".join(shown) + " |", flush=True)
    return {"network": dataclasses.asdict(_network(options)), "rows": rows}


def _network(options: argparse.Namespace) -> Network:
    fields = [field.name for field in dataclasses.fields(Network)]
    return Network(**{name: getattr(options, name) for name in fields})


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    for field in dataclasses.fields(Network):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS, help="of --table")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement, at least")
    parser.add_argument("--json", type=Path, metavar="OUT")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--linearity", action="store_true", help="of time in the recording's length")
    mode.add_argument("--table", action="store_true", help="cells, directions and precisions")
    return parser


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    options = arguments().parse_args(given)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    mode = linearity if options.linearity else table if options.table else compare
    found = mode(options, console)
    if "machine" in found:
        console.print(report.machine_line(found["machine"]), markup=False)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
