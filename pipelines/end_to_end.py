"""What the pipelines share: a recipe is trained, exported, scored in every form, and tried."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from speechrnn import corpora
from speechrnn.data.prepare import prepare
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.evaluation.transcripts import given
from speechrnn.export.savedmodel import export_savedmodel
from speechrnn.export.tflite import export_tflite
from speechrnn.recipe import Recipe
from speechrnn.runtime import open_model
from speechrnn.runtime.benchmark import measure
from speechrnn.training import run, threads, train

console = Console(stderr=True, soft_wrap=True)


def train_and_export(recipe: Recipe) -> dict[str, Path]:
    """Recipe -> its trained forms by name: run, savedmodel, float32 and int8 ``.tflite``."""
    started = time.perf_counter()
    threads.configure(recipe.training.threads)
    console.rule(f"1. Prepare {recipe.data.manifest}")
    prepare(recipe)
    console.rule("2. Train")
    train(recipe)
    console.print(f"trained after {time.perf_counter() - started:.0f} s")
    console.rule("3. Export")
    trained = run.load(recipe.output)
    forms = {
        "run": recipe.output,
        "savedmodel": recipe.output / "savedmodel",
        "float32": recipe.output / f"{recipe.name}-float32.tflite",
        "int8": recipe.output / f"{recipe.name}-int8.tflite",
    }
    model, recordings = (
        (trained.model, trained.spec, trained.card),
        run.dev_recordings(recipe.output),
    )
    forms["savedmodel"] = Path(
        export_savedmodel(*model, forms["savedmodel"], recordings=recordings).path
    )
    for precision in ("float32", "int8"):
        export_tflite(*model, forms[precision], precision, recordings=recordings)
    return forms


def score(recipe: Recipe, forms: dict[str, Path], split: str, show: int = 3) -> dict[str, Any]:
    """Score every form on a split and transcribe a few of its clips with the int8 file.

    Returns the summary, which ``write_summary`` saves.
    """
    console.rule(f"4. Score on the {split} split")
    listed = corpora.read(recipe.data.manifest, recipe.data.dev_fraction)
    utterances = [u for u in listed if u.split == split]
    results = {name: evaluate(open_model(path), utterances) for name, path in forms.items()}
    for name, result in results.items():
        low, high = result.rates.wer_ci95
        console.print(
            f"{name:11} WER {result.rates.wer:6.2%} ({low:.1%} to {high:.1%})  "
            f"CER {result.rates.cer:6.2%}  real-time factor {result.real_time_factor:.4f}"
        )
    console.rule(f"5. Transcribe {show} clips with {forms['int8']}")
    device = open_model(forms["int8"])
    for utterance in utterances[:: max(1, len(utterances) // show)][:show]:
        console.print(f"{utterance.utterance_id}\n  said   {utterance.text}")
        console.print(f"  heard  {device.transcribe(given(utterance, device)).text}")
    int8 = results["int8"].rates
    summary = {
        "name": recipe.name,
        "split": split,
        "manifest": str(recipe.data.manifest),
        "wer": int8.wer,
        "cer": int8.cer,
        "wer_ci95": list(int8.wer_ci95),
        "utterances": int8.utterances,
        "words": int8.words,
        "tflite_path": str(forms["int8"]),
        "tflite_bytes": forms["int8"].stat().st_size,
        "savedmodel_path": str(forms["savedmodel"]),
        "real_time_factor": measure(forms["int8"]).real_time_factor,
        "wer_by_form": {name: result.rates.wer for name, result in results.items()},
        "not_transcribed": len(results["int8"].failures),
    }
    return summary


def write_summary(recipe: Recipe, summary: dict[str, Any]) -> Path:
    """``output/summary.json``."""
    path = recipe.output / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    console.print(f"summary: {path}")
    return path
