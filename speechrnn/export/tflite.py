"""A trained model -> one file for the device, let through only if it does what the model does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn.errors import ScoringError, UsageError
from speechrnn.evaluation.rejection import tune
from speechrnn.export.convert import convert
from speechrnn.export.fused import without_clipping
from speechrnn.export.gate import (
    BYTES_PER_WEIGHT,
    ExportReport,
    compare,
    error_rates,
    refuse_unfit,
    save_report,
)
from speechrnn.export.habits import habits
from speechrnn.export.lowering import LOWERINGS, LoweredRecogniser
from speechrnn.files import write_atomically
from speechrnn.runtime import Recognizer, container
from speechrnn.runtime.operations import operation_names
from speechrnn.runtime.tensorflow import KerasRecognizer
from speechrnn.specs import RecogniserSpec
from speechrnn.training.run import Recording

NOISE_MINUTES = 10.0  # heard to tell how much of it is taken for speech
# So many of the dev recordings' words must be right, in number and as a part of all: a model that
# hears fewer doubts speech too, which would be dropped.
LEAST_WORDS_RIGHT, LEAST_RIGHT = 100, 0.5


def export_tflite(
    model: keras.Model,
    spec: RecogniserSpec,
    card: dict[str, Any],
    out: str | Path,
    precision: str = "int8",
    *,
    recordings: Sequence[Recording] = (),
    lowering: str = "nested",
) -> ExportReport:
    """Write ``out``, which ``runtime.Recognizer`` reads, and ``out`` + ``.report.json``.

    ``precision`` is that of the weights: float32, float16 or int8; what is computed with them
    is float32. ``lowering`` is ``LoweredRecogniser``'s: fused files do not stream. The file appears
    under its name only when it has passed every check, on ``recordings`` too, which
    ``training.run.dev_recordings`` gives. Those also say how unsure the model may be before what it
    hears is taken for noise (``evaluation.rejection``), where its symbols lie in time and how sure
    its words are (``export.habits``), which the file's card then holds.

    Raises:
        UsageError: another precision or lowering, or ``fused`` of a cell other than lstm.
        ModelError: the conversion failed, or its result needs operations that a device lacks,
            has another size than its weights explain, or computes something else.
    """
    if precision not in BYTES_PER_WEIGHT:
        raise UsageError(f"precision is {precision!r}; choose {', '.join(BYTES_PER_WEIGHT)}")
    if lowering not in LOWERINGS:
        raise UsageError(f"lowering is {lowering!r}; choose {', '.join(LOWERINGS)}")
    out = Path(out)
    with tempfile.TemporaryDirectory() as folder:
        flatbuffer = _convert(model, spec, Path(folder), precision, lowering)
        card = {**card, "precision": precision, "lowering": lowering}
        content = container.pack(flatbuffer, spec, card)
        candidate = Path(folder) / "candidate.tflite"
        candidate.write_bytes(content)
        exported = Recognizer(candidate, decoder=None)
        reference = KerasRecognizer(model, spec, card)
        entries = {**_rejection(exported, recordings), **habits(exported, recordings)}
        if entries:
            content = container.with_card(candidate, **entries)
        report = ExportReport(
            path=str(out),
            precision=precision,
            size_bytes=len(content),
            parameters=sum(int(np.prod(w.shape)) for w in model.trainable_variables),
            operations=tuple(sorted(operation_names(flatbuffer))),
            differences=compare(exported, reference, recordings),
            latency_ms=spec.latency_ms if exported.streams else None,
            **error_rates(exported, reference, recordings),
        )
    refuse_unfit(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    save_report(report, out)
    return report


def _rejection(exported: Recognizer, recordings: Sequence[Recording]) -> dict[str, Any]:
    """The card's entry of what is taken for noise, where that can be told."""
    try:
        rejection = tune(exported, [(r.waveform, r.text) for r in recordings], NOISE_MINUTES)
    except ScoringError:  # no recordings, or a model that hears no word of them
        return {}
    words = sum(len(recording.text.split()) for recording in recordings)
    if rejection.dev_words_right < max(LEAST_WORDS_RIGHT, LEAST_RIGHT * words):
        return {}
    return {"rejection": rejection.to_dict()}


def _convert(
    model: keras.Model, spec: RecogniserSpec, folder: Path, precision: str, lowering: str
) -> bytes:
    lowered = LoweredRecogniser(model, spec, precision, lowering)
    saved = folder / "saved_model"
    signatures = {"transcribe": lowered.transcribe, "features": lowered.features}
    if spec.streams and lowering == "nested":
        signatures["step"] = lowered.step()
    tf.saved_model.save(lowered, str(saved), signatures=signatures)
    flatbuffer = convert(saved, precision)
    return without_clipping(flatbuffer) if lowering == "fused" else flatbuffer
