"""The network in Keras with random weights, written down for those that run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from networks import STRIDE, Arrays, Network

from speechrnn import model as network
from speechrnn.export.convert import convert
from speechrnn.export.lowering import LoweredRecogniser
from speechrnn.export.tflite import ExportReport, export_tflite
from speechrnn.model import Recogniser
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics


def specification(of: Network, cell: Any = "lstm", bidirectional: bool = True) -> RecogniserSpec:
    model = ModelSpec(
        cell=cell,
        bidirectional=bidirectional,
        units=of.units,
        layers=of.layers,
        subsampling="conv",
        time_stride=STRIDE * STRIDE,
        conv_channels=of.channels,
    )
    return RecogniserSpec(
        FeatureSpec(mels=of.mels),
        AlphabetSpec(tuple(chr(ord("!") + i) for i in range(of.symbols - 1))),
        model,
        Statistics((0.0,) * of.mels, (1.0,) * of.mels),
    )


class FeaturesIn(LoweredRecogniser):
    """The exported model without the computation of its features, which the others lack."""

    def from_features(self, mels: int) -> tf.types.experimental.PolymorphicFunction:
        """features (frames, mels) -> log_probs (frames / 4, symbols)."""

        def log_probs(features: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"log_probs": self._whole(self._front_end.subsampled(features))}

        signature = tf.TensorSpec([None, mels], tf.float32, "features")
        return tf.function(log_probs).get_concrete_function(signature)


def export(of: Network, cell: str, bidirectional: bool, precision: str, out: Path) -> ExportReport:
    """The network with another cell and untrained weights, as ``speechrnn export`` writes it."""
    spec = specification(of, cell, bidirectional)
    return export_tflite(network.build(spec, of.seed), spec, {}, out, precision)


def write(of: Network, seconds: Sequence[float], precisions: Sequence[str], folder: Path) -> None:
    """Fill ``folder``, see ``networks``, with recordings of so many seconds each."""
    spec = specification(of)
    model = network.build(spec, of.seed)
    rng = np.random.default_rng(of.seed)
    # Biases too: two of them mixed up must show.
    model.set_weights(
        [w + rng.normal(0, 0.1, w.shape) * (w.ndim == 1) for w in model.get_weights()]
    )
    _save(folder / "weights.npz", weights(model))
    frames = [spec.features.frames(int(s * spec.features.sample_rate)) for s in seconds]
    features = [rng.normal(size=[n, of.mels]).astype(np.float32) for n in frames]
    names = [f"{s:g}" for s in seconds]
    _save(folder / "features.npz", dict(zip(names, features, strict=True)))
    logits = model(features[0][np.newaxis], tf.constant(frames[:1]))[0]
    _save(folder / "expected.npz", {names[0]: tf.nn.log_softmax(logits).numpy()})
    for precision in precisions:
        lowered = FeaturesIn(model, spec, precision)
        saved = folder / "saved" / precision
        tf.saved_model.save(lowered, str(saved), signatures=lowered.from_features(of.mels))
        (folder / f"{precision}.tflite").write_bytes(convert(saved, precision))


def _save(path: Path, arrays: Arrays) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def weights(model: Recogniser) -> Arrays:
    """As Keras has them: of layer i's forward direction recurrent_i_forward_kernel, and so on."""
    found: dict[str, np.ndarray] = {}
    for i, convolution in enumerate(model.subsampling.convolutions):
        _add(found, f"convolution_{i}", ("kernel", "bias"), convolution)
    for i, (layer, norm) in enumerate(zip(model.recurrent, model.norms, strict=True)):
        for way, one in (("forward", layer.forward_layer), ("backward", layer.backward_layer)):
            _add(found, f"recurrent_{i}_{way}", ("kernel", "recurrent", "bias"), one)
        _add(found, f"norm_{i}", ("gamma", "beta"), norm)
    _add(found, "logits", ("kernel", "bias"), model.logits)
    return found


def _add(found: Arrays, prefix: str, kinds: tuple[str, ...], layer: keras.layers.Layer) -> None:
    for kind, weight in zip(kinds, layer.get_weights(), strict=True):
        found[f"{prefix}_{kind}"] = weight
