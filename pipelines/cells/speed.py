"""What a row costs in time: training steps and the device file, measured in turn on one thread.

Processor time, best of the rounds: of a machine that has other work to do, a round with little of
it is found, and all rows are measured in the same minutes, so that their ratios hold.
"""

from __future__ import annotations

import itertools
import json
import platform
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cells.comparison import Comparison
from cells.rows import SEEDS, TRAINING, Job, Row
from speechrnn import model as network
from speechrnn.data.dataset import TRAIN, Batches
from speechrnn.export.tflite import export_tflite
from speechrnn.files import write_atomically
from speechrnn.runtime import Recognizer
from speechrnn.runtime.operations import multiply_adds
from speechrnn.specs import RecogniserSpec
from speechrnn.training import threads
from speechrnn.training.recogniser import RecogniserLearner

ROUNDS = 5
STEPS = 4  # of training, on the same batches for every row
CLIP_SECONDS = 10.0  # of noise, for the device file

console = Console(stderr=True, soft_wrap=True)


def write(comparison: Comparison, rows: Sequence[Row], path: Path) -> None:
    """Measure all rows and write the file that the table takes seconds from."""
    threads.configure(1)
    measured = measure(comparison, rows)
    content = {
        "settings": comparison.settings,
        "machine": machine(),
        "rounds": ROUNDS,
        "rows": measured,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{json.dumps(content, indent=1)}\n".encode())


def measure(comparison: Comparison, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each row its size, and what it does in a second of processor time."""
    found, training, device = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        batches, audio = _batches(comparison)
        for row in rows:
            spec = comparison.sized(row)
            console.print(f"{row.cell}, {row.directions}-way: {spec.model.units} units")
            file = Path(folder) / f"{row.cell}-{row.directions}.tflite"
            training.append(_training(comparison, row, spec, batches))
            device.append(_device(spec, file))
            found.append(
                {
                    "cell": row.cell,
                    "directions": row.directions,
                    "units": spec.model.units,
                    "multiply_adds_per_second": multiply_adds(spec),
                    "int8_bytes": file.stat().st_size,
                }
            )
        train_seconds, device_seconds = best_of(training), best_of(device)
    for line, step, run in zip(found, train_seconds, device_seconds, strict=True):
        line["trained_audio_seconds_per_second"] = round(audio / step, 2)
        line["real_time_factor"] = float(f"{run / CLIP_SECONDS:.4g}")
    return found


def best_of(actions: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """The least processor time, seconds, that each took in ``rounds`` rounds of all of them."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for i, action in enumerate(actions):
            began = time.process_time()
            action()
            best[i] = min(best[i], time.process_time() - began)
    return best


def _batches(comparison: Comparison) -> tuple[list[dict[str, Any]], float]:
    """Batches of an epoch that is not sorted by length, and the seconds of audio in them."""
    recipe, index = comparison.recipe, comparison.index
    source = Batches(recipe, comparison.spec(Row("lstm", "two")), index, TRAIN)
    # Made and kept: augmentation and features are the same for every row.
    batches = list(itertools.islice(source.epochs(1, 2), STEPS))
    return batches, sum(source.amount(batch) for batch in batches)


def _training(
    comparison: Comparison, row: Row, spec: RecogniserSpec, batches: list[dict[str, Any]]
) -> Callable[[], object]:
    job = Job(TRAINING, row.cell, row.directions, SEEDS[0], 1e-5)
    recipe = comparison.recipe_of(job, spec.model.units, comparison.output)
    model = network.build(spec, recipe.seed, recipe.training.precision)
    learner = RecogniserLearner(model, spec, recipe)

    def steps() -> None:
        for batch in batches:
            learner.step(batch, job.learning_rate)[0].numpy()

    steps()  # graphs are traced
    return steps


def _device(spec: RecogniserSpec, file: Path) -> Callable[[], object]:
    """Fresh weights: what they are changes neither the size nor the time."""
    model = network.build(spec, seed=1)
    export_tflite(model, spec, {"name": file.stem}, file, "int8")
    recogniser = Recognizer(file, reject=False, decoder=None)
    samples = int(CLIP_SECONDS * spec.features.sample_rate)
    clip = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    recogniser.log_probs(clip)
    return lambda: recogniser.log_probs(clip)


def machine() -> str:
    """The processor's name, as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
