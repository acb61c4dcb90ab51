"""How large a network is: its parameters, its multiply-adds, and units for equal parameters."""

from __future__ import annotations

import dataclasses

from speechrnn import model as network
from speechrnn.specs import CONVOLUTION_STRIDES, FeatureSpec, ModelSpec, RecogniserSpec

TOLERANCE = 0.02  # of the parameters to reach
# Steps of the search: multiples of 8 suit the vector units best, but with 240 units of an LSTM
# eight more are 7 % more parameters.
MULTIPLES = (8, 4, 2, 1)
# How many matrices of inputs x units, and of units x units, a frame is multiplied with. The depth
# gate reads the layer's input, and the bottom layer projects it to a memory cell too.
INPUT_PRODUCTS = {"simple_rnn": 1, "lstm": 4, "gru": 3, "depth_gated": 5}
INPUT_PRODUCTS_AT_BOTTOM = {**INPUT_PRODUCTS, "depth_gated": 6}
RECURRENT_PRODUCTS = {"simple_rnn": 1, "lstm": 4, "gru": 3, "depth_gated": 4}


def count_parameters(spec: RecogniserSpec) -> int:
    """Weights of the network that ``spec`` describes, by building it."""
    return int(network.build(spec, seed=None).count_params())


def units_for(spec: RecogniserSpec, parameters: int) -> tuple[int, int]:
    """The units that give ``spec``'s cell nearest to ``parameters``, and what they give.

    Among multiples of 8 where one comes within the tolerance, else of 4, 2 or 1; of a
    clockwork's number of modules in any case.
    """
    modules = len(spec.model.periods) if spec.model.cell == "clockwork" else 1
    counts: dict[int, int] = {}

    def count(units: int) -> int:
        if units not in counts:
            model = dataclasses.replace(spec.model, units=units)
            counts[units] = count_parameters(dataclasses.replace(spec, model=model))
        return counts[units]

    for multiple in (m for m in MULTIPLES if m % modules == 0 or m == 1):
        step = max(multiple, modules)
        low, high = step, 2 * step
        while count(high) < parameters:
            low, high = high, 2 * high
        while high - low > step:
            middle = (low + high) // 2 // step * step
            low, high = (middle, high) if count(middle) < parameters else (low, middle)
        units = min((low, high), key=lambda units: abs(count(units) - parameters))
        if abs(count(units) / parameters - 1) <= TOLERANCE:
            break
    return units, count(units)


def multiply_adds(spec: RecogniserSpec) -> float:
    """Multiply-adds of the network's matrix products for one second of audio, inference.

    Convolutions, projections of the layers' inputs, recurrent products and logits; features,
    element-wise products and normalisation are left out. A clockwork's module of period T
    computes at one frame of T (Koutnik et al. 2014).
    """
    model, alphabet = spec.model, spec.alphabet.size
    directions = 2 if model.bidirectional else 1
    subsampling, inputs = _subsampling(model, spec.features)
    recurrent = 0.0
    for i in range(model.layers):
        recurrent += directions * _recurrent_layer(model, inputs, bottom=i == 0)
        inputs = directions * model.units
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
