"""What the presets of configs/presets cost: size, speed and memory where they run, and in training.

    python pipelines/benchmarks/presets.py                       about four minutes
    python pipelines/benchmarks/presets.py --only microcontroller
    python pipelines/benchmarks/presets.py --page                measure nothing, write the pages

Weights are untrained: they have the same size and take the same time. Each preset is exported
through the checks of every export and measured by ``speechrnn benchmark`` (10 s of noise, one
thread, fresh processes); before that, training steps are taken on a batch of the recipe's size, of
utterances as long as its corpus has them, on all cores. Every preset has a process of its own. The
results go to pipelines/results/presets.json, the table into docs/presets.md, and what each preset
costs into the head of its recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import busy, described, machine, versions
from process import peak_memory
from rich.console import Console
from rich.progress import Progress

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "configs" / "presets"
RESULTS = REPOSITORY / "pipelines" / "results" / "presets.json"
PAGE = REPOSITORY / "docs" / "presets.md"
PRESETS = ("microcontroller", "raspberry_pi", "server")  # by size
# Seconds of an utterance, as the corpora have them on average: AN4, and LibriSpeech.
UTTERANCE = {"microcontroller": 2.7, "raspberry_pi": 2.7, "server": 12.3}
LETTERS_A_SECOND = 10  # of the transcripts that are trained on
ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
MARKS = ("<!-- measured -->", "<!-- end -->")
HEAD = "# Measured by python pipelines/benchmarks/presets.py"

Found = dict[str, Any]


def measure(preset: str, seconds: float, runs: int) -> Found:
    """One preset in this process: what its training takes, then what its device file does."""
    from speechrnn import model as network
    from speechrnn import recipe
    from speechrnn.export.tflite import export_tflite
    from speechrnn.runtime import benchmark
    from speechrnn.specs import AlphabetSpec, RecogniserSpec, Statistics
    from speechrnn.training import threads

    loaded = recipe.load(RECIPES / f"{preset}.yaml")
    threads.configure(loaded.training.threads)
    dimension = loaded.features.dimension
    spec = RecogniserSpec(
        loaded.features,
        AlphabetSpec(tuple(ALPHABET), loaded.text),
        loaded.model,
        Statistics((0.0,) * dimension, (1.0,) * dimension),
    )
    trained = train(loaded, spec, UTTERANCE[preset], seconds)
    model = network.build(spec, 0)  # in float32, as a run's is for its export
    with tempfile.TemporaryDirectory() as folder:
        sizes, path = {}, Path(folder)
        for precision in ("float32", "int8"):
            made = export_tflite(model, spec, {}, path / f"{precision}.tflite", precision)
            sizes[f"{precision}_bytes"] = made.size_bytes
        cost = benchmark.measure(path / "int8.tflite", runs=runs)
    device = cost.to_dict()
    for name in ("model", "kind", "size_bytes"):
        del device[name]
    return {
        "parameters": made.parameters,
        **sizes,
        "latency_ms": spec.latency_ms,
        "device": device,
        "training": trained,
    }


def train(loaded: Any, spec: Any, utterance: float, seconds: float) -> Found:
    """The best of the steps that the network takes in ``seconds``."""
    import numpy as np

    from speechrnn import model as network
    from speechrnn.training.recogniser import RecogniserLearner

    built = network.build(spec, 0, loaded.training.precision)
    learner = RecogniserLearner(built, spec, loaded)
    rows = max(1, round(loaded.data.batch_seconds / utterance))
    frames = spec.features.frames(int(utterance * spec.features.sample_rate))
    rng = np.random.default_rng(0)
    letters = rng.integers(1, spec.alphabet.size, [rows, int(LETTERS_A_SECOND * utterance)])
    batch = {
        "features": rng.normal(size=[rows, frames, spec.features.dimension]).astype(np.float32),
        "frames": np.full(rows, frames, np.int32),
        "labels": letters.astype(np.int32),
    }
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:  # the first one traces the graph
        started = time.perf_counter()
        learner.step(batch, 1e-6)[0].numpy()
        times.append(time.perf_counter() - started)
    return {
        "batch_seconds": rows * utterance,
        "utterance_seconds": utterance,
        "precision": loaded.training.precision,
        "step_s": min(times[1:]),
        "audio_seconds_per_second": rows * utterance / min(times[1:]),
        "peak_rss_bytes": peak_memory(),
    }


def of_kind(loaded: Any) -> str:
    """The network of a recipe in a few words."""
    model, features = loaded.model, loaded.features
    way = "bidirectional" if model.bidirectional else "one-way"
    stride = model.time_stride * features.hop_ms
    layers = f"{model.layers} {way} {model.cell.upper()}({model.units})"
    return f"{layers}, a frame for every {stride:g} ms"


def table(results: Found) -> str:
    """The presets side by side, in Markdown, and how they were measured."""
    from speechrnn import recipe

    rows: dict[str, list[str]] = {"recipe": [], "network": []}
    for name, each in results.items():
        rows["recipe"].append(f"[`{name}`](../configs/presets/{name}.yaml)")
        rows["network"].append(of_kind(recipe.load(RECIPES / f"{name}.yaml")))
        for label, shown in _cells(each).items():
            rows.setdefault(label, []).append(shown)
    head, *body = ([label, *cells] for label, cells in rows.items())
    rule = ["---", *["---:"] * len(results)]
    lines = ["| " + " | ".join(line) + " |" for line in (["", *head[1:]], rule, *body)]
    where = sorted({described(each["machine"], each["versions"]) for each in results.values()})
    load = max(each["load"] for each in results.values())
    return "\n".join([*lines, "", f"Measured on: {' And on: '.join(where)} {busy(load)}".strip()])


def _cells(each: Found) -> dict[str, str]:
    device, training = each["device"], each["training"]
    latency, piece = each["latency_ms"], device["piece_s"]
    return {
        "parameters": f"{each['parameters'] / 1e6:.2f} M",
        "`.tflite` in int8": f"{each['int8_bytes'] / 1e6:.2f} MB",
        "`.tflite` in float32": f"{each['float32_bytes'] / 1e6:.2f} MB",
        "multiply-adds for a second of audio": f"{device['multiply_adds_per_second'] / 1e6:.0f} M",
        "waits at most, as a stream": f"{latency:.0f} ms" if latency else "does not stream",
        "load, from a fresh process": f"{device['load_s']:.2f} s",
        "real-time factor, int8, one thread": f"{device['real_time_factor']:.5f}",
        "a piece of 320 ms of a stream": f"{1e3 * piece:.2f} ms" if piece else "-",
        "memory of the process, 10 s of audio": f"{device['peak_rss_bytes'] / 1e6:.0f} MB",
        "training: seconds of audio a second": f"{training['audio_seconds_per_second']:.0f}",
        "training: batch, products in": f"{training['batch_seconds']:.0f} s, "
        f"{training['precision']}",
        "training: memory of the process": f"{training['peak_rss_bytes'] / 1e9:.1f} GB",
    }


def head(each: Found) -> list[str]:
    """What the head of a recipe says of it."""
    device, latency = each["device"], each["latency_ms"]
    waits = f"waits {latency:.0f} ms at most" if latency else "does not stream"
    beside = " (a busy machine's)" if busy(each["load"]) else ""
    work = f"{device['multiply_adds_per_second'] / 1e6:.0f} M multiply-adds for a second of audio"
    size = f"{each['int8_bytes'] / 1e6:.2f} MB in int8"
    return [
        f"#   {each['parameters'] / 1e6:.2f} M parameters, {size}, {work};",
        f"#   {device['peak_rss_bytes'] / 1e6:.0f} MB of memory, real-time factor "
        f"{device['real_time_factor']:.4f} on one thread{beside}; {waits}",
    ]


def write_pages(results: Found) -> None:
    """The table into docs/presets.md, the heads into the recipes."""
    from speechrnn.files import write_atomically

    start, end = MARKS
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(start)
    page = f"{before}{start}\n{table(results)}\n{end}{rest.split(end)[1]}"
    write_atomically(PAGE, page.encode())
    said = re.compile(rf"^({re.escape(HEAD)}.*\n)(?:#   .*\n)*", re.M)
    for name, each in results.items():
        path = RECIPES / f"{name}.yaml"
        told = "\n".join(head(each))
        recipe = said.sub(rf"\g<1>{told}\n", path.read_text(encoding="utf-8"))
        write_atomically(path, recipe.encode())


def save(results: Found) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def collect(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Measure ``names``, each in a process of its own; others keep what was found before."""
    conditions = {"machine": machine(), "versions": versions(), "load": os.getloadavg()[0]}
    found: Found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": path}
    told = ["--seconds", str(arguments.seconds), "--runs", str(arguments.runs)]
    with Progress(console=Console(stderr=True)) as progress:
        for name in progress.track(names, description="presets"):
            command = [sys.executable, __file__, "--measure", name, *told]
            made = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            found[name] = {**conditions, **json.loads(made.stdout.splitlines()[-1])}
            save({each: found[each] for each in PRESETS if each in found})


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PRESETS, action="append", help="this one; repeatable")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training steps")
    parser.add_argument("--runs", type=int, default=15, help="rounds of `speechrnn benchmark`")
    parser.add_argument("--page", action="store_true", help="write the pages from what is known")
    parser.add_argument("--measure", choices=PRESETS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.seconds, arguments.runs)))
        return
    if not arguments.page:
        collect(arguments.only or PRESETS, arguments)
    write_pages(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
