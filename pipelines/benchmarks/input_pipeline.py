"""How fast training data is read, changed and turned into features, beside what training takes.

    python pipelines/benchmarks/input_pipeline.py                  AN4's recipe, a minute or two
    python pipelines/benchmarks/input_pipeline.py --recipe configs/an4_telephone.yaml
    python pipelines/benchmarks/input_pipeline.py --rounds 20 --json rates.json

In one process, in turns, of which the best counts; the small things first, as hundreds of megabytes
of training data and network around them would slow them down:

    changes     each augmentation alone, 10 s of a recording, one thread, processor time.
    pipeline    prepared shards -> batches of augmented features, alone: seconds of audio for a
                second of processor time (real time per core) and of wall time.
    training    the recipe's training steps on batches at hand, on all cores.

Processor time is that of all threads of this process, so other processes disturb it little.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rates import Rates, Work
from rich.console import Console
from rich.table import Table

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.augment import channel, noise, room, time_scale
from speechrnn.data.dataset import TRAIN, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import SpeechRNNError
from speechrnn.recipe import Recipe
from speechrnn.training.recogniser import RecogniserLearner

PIPELINES = Path(__file__).parents[1]
SECONDS = 10
STEPS = 6  # of training in a round


def pipeline(source: Batches) -> Work:
    """The second epoch, whose order is not by length."""

    def work() -> float:
        return sum(source.amount(batch) for batch in source.epochs(1, 2))

    return work


def training(loaded: Recipe, source: Batches) -> Work:
    model = network.build(source.spec, loaded.seed, loaded.training.precision)
    learner = RecogniserLearner(model, source.spec, loaded)
    batches = list(source.epochs(1, 2).take(STEPS))
    for batch in batches:  # traces the graph
        learner.step(batch, 1e-5)

    def work() -> float:
        losses = [learner.step(batch, 1e-5)[0] for batch in batches]
        float(losses[-1])
        return sum(source.amount(batch) for batch in batches)

    return work


def changes(wave: np.ndarray, rate: int) -> Iterator[tuple[str, Work]]:
    """Each augmentation, of a recording of ``SECONDS``."""
    draws = np.random.default_rng(0)
    other = draws.normal(0, 0.1, len(wave)).astype(np.float32)

    def in_a_room() -> np.ndarray:
        return room.reverberate(wave, room.simulated(0.4, 3.0, rate, draws), rate)

    def with_noise() -> np.ndarray:
        power = noise.active_power(wave, rate)
        return noise.mix(wave, other, 10.0, power, noise.active_power(other, rate))

    applied: dict[str, Callable[[], np.ndarray]] = {
        "speed": lambda: time_scale.change_speed(wave, 1.07),
        "tempo": lambda: time_scale.change_tempo(wave, 1.07, rate),
        "pitch_cents": lambda: time_scale.change_pitch(wave, 150, rate),
        "room (0.4 s)": in_a_room,
        "noise or babble": with_noise,
        "gain_db": lambda: wave * np.float32(1.3),
        "band": lambda: channel.band_limit(wave, rate, 200, 3600),
        "telephone": lambda: channel.telephone(wave, rate),
    }
    for name, change in applied.items():
        yield name, lambda change=change: change() is not None and SECONDS  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=PIPELINES.parent / "configs" / "an4.yaml")
    parser.add_argument("--data", type=Path, help="AN4's unpacked archive, or a manifest")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write all rates here")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(os.cpu_count() or 1)
    sys.path.insert(0, str(PIPELINES))
    from an4 import find_manifest

    overrides = [f"data.manifest={find_manifest(arguments.data)}", *arguments.overrides]
    loaded = recipe.load(arguments.recipe, overrides)
    index = prepare(loaded)
    source = Batches(loaded, recogniser_spec(loaded, index), index, TRAIN)
    rate = index.sample_rate
    speech = np.concatenate([source.waveform(i) for i in range(min(99, len(source.rows)))])
    speech = np.resize(speech, SECONDS * rate)
    rates = Rates()
    rates.rounds([*changes(speech, rate)], 5 * arguments.rounds)
    works = [("pipeline", pipeline(source)), ("training", training(loaded, source))]
    rates.rounds(works, arguments.rounds)
    show(rates)
    if arguments.json:
        arguments.json.write_text(json.dumps(vars(rates), indent=1))


def show(rates: Rates) -> None:
    wall, core = rates.wall, rates.processor
    print(
        f"input pipeline: {core['pipeline']:.0f} times real time per core, "
        f"{wall['pipeline']:.0f} in all; training takes {wall['training']:.0f}: "
        f"{wall['pipeline'] / wall['training']:.1f} times as fast"
    )
    table = Table("10 s of audio", "ms", "times real time")
    for name, value in core.items():
        if name not in ("pipeline", "training"):
            ms: Any = 1000 * SECONDS / value
            table.add_row(name, f"{ms:.2f}", f"{value:.0f}")
    Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
