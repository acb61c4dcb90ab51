"""What an exported model must pass before it is written: it computes what the model computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from speechrnn.errors import ModelError
from speechrnn.evaluation.error_rates import score
from speechrnn.files import write_atomically
from speechrnn.runtime import BaseRecognizer, Endpoint
from speechrnn.training.run import Recording

# Beyond the weights: the graph (of a clockwork network with its many loops 0.5 MB), the mel
# filters, the description, and what int8 leaves in float32.
OVERHEAD_BYTES, OVERHEAD_FRACTION = 600_000, 0.15
BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "int8": 1}  # by precision

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

# How much a form's error rate may differ from the model's: half a point, or two words where that
# is more, as it is with fewer than 400 words.
WER_POINTS, WER_WORDS = 0.005, 2
SCORED_RECORDINGS = 300  # at most, evenly chosen


@dataclass(frozen=True)
class Difference:
    """How far an export's log_probs are from the Keras model's on one waveform."""

    form: str  # whole or streamed
    source: str  # a generated sound, or an utterance's id
    seconds: float
    relative: float  # largest |a - b| / (1 + |b|)
    divergence: float  # Kullback-Leibler, mean nats a frame
    disagreement: float  # fraction of frames with another best label, of those where it is clear


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how it was checked; saved beside it.

    ``wer`` is of the Keras model and of the export on the run's own dev recordings, as far as they
    are still there.
    """

    path: str
    precision: str
    size_bytes: int
    parameters: int
    operations: tuple[str, ...]  # of the graph; empty for a SavedModel, which needs TensorFlow
    differences: tuple[Difference, ...]
    recordings: int = 0
    words: int = 0
    wer: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None  # of a stream at most; None: it does not stream

    def summary(self) -> str:
        """For people, in a few lines."""
        worst = max(self.differences, key=lambda found: found.relative)
        lines = [
            f"{self.size_bytes / 1e6:.2f} MB, {self.parameters:,} parameters in {self.precision}",
            f"largest difference from the model: {worst.relative:.2g} of 1 + |log posterior|, on "
            f"{worst.source} {worst.form}",
        ]
        if self.wer:
            told = ", ".join(f"{form} {wer:.2%}" for form, wer in self.wer.items())
            lines.append(f"word error rate on {self.recordings} dev recordings: {told}")
        else:
            lines.append("the run's dev recordings are gone: no word error rate was compared")
        if self.latency_ms is not None:
            lines.append(f"streams, with up to {self.latency_ms:.0f} ms of latency")
        return "\n".join(lines)


def compare(
    exported: BaseRecognizer, reference: BaseRecognizer, recordings: Sequence[Recording] = ()
) -> tuple[Difference, ...]:
    """Run both on two generated sounds and on a short and a long recording, and the export on them
    again, which must give what it gave before; then piece by piece, where it can.

    Raises:
        ModelError: a second call gives other results, or a result has another shape.
    """
    rate = reference.spec.features.sample_rate
    short, long = (probe(int(seconds * rate), rate) for seconds in PROBE_SECONDS)
    differences = _compared(exported, reference, {"a sound": short, "another sound": long})
    usable = sorted(
        (r for r in recordings if reference.spec.output_frames(len(r.waveform)) > 0),
        key=lambda r: len(r.waveform),
    )
    if usable:
        chosen = {r.utterance_id: r.waveform for r in (usable[0], usable[-1])}
        differences += _compared(exported, reference, chosen)
    return tuple(differences)


def _compared(
    exported: BaseRecognizer, reference: BaseRecognizer, waveforms: dict[str, np.ndarray]
) -> list[Difference]:
    rate = reference.spec.features.sample_rate
    each = list(waveforms.values())
    short, long = each[0], each[-1]
    # Again at once, when nothing is allocated anew, and again after another length.
    found = [exported.log_probs(waveform) for waveform in (short, short, long, long, short)]
    for first, again in ((0, 1), (0, 4), (2, 3)):
        if not np.array_equal(found[first], found[again]):
            raise ModelError("the exported model keeps state: its second call gives other results")
    differences = []
    for name, waveform in waveforms.items():
        expected, about = reference.log_probs(waveform), (name, len(waveform) / rate)
        whole = found[0] if waveform is short else found[2]
        differences.append(_difference("whole", *about, whole, expected))
        if exported.streams:
            differences.append(
                _difference("streamed", *about, _streamed(exported, waveform), expected)
            )
    return differences


def _streamed(recogniser: BaseRecognizer, waveform: np.ndarray) -> np.ndarray:
    """The log_probs of pieces of different lengths."""
    stream = recogniser.stream(Endpoint(*[len(waveform)] * 3))  # longer than the waveform lasts
    for piece in np.split(waveform, range(1_000, len(waveform), 3_700)):
        stream.feed(piece)
    return stream.finish().log_probs


def _difference(
    form: str, source: str, seconds: float, found: np.ndarray, expected: np.ndarray
) -> Difference:
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
        source=source,
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


def error_rates(
    exported: BaseRecognizer, reference: BaseRecognizer, recordings: Sequence[Recording]
) -> dict[str, Any]:
    """The report's fields on real speech: recordings, words, and the word error rate of each."""
    step = -(-len(recordings) // SCORED_RECORDINGS) or 1
    chosen = recordings[::step]
    if not chosen:
        return {}
    wer = {}
    for recogniser in (reference, exported):
        rates = score(
            {r.utterance_id: r.text for r in chosen},
            {r.utterance_id: recogniser.transcribe(r.waveform).text for r in chosen},
            rules=recogniser.spec.alphabet.rules,
        )
        wer[recogniser.kind] = rates.wer
    return {"recordings": len(chosen), "words": rates.words, "wer": wer}


def refuse_unfit(report: ExportReport) -> None:
    """Raise ModelError where the report shows an export that must not reach anyone."""
    for problem in filter(None, (check(report) for check in CHECKS)):
        raise ModelError(f"{report.path} was not written: {problem}")


def save_report(report: ExportReport, out: Path) -> None:
    """Write ``out`` + ``.report.json``."""
    text = json.dumps(asdict(report), indent=1)
    write_atomically(out.with_name(out.name + ".report.json"), f"{text}\n".encode())


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
    if not report.operations or weights <= report.size_bytes <= most:
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


def _other_error_rate(report: ExportReport) -> str | None:
    if len(report.wer) < 2:
        return None
    reference, exported = report.wer.values()
    if abs(exported - reference) <= max(WER_POINTS, WER_WORDS / report.words):
        return None
    return (
        f"its word error rate on {report.recordings} recordings is {exported:.2%}, the model's "
        f"{reference:.2%}"
    )


CHECKS: tuple[Callable[[ExportReport], str | None], ...] = (
    _foreign_operations,
    _unexplained_size,
    _other_results,
    _other_error_rate,
)
