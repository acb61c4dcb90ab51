"""The network whose inference is compared, and the forms it is compared in.

Between the process that writes it and those that run it lies a folder: ``weights.npz``,
``features.npz`` and ``expected.npz`` (by seconds of audio, the latter being Keras's log_probs),
and a ``.tflite`` file for each precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from implementations import Actions, LeftOut

STRIDE = 2  # of each of the two convolutions, along time and along frequency
FLOAT32_LIMIT = 1e-4  # of the difference to Keras

Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray], np.ndarray]  # features (frames, mels) -> log_probs (frames, symbols)


@dataclass(frozen=True)
class Network:
    """Log-mels -> two strided convolutions -> bidirectional LSTMs, a layer norm behind each ->
    log-softmax."""

    units: int = 256
    layers: int = 3
    mels: int = 80
    channels: int = 32
    symbols: int = 32
    seed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.mels} log-mels, two convolutions of {self.channels} channels, {self.layers} x "
            f"bidirectional LSTM({self.units}), {self.symbols} symbols"
        )


@dataclass(frozen=True)
class Form:
    """A row of the table: who runs the network, and the precision of its weights."""

    runtime: str
    precision: str = "float32"


FORMS = {
    "litert-float32": Form("speechrnn, LiteRT"),
    "litert-int8": Form("speechrnn, LiteRT", "int8"),
    "keras-float32": Form("Keras"),
    "pytorch-float32": Form("PyTorch"),
    "pytorch-int8": Form("PyTorch, quantize_dynamic", "int8"),
    "onnx-float32": Form("ONNX Runtime"),
    "onnx-int8": Form("ONNX Runtime, quantize_dynamic", "int8"),
    "onnx-int8-float-convolutions": Form("the same, convolutions left out", "int8"),
}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest |a - b| / (1 + |b|), as in the report of an export."""
    if found.shape != expected.shape:
        raise LeftOut(f"it gives {found.shape} instead of {expected.shape}")
    return float((np.abs(found - expected) / (1 + np.abs(expected))).max())


def actions(job: dict[str, Any]) -> Actions:
    """What a process can be told: to run each recording of the folder, and to compare the first
    one's log_probs with Keras's.

    Raises:
        LeftOut: the form's package is missing, or it computes something else.
    """
    name, folder = job["implementation"], Path(job["folder"])
    features, expected = (
        dict(np.load(folder / f"{kind}.npz")) for kind in ("features", "expected")
    )
    run = _runner(name, folder)
    first = next(iter(features))
    found = difference(run(features[first]), expected[first])
    # Not ``>``: a NaN must fail too.
    if FORMS[name].precision == "float32" and not found <= FLOAT32_LIMIT:
        raise LeftOut(f"its log_probs differ from Keras's by {found:.1e}")

    def running(x: np.ndarray) -> Callable[[], object]:
        return lambda: run(x)

    return {
        "difference": lambda: found,
        **{seconds: running(x) for seconds, x in features.items()},
    }


def _runner(name: str, folder: Path) -> Run:
    # Each in a process of its own: no other runtime is to be loaded there.
    if name.startswith("onnx"):
        import onnx_network

        return onnx_network.runner(name, folder)
    if name.startswith("pytorch"):
        import pytorch_network

        return pytorch_network.runner(name, folder)
    if name.startswith("keras"):
        import keras_network

        return keras_network.runner(folder)
    return _litert(folder / f"{FORMS[name].precision}.tflite")


def _litert(path: Path) -> Run:
    """One thread, as ``speechrnn.runtime.Recognizer`` has it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    signature = interpreter.get_signature_runner("serving_default")
    return lambda x: signature(features=x)["log_probs"]
