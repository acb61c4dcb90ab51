"""A trained model -> one file for the device, let through only if it does what the model does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from speechrnn.errors import ModelError, UsageError
from speechrnn.export.convert import convert
from speechrnn.export.lowering import LoweredRecogniser
from speechrnn.files import write_atomically
from speechrnn.runtime import BaseRecognizer, Endpoint, Recognizer, container
from speechrnn.runtime.tensorflow import KerasRecognizer
from speechrnn.specs import RecogniserSpec

BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "int8": 1}  # by precision
# Beyond the weights: the graph (of a clockwork network with its many loops 0.5 MB), the mel
# filters, the description, and what int8 leaves in float32.
OVERHEAD_BYTES, OVERHEAD_FRACTION = 600_000, 0.15

# Of Difference's relative, divergence and disagreement. Measured for 3 x BiLSTM(256) with weights
# 2.5 times their initial size: 6e-6, 1e-8, 0 in float32; 0.01, 1e-5, 0 in float16; 0.2, 0.007, 0 in
# int8. With a forget bias, a gate or a filterbank wrong, the divergence is tenths and more.
LIMITS = {
    "float32": (1e-4, 1e-5, 0.0),
    "float16": (0.1, 1e-3, 0.01),
    "int8": (2.0, 0.05, 0.05),
}
PROBE_SECONDS = (1.07, 2.93)  # two lengths, neither a multiple of a hop or a block
CLEAR_MARGIN = 0.1  # of the best posterior over the second: below, which is best means little


@dataclass(frozen=True)
class Difference:
    """How far the file's log_probs are from the Keras model's on one waveform."""

    form: str  # whole or streamed
    seconds: float
    relative: float  # largest |a - b| / (1 + |b|)
    divergence: float  # Kullback-Leibler, mean nats a frame
    disagreement: float  # fraction of frames with another best label, of those where it is clear


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how it was checked; saved beside the file."""

    path: str
    precision: str
    size_bytes: int
    parameters: int
    operations: tuple[str, ...]
    differences: tuple[Difference, ...]


def export_tflite(
    model: keras.Model,
    spec: RecogniserSpec,
    card: dict[str, Any],
    out: str | Path,
    precision: str = "int8",
) -> ExportReport:
    """Write ``out``, which ``runtime.Recognizer`` reads, and ``out`` + ``.report.json``.

    ``precision`` is that of the weights: float32, float16 or int8; what is computed with them
    is float32. The file appears under its name only when it has passed every check.

    Raises:
        UsageError: another precision.
        ModelError: the conversion failed, or its result needs operations that a device lacks,
            has another size than its weights explain, or computes something else.
    """
    if precision not in BYTES_PER_WEIGHT:
        raise UsageError(f"precision is {precision!r}; choose {', '.join(BYTES_PER_WEIGHT)}")
    out = Path(out)
    with tempfile.TemporaryDirectory() as folder:
        flatbuffer = _convert(model, spec, Path(folder), precision)
        content = container.pack(flatbuffer, spec, {**card, "precision": precision})
        candidate = Path(folder) / "candidate.tflite"
        candidate.write_bytes(content)
        report = ExportReport(
            path=str(out),
            precision=precision,
            size_bytes=len(content),
            parameters=sum(int(np.prod(w.shape)) for w in model.trainable_variables),
            operations=operations(flatbuffer),
            differences=compare(Recognizer(candidate), KerasRecognizer(model, spec, card)),
        )
    refuse_unfit(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    text = json.dumps(asdict(report), indent=1)
    write_atomically(out.with_name(out.name + ".report.json"), text.encode())
    return report


def _convert(model: keras.Model, spec: RecogniserSpec, folder: Path, precision: str) -> bytes:
    lowered = LoweredRecogniser(model, spec, precision)
    saved = folder / "saved_model"
    signatures = {"transcribe": lowered.transcribe, "features": lowered.features}
    if spec.streams:
        signatures["step"] = lowered.step()
    tf.saved_model.save(lowered, str(saved), signatures=signatures)
    return convert(saved, precision)


def operations(flatbuffer: bytes) -> tuple[str, ...]:
    """The names of the operations in a TFLite flatbuffer, sorted; custom ones by their own name."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAs(flatbuffer, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    return tuple(
        sorted(
            code.CustomCode().decode()
            if code.BuiltinCode() == schema.BuiltinOperator.CUSTOM
            else names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            for code in codes
        )
    )


def compare(exported: BaseRecognizer, reference: BaseRecognizer) -> tuple[Difference, ...]:
    """Run both on two lengths, and the file on them again, which must give what it gave before;
    then piece by piece, where the model can."""
    rate = reference.spec.features.sample_rate
    waveforms = [probe(int(seconds * rate), rate) for seconds in PROBE_SECONDS]
    # Again at once, when nothing is allocated anew, and again after another length.
    short, long = waveforms
    found = [exported.log_probs(waveform) for waveform in (short, short, long, long, short)]
    for first, again in ((0, 1), (0, 4), (2, 3)):
        if not np.array_equal(found[first], found[again]):
            raise ModelError("the exported model keeps state: its second call gives other results")
    differences = [
        _difference("whole", len(waveform) / rate, log_probs, reference.log_probs(waveform))
        for waveform, log_probs in ((short, found[0]), (long, found[2]))
    ]
    if exported.spec.streams:
        for waveform in waveforms:
            expected = reference.log_probs(waveform)
            streamed = _streamed(exported, waveform)
            differences.append(_difference("streamed", len(waveform) / rate, streamed, expected))
    return tuple(differences)


def _streamed(recogniser: BaseRecognizer, waveform: np.ndarray) -> np.ndarray:
    """The log_probs of pieces of different lengths."""
    stream = recogniser.stream(Endpoint(*[len(waveform)] * 3))  # longer than the waveform lasts
    for piece in np.split(waveform, range(1_000, len(waveform), 3_700)):
        stream.feed(piece)
    return stream.finish().log_probs


def _difference(form: str, seconds: float, found: np.ndarray, expected: np.ndarray) -> Difference:
    if found.shape != expected.shape:
        raise ModelError(
            f"the exported model gives {found.shape} for {seconds} s {form}; {expected.shape} is "
            "needed"
        )
    posteriors = np.exp(expected)
    second, first = np.sort(posteriors, axis=1)[:, -2:].T
    other = (found.argmax(axis=1) != expected.argmax(axis=1)) & (first - second > CLEAR_MARGIN)
    return Difference(
        form=form,
        seconds=seconds,
        relative=float((np.abs(found - expected) / (1 + np.abs(expected))).max()),
        divergence=float(np.sum(posteriors * (expected - found), axis=1).mean()),
        disagreement=float(other.mean()),
    )


def probe(samples: int, sample_rate: int) -> np.ndarray:
    """(samples,) float32: harmonics of a gliding voice, noise, and pauses; the same every time."""
    time = np.arange(samples) / sample_rate
    phase = 2 * np.pi * (140 * time + 15 * np.sin(2 * np.pi * 0.7 * time))
    formant = 1500 + 1000 * np.sin(2 * np.pi * 1.3 * time)
    voice = sum(
        np.exp(-(((140 * k - formant) / 800) ** 2)) * np.sin(k * phase) for k in range(1, 25)
    )
    noise = np.random.default_rng(0).normal(0, 0.2, samples)
    envelope = np.maximum(0, np.sin(2 * np.pi * 1.9 * time))
    return (0.1 * envelope * (voice + noise) + 0.01 * noise).astype(np.float32)


def refuse_unfit(report: ExportReport) -> None:
    """Raise ModelError where the report shows a file that must not reach a device."""
    for problem in filter(None, (check(report) for check in CHECKS)):
        raise ModelError(f"{report.path} was not written: {problem}")


def _foreign_operations(report: ExportReport) -> str | None:
    builtin = vars(schema.BuiltinOperator)
    foreign = [
        name
        for name in report.operations
        if name not in builtin or "VAR" in name.split("_") or name.endswith("_VARIABLE")
    ]
    return f"it needs {', '.join(foreign)}, which device runtimes lack" if foreign else None


def _unexplained_size(report: ExportReport) -> str | None:
    weights = report.parameters * BYTES_PER_WEIGHT[report.precision]
    most = round(weights * (1 + OVERHEAD_FRACTION)) + OVERHEAD_BYTES
    if weights <= report.size_bytes <= most:
        return None
    return (
        f"it has {report.size_bytes} bytes, where {report.parameters} weights in "
        f"{report.precision} explain {weights} to {most}"
    )


def _other_results(report: ExportReport) -> str | None:
    limits = LIMITS[report.precision]
    for found in report.differences:
        # Not ``>``: a NaN must fail too.
        if not all(
            value <= limit
            for value, limit in zip(
                (found.relative, found.divergence, found.disagreement), limits, strict=True
            )
        ):
            return f"its results are not the model's: {found}, limits {limits}"
    return None


CHECKS: tuple[Callable[[ExportReport], str | None], ...] = (
    _foreign_operations,
    _unexplained_size,
    _other_results,
)
