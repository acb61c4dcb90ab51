"""One training of the comparison, in a process of its own: from its recipe to a line of results."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
from trainings.rates import by_speaker

from cells import reach
from cells.rows import TRIAL, Job
from speechrnn import recipe as recipes
from speechrnn.data.dataset import DEV, Batches
from speechrnn.data.index import Index
from speechrnn.errors import ModelError, TrainingDiverged
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.export.tflite import export_tflite
from speechrnn.files import write_atomically
from speechrnn.recipe import Recipe
from speechrnn.runtime.operations import multiply_adds
from speechrnn.runtime.tensorflow import KerasRecognizer
from speechrnn.training import checkpoint, run, threads, train
from speechrnn.training.display import history
from speechrnn.training.run import Recording

RECIPE, JOB, LINE = "recipe.yaml", "job.json", "line.json"  # in a training's folder


@dataclass(frozen=True)
class Order:
    """What the parent has a process do."""

    job: Job
    settings: str
    export: bool  # to a device file, too: one seed of a row shows that it can be

    def write(self, folder: Path, recipe: Recipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, recipe.to_yaml().encode())
        write_atomically(folder / JOB, json.dumps(asdict(self)).encode())

    @staticmethod
    def read(folder: Path) -> Order:
        found = json.loads((folder / JOB).read_bytes())
        return Order(Job(**found.pop("job")), **found)


def finished(folder: Path, job: Job, settings: str) -> dict[str, Any] | None:
    """The line of a training that ended, for the results; None where it has not."""
    path = folder / LINE
    line = json.loads(path.read_bytes()) if path.exists() else None
    return line if line and line["settings"] == settings and job.is_told_by(line) else None


def train_one(folder: Path) -> dict[str, Any]:
    """Train what the folder's order says, from its checkpoint where there is one, and write its
    line."""
    order, recipe = Order.read(folder), recipes.load(folder / RECIPE)
    threads.configure(recipe.training.threads)
    line = {**asdict(order.job), "settings": order.settings, "units": recipe.model.units}
    try:
        train(recipe)
        line |= _trained(recipe)
        if order.job.kind != TRIAL:
            line |= _scored(recipe, order.export)
    except TrainingDiverged:
        if order.job.kind != TRIAL:
            raise
        line |= {"dev_loss": None}  # a rate that is not to be taken
    write_atomically(folder / LINE, json.dumps(line).encode())
    return line


def _trained(recipe: Recipe) -> dict[str, Any]:
    """What the run's history tells."""
    validations = history(recipe.output)
    last, best = validations[-1], min(validations, key=lambda v: (v["wer"], v["dev_loss"]))
    return {
        "epochs": last["epoch"] + 1,
        "dev_loss": last["dev_loss"] if math.isfinite(last["dev_loss"]) else None,
        "best_epoch": best["epoch"] + 1,
        "best_wer": round(best["wer"], 5),
        "curve": [[v["epoch"] + 1, round(v["wer"], 4)] for v in validations],
        "training_seconds": round(last["training_seconds"], 1),
        "audio_seconds_per_second": round(
            statistics.median(v["audio_seconds_per_second"] for v in validations), 1
        ),
    }


def last_model(recipe: Recipe) -> tuple[keras.Model, run.Trained]:
    """The network with the weights of the last epoch, averaged where the recipe says so, and what
    the run kept. The run keeps the best epoch on dev, which would flatter what is scored there."""
    kept = run.load(recipe.output)
    found = checkpoint.load_newest(recipe.output / "checkpoints")
    groups = found[0] if found else {}
    model = kept.model
    if groups.get("average"):
        pairs = zip(model.trainable_variables, groups["average"], strict=True)
    else:
        pairs = zip(model.variables, groups["model"], strict=True)
    for variable, value in pairs:
        variable.assign(value)
    return model, kept


def _scored(recipe: Recipe, export: bool) -> dict[str, Any]:
    """The last epoch's model on the dev split: error rates, gradients, and its device file."""
    model, kept = last_model(recipe)
    recordings = run.dev_recordings(recipe.output)
    rates = scores(KerasRecognizer(model, kept.spec, kept.card), recordings)
    dev = Batches(recipe, kept.spec, Index.load(recipe.prepared), DEV)
    profile = reach.profile(model, reach.longest(dev.plain()))
    found = {
        "parameters": kept.card["parameters"],
        "multiply_adds_per_second": multiply_adds(kept.spec),
        "wer": rates.wer,
        "cer": rates.cer,
        "wer_ci95": list(rates.wer_ci95),
        "by_speaker": by_speaker(rates),
        "latency_ms": kept.spec.latency_ms,
        "frame_ms": 1000 * kept.spec.seconds_per_output_frame,
        "gradient_back": _rounded(profile.back),
        "gradient_ahead": _rounded(profile.ahead),
    }
    if export:
        found |= _exported(model, kept, rates, recordings, recipe.output.parent / "int8.tflite")
    return found


def _exported(
    model: keras.Model,
    kept: run.Trained,
    rates: ErrorRates,
    recordings: Sequence[Recording],
    out: Path,
) -> dict[str, Any]:
    """What the device file is like, or why there is none: that is a result, too."""
    card = {**kept.card, "dev": rates.summary()}
    try:
        report = export_tflite(model, kept.spec, card, out, "int8", recordings=recordings)
    except ModelError as error:
        return {"not_exported": str(error)}
    return {"int8_bytes": report.size_bytes, "int8_wer": report.wer.get("tflite")}


def scores(recogniser: KerasRecognizer, recordings: Sequence[Recording]) -> ErrorRates:
    """Greedy decoding of recordings -> error rates, whose interval is over speakers."""
    heard = {r.utterance_id: recogniser.transcribe(r.waveform).text for r in recordings}
    return score(
        {r.utterance_id: r.text for r in recordings},
        heard,
        groups={r.utterance_id: r.speaker for r in recordings if r.speaker},
        rules=recogniser.spec.alphabet.rules,
    )


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.3g}") for value in values]
