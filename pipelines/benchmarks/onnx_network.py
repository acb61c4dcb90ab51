"""The network as an ONNX graph, run by ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from implementations import LeftOut
from networks import STRIDE, Arrays, Run

OPSET, IR_VERSION = 17, 8  # the first with LayerNormalization, and the format of its time
EPSILON = 1e-3  # of Keras's layer normalisation
KINDS = ("kernel", "recurrent", "bias")
GATES = (0, 3, 1, 2)  # Keras has them in the order i, f, g, o, ONNX in the order i, o, f, g


def package(name: str) -> Any:
    """onnx, onnxruntime or a module of theirs, which are optional here."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LeftOut("ONNX Runtime is not installed: pip install onnx onnxruntime") from None


def runner(name: str, folder: Path) -> Run:
    onnx, runtime = package("onnx"), package("onnxruntime")
    path = folder / f"{name}.onnx"
    onnx.save(graph(dict(np.load(folder / "weights.npz"))), str(path))
    if "int8" in name:
        quantization = package("onnxruntime.quantization")
        kept = ["MatMul", "LSTM"] if name.endswith("float-convolutions") else None
        quantization.quantize_dynamic(str(path), str(path), op_types_to_quantize=kept)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"features": x})[0]


def graph(weights: Arrays) -> Any:
    """features (frames, mels) -> log_probs (frames / 4, symbols), a ModelProto."""
    build = _Builder(weights)
    x = build.node("Unsqueeze", ["features", build.ints("axes", [0, 1])])
    i = 0
    while f"convolution_{i}_kernel" in weights:
        x = build.convolution(x, f"convolution_{i}")
        i += 1
    x = build.node("Transpose", [x], perm=[2, 0, 3, 1])  # (frames, 1, frequency, channels)
    x = build.node("Reshape", [x, build.ints("rows", [0, 1, -1])])
    i = 0
    while f"norm_{i}_gamma" in weights:
        x = build.recurrent(x, f"recurrent_{i}")
        x = build.normalised(x, f"norm_{i}")
        i += 1
    x = build.node("Squeeze", [x, build.ints("batch", [1])])
    x = build.node("MatMul", [x, build.array("logits_kernel")])
    x = build.node("Add", [x, build.array("logits_bias")])
    build.node("LogSoftmax", [x], output="log_probs", axis=-1)
    return build.model()


class _Builder:
    """Nodes of a graph, named by number."""

    def __init__(self, weights: Arrays):
        self._onnx = package("onnx")
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self._constants[name] = self._onnx.numpy_helper.from_array(value, name)
        return name

    def ints(self, name: str, value: list[int]) -> str:
        return self.constant(name, np.array(value, np.int64))

    def array(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def convolution(self, x: str, name: str) -> str:
        """(1, channels, frames, frequencies), zeros around both axes."""
        kernel = np.ascontiguousarray(self._weights[f"{name}_kernel"].transpose(3, 2, 0, 1))
        inputs = [x, self.constant(f"{name}_kernel", kernel), self.array(f"{name}_bias")]
        y = self.node("Conv", inputs, pads=[1, 1, 1, 1], strides=[STRIDE, STRIDE])
        return self.node("Relu", [y])

    def recurrent(self, x: str, name: str) -> str:
        """(frames, 1, inputs) -> (frames, 1, 2 * units)."""
        kernel, recurrent, bias = (self._both_ways(name, k) for k in KINDS)
        bias = np.concatenate([bias, np.zeros_like(bias)], axis=1)
        inputs = [
            x,
            self.constant(f"{name}_W", kernel),
            self.constant(f"{name}_R", recurrent),
            self.constant(f"{name}_B", bias),
        ]
        y = self.node("LSTM", inputs, direction="bidirectional", hidden_size=recurrent.shape[2])
        y = self.node("Transpose", [y], perm=[0, 2, 1, 3])  # (frames, 1, directions, units)
        return self.node("Reshape", [y, self.ints("side_by_side", [0, 1, -1])])

    def _both_ways(self, name: str, kind: str) -> np.ndarray:
        ways = (self._weights[f"{name}_{way}_{kind}"] for way in ("forward", "backward"))
        return np.stack([_reordered(weight) for weight in ways])

    def normalised(self, x: str, name: str) -> str:
        inputs = [x, self.array(f"{name}_gamma"), self.array(f"{name}_beta")]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=EPSILON)

    def model(self) -> Any:
        helper, number = self._onnx.helper, self._onnx.TensorProto.FLOAT
        symbols = len(self._weights["logits_bias"])
        graph = helper.make_graph(
            self._nodes,
            "recogniser",
            [helper.make_tensor_value_info("features", number, ["feature_frames", "mels"])],
            [helper.make_tensor_value_info("log_probs", number, ["frames", symbols])],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        self._onnx.checker.check_model(model)
        return model


def _reordered(weight: np.ndarray) -> np.ndarray:
    """(.., 4 * units) of Keras -> (4 * units, ..) of ONNX."""
    gates = np.split(weight, 4, axis=-1)
    return np.ascontiguousarray(np.concatenate([gates[i] for i in GATES], axis=-1).T)
