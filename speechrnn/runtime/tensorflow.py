"""The same recogniser where TensorFlow is at hand: run directories and SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.errors import MissingExtra, ModelError
from speechrnn.files import own, sha256_of
from speechrnn.runtime import container
from speechrnn.runtime.recognizer import BaseRecognizer
from speechrnn.runtime.saved_graph import refuse_foreign_operations
from speechrnn.specs import RecogniserSpec

try:
    import keras
    import tensorflow as tf
except ImportError as error:
    raise MissingExtra("using a run directory or a SavedModel", "train") from error

from speechrnn.features import graph
from speechrnn.model import output_frames

# Within a SavedModel: what ``container.describe`` gives, and the sha256 of every other file, as
# sha256sum writes and checks them.
DESCRIPTION = "assets.extra/speechrnn.json"
CHECKSUMS = "assets.extra/SHA256SUMS"


def posteriors(
    model: keras.Model, spec: RecogniserSpec, waveforms: tf.Tensor, lengths: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(batch, samples) and valid samples (batch,) -> log_probs, valid frames (batch,) int32.

    log_probs (batch, frames, alphabet size) float32; what stands behind a row's valid frames
    means nothing. A row shorter than one window has no valid frame.
    """
    frames = graph.frame_counts(lengths, spec.features)
    features = graph.normalise(graph.features(waveforms, spec.features), frames, spec.statistics)
    logits = model(features, frames, training=False)
    return tf.nn.log_softmax(logits), output_frames(frames, spec.model)


class KerasRecognizer(BaseRecognizer):
    """A Keras model in memory. One trace of the graph serves every length."""

    kind = "keras"

    def __init__(self, model: keras.Model, spec: RecogniserSpec, card: dict[str, Any]):
        super().__init__(spec, card)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def log_probs(waveform: tf.Tensor) -> tf.Tensor:
            return posteriors(model, spec, waveform[None], tf.shape(waveform))[0][0]

        self._log_probs = log_probs

    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        return self._log_probs(waveform).numpy()


class RunRecognizer(KerasRecognizer):
    """The best model of a run directory. Raises ModelError if there is none, or a damaged one."""

    kind = "run"

    def __init__(self, folder: str | Path):
        from speechrnn.training import run  # brings the training loop along

        trained = run.load(folder)
        super().__init__(trained.model, trained.spec, trained.card)


class SavedModelRecognizer(BaseRecognizer):
    """A SavedModel that speechrnn exported.

    Raises:
        ModelError: not exported by speechrnn, incomplete or damaged, or with operations in its
            graph that no export has.
    """

    kind = "savedmodel"

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        _check_sums(folder)
        refuse_foreign_operations(folder)
        super().__init__(*container.parse_description((folder / DESCRIPTION).read_bytes(), folder))
        self._model = tf.saved_model.load(str(folder))  # keeps the variables alive
        self._serve = self._model.signatures["serving_default"]

    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        outputs = self._serve(waveform=waveform[None], lengths=np.array([len(waveform)], np.int32))
        return outputs["log_probs"][0].numpy()


def _check_sums(folder: Path) -> None:
    """Raise ModelError unless every file listed in CHECKSUMS is there and unchanged."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        for path in folder.rglob("*"):  # unlisted ones too: TensorFlow might follow them
            if not path.is_dir() or path.is_symlink():
                own(folder, path.relative_to(folder).as_posix())
        found = {name: sha256_of(own(folder, name)) for name in listed}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is not a SavedModel of speechrnn's, or files of it are missing ({error}); "
            "export it again with `speechrnn export --format savedmodel`"
        ) from error
    damaged = [name for name in listed if listed[name] != found[name]]
    if damaged or DESCRIPTION not in listed:
        raise ModelError(
            f"{folder} is damaged: {', '.join(damaged) or DESCRIPTION} does not match {CHECKSUMS}. "
            "Copy or export it again."
        )
