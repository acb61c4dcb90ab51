"""A trained model -> a SavedModel that turns waveforms into text without speechrnn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn.errors import UsageError
from speechrnn.export.gate import (
    ExportReport,
    compare,
    error_rates,
    refuse_unfit,
    save_report,
)
from speechrnn.export.habits import habits
from speechrnn.files import sha256_of, write_atomically
from speechrnn.runtime import container, latest_version
from speechrnn.runtime.tensorflow import (
    CHECKSUMS,
    DESCRIPTION,
    KerasRecognizer,
    SavedModelRecognizer,
    posteriors,
)
from speechrnn.specs import AlphabetSpec, RecogniserSpec
from speechrnn.text import BLANK
from speechrnn.training.run import Recording


def export_savedmodel(
    model: keras.Model,
    spec: RecogniserSpec,
    card: dict[str, Any],
    out: str | Path,
    recordings: Sequence[Recording] = (),
) -> ExportReport:
    """Write ``out``/1, or the number after the highest there, and its report beside it; see
    ``service``.

    A folder of numbered versions is what TensorFlow Serving watches; it serves the highest. Beside
    the graph a version holds the model's description and the sha256 of every file, both in
    ``assets.extra``, where TensorFlow leaves other people's files alone. It appears under its name
    only when it has passed the checks of ``gate``, on ``recordings`` too.

    Raises:
        UsageError: ``out`` exists and is something else.
        ModelError: it computes something else than the model.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and latest_version(out) is None):
        raise UsageError(
            f"{out} exists and holds no versions of a SavedModel; name another folder or remove it"
        )
    version = out / str((latest_version(out) or 0) + 1)
    temporary = out / f".{version.name}.{os.getpid()}"
    out.mkdir(parents=True, exist_ok=True)
    try:
        module = service(model, spec)
        tf.saved_model.save(module, str(temporary), signatures=module.serve)
        reference = KerasRecognizer(model, spec, card)
        describe(temporary, spec, {**card, **habits(reference, recordings)})
        exported = SavedModelRecognizer(temporary)
        report = ExportReport(
            path=str(version),
            precision="float32",
            size_bytes=sum(p.stat().st_size for p in temporary.rglob("*") if p.is_file()),
            parameters=sum(int(np.prod(w.shape)) for w in model.trainable_variables),
            operations=(),
            differences=compare(exported, reference, recordings),
            **error_rates(exported, reference, recordings),
        )
        refuse_unfit(report)
        temporary.rename(version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    save_report(report, version)
    return report


def describe(folder: Path, spec: RecogniserSpec, card: dict[str, Any]) -> None:
    """Put description and checksums into a SavedModel."""
    (folder / DESCRIPTION).parent.mkdir()
    write_atomically(folder / DESCRIPTION, container.describe(spec, card))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = (f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_atomically(folder / CHECKSUMS, "".join(sums).encode())


def service(model: keras.Model, spec: RecogniserSpec) -> tf.Module:
    """A module whose function ``serve`` becomes the signature ``serving_default``.

    waveform (batch, samples) float32 in [-1, 1] at the model's sample rate, lengths (batch,)
    int32 valid samples of each row ->

        text        (batch,) string, UTF-8
        tokens      (batch, most tokens) int32 labels, 0 behind a row's end
        confidence  (batch,) float32: mean probability of the tokens
        log_probs   (batch, frames, alphabet size) float32
        frames      (batch,) int32 valid frames of log_probs

    A row gives what it gives alone; one shorter than a window gives the empty text.
    ``decoding.greedy`` is the definition of text, tokens and confidence.
    """

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32, "waveform"),
            tf.TensorSpec([None], tf.int32, "lengths"),
        ]
    )
    def serve(waveform: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        log_probs, frames = posteriors(model, spec, waveform, lengths)
        labels, probabilities = greedy(log_probs, frames)
        return {
            "text": text(labels, spec.alphabet),
            "tokens": labels.to_tensor(BLANK),
            "confidence": confidence(probabilities, log_probs, frames),
            "log_probs": log_probs,
            "frames": frames,
        }

    module = tf.Module()
    module.serve = serve
    # The variables, not the Keras model: that would bring functions of its own along.
    module.weights = [weight.value for weight in model.weights]
    return module


def greedy(log_probs: tf.Tensor, frames: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """(batch, frames, labels) -> labels and probabilities of each row's tokens, both ragged.

    A token is a run of frames with the same best label, blanks left out; its probability is the
    largest within the run.
    """
    valid = tf.sequence_mask(frames, tf.shape(log_probs)[1])
    best = tf.where(valid, tf.argmax(log_probs, axis=2, output_type=tf.int32), BLANK)
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    is_start = tf.not_equal(best, before)  # each row's first frame starts a run, so none spans rows
    run = tf.cumsum(tf.cast(tf.reshape(is_start, [-1]), tf.int32)) - 1
    peaks = tf.reshape(tf.exp(tf.reduce_max(log_probs, axis=2)), [-1])
    run_peaks = tf.math.unsorted_segment_max(peaks, run, tf.size(run))
    peak_of_frame = tf.reshape(tf.gather(run_peaks, run), tf.shape(best))
    is_token = is_start & (best != BLANK)
    return (
        tf.ragged.boolean_mask(best, is_token),
        tf.ragged.boolean_mask(peak_of_frame, is_token),
    )


def text(labels: tf.RaggedTensor, alphabet: AlphabetSpec) -> tf.Tensor:
    """``Alphabet.decode`` of each row as a graph: symbols joined, words one space apart."""
    spaced = ["".join(" " if char.isspace() else char for char in s) for s in alphabet.symbols]
    symbols = tf.constant(["", *spaced])
    joined = tf.strings.reduce_join(tf.gather(symbols, labels), axis=1)
    return tf.strings.strip(tf.strings.regex_replace(joined, " +", " "))


def confidence(
    probabilities: tf.RaggedTensor, log_probs: tf.Tensor, frames: tf.Tensor
) -> tf.Tensor:
    """(batch,): mean probability of the tokens; of silence, its smallest blank posterior."""
    count = tf.cast(probabilities.row_lengths(), tf.float32)
    mean = tf.reduce_sum(probabilities, axis=1) / tf.maximum(count, 1.0)
    valid = tf.sequence_mask(frames, tf.shape(log_probs)[1])
    blank = tf.where(valid, tf.exp(log_probs[:, :, BLANK]), 1.0)
    return tf.where(count > 0, mean, tf.reduce_min(blank, axis=1))
