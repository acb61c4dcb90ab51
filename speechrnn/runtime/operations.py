"""What a model computes: the operations of a device file, the multiply-adds of a network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from speechrnn.errors import ModelError
from speechrnn.specs import CONVOLUTION_STRIDES, FeatureSpec, ModelSpec, RecogniserSpec

# How many matrices of inputs x units, and of units x units, a frame is multiplied with. The depth
# gate reads the layer's input, and the bottom layer projects it to a memory cell too.
INPUT_PRODUCTS = {"simple_rnn": 1, "lstm": 4, "gru": 3, "depth_gated": 5}
INPUT_PRODUCTS_AT_BOTTOM = {**INPUT_PRODUCTS, "depth_gated": 6}
RECURRENT_PRODUCTS = {"simple_rnn": 1, "lstm": 4, "gru": 3, "depth_gated": 4}


def operation_names(flatbuffer: bytes) -> list[str]:
    """The kinds of operations of a TFLite flatbuffer in the file's order; custom ones by their
    own name."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAs(flatbuffer, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    return [
        code.CustomCode().decode()
        if code.BuiltinCode() == schema.BuiltinOperator.CUSTOM
        else names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        for code in codes
    ]


def refuse_custom_operations(flatbuffer: bytes, source: Path) -> None:
    """Raise ModelError, naming ``source``, where a flatbuffer has operations that are not TFLite's
    own: such would come from a library on this machine, Flex's among them."""
    model = schema.Model.GetRootAs(flatbuffer, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    custom = [
        (code.CustomCode() or b"?").decode(errors="replace")
        for code in codes
        if schema.BuiltinOperator.CUSTOM in (code.BuiltinCode(), code.DeprecatedBuiltinCode())
    ]
    if custom:
        raise ModelError(
            f"{source} has custom operations ({', '.join(sorted(custom))}), which no file that "
            "speechrnn exports has; it is not loaded. Export it again from its run."
        )


def count_operations(flatbuffer: bytes) -> dict[str, int]:
    """How often each kind stands in a TFLite flatbuffer, the most frequent first.

    All signatures together; one within a loop counts once, however often it runs.
    """
    names = operation_names(flatbuffer)
    model = schema.Model.GetRootAs(flatbuffer, 0)
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    found = Counter(
        names[graph.Operators(i).OpcodeIndex()]
        for graph in graphs
        for i in range(graph.OperatorsLength())
    )
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def multiply_adds(spec: RecogniserSpec) -> float:
    """Multiply-adds of the network's matrix products for one second of audio, inference.

    Convolutions, projections of the layers' inputs, recurrent products and logits; features,
    element-wise products and normalisation are left out. A clockwork's module of period T
    computes at one frame of T (Koutnik et al. 2014); a model in chunks computes the frames behind
    each of them, too.
    """
    model, alphabet = spec.model, spec.alphabet.size
    directions = 2 if model.bidirectional else 1
    subsampling, inputs = _subsampling(model, spec.features)
    recurrent = 0.0
    for i in range(model.layers):
        recurrent += directions * _recurrent_layer(model, inputs, bottom=i == 0)
        inputs = directions * model.units
    if model.chunk:
        recurrent *= (model.chunk + model.right_context) / model.chunk
    return subsampling + (recurrent + inputs * alphabet) / spec.seconds_per_output_frame


def _subsampling(model: ModelSpec, features: FeatureSpec) -> tuple[float, int]:
    """Multiply-adds for a second of audio, and the numbers in a frame that comes out."""
    if model.subsampling == "stack":
        return 0.0, model.time_stride * features.dimension
    rate, total = features.sample_rate / features.hop_samples, 0.0
    height, channels = features.dimension, 1
    for stride in CONVOLUTION_STRIDES[model.time_stride]:
        rate, height = rate / stride, -(-height // 2)
        total += rate * height * model.conv_channels * 3 * 3 * channels
        channels = model.conv_channels
    return total, height * channels


def _recurrent_layer(model: ModelSpec, inputs: int, bottom: bool) -> float:
    """Multiply-adds of one direction of a recurrent layer for each of its frames, on average."""
    units = model.units
    if model.cell != "clockwork":
        of_inputs = (INPUT_PRODUCTS_AT_BOTTOM if bottom else INPUT_PRODUCTS)[model.cell]
        return units * (of_inputs * inputs + RECURRENT_PRODUCTS[model.cell] * units)
    # The modules, the fastest first; each reads itself and the slower ones.
    modules = len(model.periods)
    width = units // modules
    return sum(
        width * (inputs + width * (modules - i)) / period for i, period in enumerate(model.periods)
    )
