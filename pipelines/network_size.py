"""How large a network is: its parameters, and the units that give it as many as another."""

from __future__ import annotations

import dataclasses

from speechrnn import model as network
from speechrnn.specs import RecogniserSpec

TOLERANCE = 0.02  # of the parameters to reach
# Steps of the search: multiples of 8 suit the vector units best, but with 240 units of an LSTM
# eight more are 7 % more parameters.
MULTIPLES = (8, 4, 2, 1)


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
