"""How large a network is: its parameters, and the units that give it as many as another."""

from __future__ import annotations

import dataclasses

import numpy as np

from speechrnn import model as network
from speechrnn.specs import RecogniserSpec

TOLERANCE = 0.02  # of the parameters to reach
# Multiples of 8 suit the vector units best, but with 128 units of an LSTM eight more are 9 % more
# parameters.
MULTIPLES = (8, 4, 2, 1)


def count_parameters(spec: RecogniserSpec) -> int:
    """Weights of the network that ``spec`` describes, by building it."""
    return int(network.build(spec, seed=None).count_params())


def with_units(spec: RecogniserSpec, units: int) -> RecogniserSpec:
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, units=units))


def units_for(spec: RecogniserSpec, parameters: int) -> tuple[int, int]:
    """The units that give ``spec``'s cell nearest to ``parameters``, and what they give.

    Among multiples of 8 where one comes within the tolerance, else of 4, 2 or 1; of a
    clockwork's number of modules in any case.
    """
    modules = len(spec.model.periods) if spec.model.cell == "clockwork" else 1
    # A matrix has units x units, units x inputs or units weights: three small networks tell the
    # polynomial, and none of the others has to be built.
    known = [modules * factor for factor in (1, 2, 3)]
    counts = [count_parameters(with_units(spec, units)) for units in known]
    polynomial = np.polynomial.Polynomial.fit(known, counts, 2).convert()
    wanted = float(np.max(np.real((polynomial - parameters).roots())))
    for multiple in MULTIPLES:
        step = int(np.lcm(multiple, modules))
        near = [max(step, int(wanted // step) * step + extra) for extra in (0, step)]
        units = min(near, key=lambda units: abs(polynomial(units) - parameters))
        if abs(polynomial(units) / parameters - 1) <= TOLERANCE:
            break
    return units, round(polynomial(units))
