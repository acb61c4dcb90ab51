"""How fast a recurrent CTC recogniser trains: speechrnn, stock Keras and PyTorch side by side.

    python pipelines/benchmarks/recurrent.py                          all cells, some minutes
    python pipelines/benchmarks/recurrent.py --cells lstm --json lstm.json
    python pipelines/benchmarks/recurrent.py --implementations keras ours-float32 ours-bfloat16
    python pipelines/benchmarks/recurrent.py --also keras-xla keras-rnn-cell
    python pipelines/benchmarks/recurrent.py --grid --json grid.json  40 sizes, hours
    python pipelines/benchmarks/recurrent.py --scaling --cells lstm   does time grow linearly?
    python pipelines/benchmarks/recurrent.py --layer-forward          the clockwork RNN's saving
    python pipelines/benchmarks/recurrent.py --breakdown --cells lstm what a step is made of

PyTorch is optional (pip install torch); without it its rows are left out.

Measured are one training step (forward, CTC, backward, clipping by the global norm, Adam) and
one inference pass (forward alone) of a stack of bidirectional recurrent layers with a dense
layer of 32 symbols above it, on the same noise, valid lengths (60 to 100 % of the frames) and
labels (an eighth of the frames) for all. Each implementation is a process of its own; they take
turns in every round, and the median of the rounds is reported. The rows:

    Keras                   keras.layers.<cell> in keras.layers.Bidirectional with a mask, loss
                            keras.ops.ctc_loss, one tf.function, TensorFlow's default threads.
    Keras + sparse CTC      the same with TensorFlow's other CTC kernel: what the loss alone brings.
    keras.layers.RNN(cell)  the same cell in Keras's general loop, with speechrnn's loss: stands in
                            for Keras where it has no such layer (with --also: for all cells).
    Keras, compiled by XLA  only with --also; what model.fit does by itself for SimpleRNN.
    PyTorch dense           nn.LSTM and the like, run over the padding too.
    PyTorch packed          the same on packed sequences. In bfloat16 both are under autocast.
    speechrnn               its layers, CTC and threads, as in training.

The columns: "x Keras" is Keras's median time over this row's, "x PyTorch" that of the faster of
PyTorch's two rows of the same precision: above 1 this row is faster. "audio s/s" counts valid
frames of 30 ms. "of peak" is the row's multiply-adds in matrix products by its time, as a share
of what one product of 2048 x 2048 matrices reaches in the same rounds on all cores. "memory" is
the most that the process has held in all (VmHWM), libraries included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import records
import report
from implementations import STACKS
from machine import machine
from rich.console import Console
from rich.progress import Progress
from shapes import CELLS, Shape
from workers import Bench

OPTIONAL = {"keras-xla", "keras-rnn-cell"}  # asked for with --also
KERAS_HAS = {"simple_rnn", "lstm", "gru"}
GRID = {"batch": (16, 32), "frames": (250, 1000), "units": (256, 512)}
SCALING = {"batches": (8, 16, 32, 64), "frames": (250, 500, 1000, 2000)}
LAYER_SIZES = ((16, 250, 256), (32, 250, 1024), (1, 250, 1024))
EIGHT_MODULES = (1, 2, 4, 8, 16, 32, 64, 128)


class Benchmark:
    """What the arguments ask for. stdout gets tables, stderr the progress, --json everything."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        width = None if Console().is_terminal else 120
        self.tables = Console(width=width, soft_wrap=True, highlight=False)
        self.progress = Progress(console=Console(stderr=True))
        self.found: dict[str, Any] = {"machine": {**machine(), "versions": {}}}
        self.fast_bfloat16 = bool(self.found["machine"]["bfloat16"]) or options.force_bfloat16

    def run(self) -> dict[str, Any]:
        """The whole record, which is also what --json holds."""
        options = self.options
        with self.progress:
            if not self.fast_bfloat16:
                self._say(
                    "bfloat16 is left out: this processor has neither avx512_bf16 nor amx_bf16; "
                    "--force-bfloat16 measures it all the same"
                )
            if options.scaling:
                self._each("scaling", self.scaling, product(options.cells, self._precisions()))
            elif options.layer_forward:
                self._each("layer_forward", self.layer_forward, product(LAYER_SIZES))
            elif options.breakdown:
                self._each("breakdown", self.breakdown, product(options.cells, self._precisions()))
            else:
                self._each("results", self.compare, product(self._shapes()))
        self._say(report.machine_line(self.found["machine"]))
        if options.json:
            options.json.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        return self.found

    def _each(self, key: str, measure: Callable, of: Iterable[tuple]) -> None:
        """Measure one after the other; the JSON is written after each."""
        todo = list(of)
        self.found[key] = []
        task = self.progress.add_task(key, total=len(todo))
        for given in todo:
            self.found[key].append(measure(*given))
            if self.options.json:
                self.options.json.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
            self.progress.advance(task)

    def _say(self, text: str) -> None:
        self.tables.print(text, markup=False)

    def _precisions(self) -> list[str]:
        return ["float32", "bfloat16"] if self.fast_bfloat16 else ["float32"]

    def _shapes(self) -> list[Shape]:
        given = self.options
        shapes = [self._shape(cell) for cell in given.cells]
        if not given.grid:
            return shapes
        return [
            dataclasses.replace(shape, batch=batch, frames=frames, units=units)
            for batch, frames, units in product(*GRID.values())
            for shape in shapes
        ]

    def _shape(self, cell: str) -> Shape:
        given = self.options
        return Shape(cell, given.batch, given.frames, given.units, given.layers)

    def _implementations(self, cell: str) -> list[str]:
        """Those that make sense for this cell and processor, or those that were asked for."""
        given = self.options
        wanted = set(given.implementations or set(STACKS) - OPTIONAL) | set(given.also)
        if cell not in KERAS_HAS:
            of_keras = {"keras", "keras-sparse-ctc", "keras-xla"}
            wanted = {name for name in wanted if name[:7] != "pytorch"} - of_keras
            wanted |= {"keras-rnn-cell"} if not given.implementations else set()
        return [
            name
            for name, row in STACKS.items()
            if name in wanted and row.precision in self._precisions()
        ]

    def _measured(self, bench: Bench, what: str) -> dict[str, dict[str, list[float]]]:
        times = bench.run(self.options.rounds, self.options.seconds, what)
        self.found["machine"]["versions"] |= bench.versions()
        return times

    def compare(self, shape: Shape) -> dict[str, Any]:
        """All implementations of one cell at one size."""
        with Bench(self.progress) as bench:
            for name in self._implementations(shape.cell):
                bench.start(name, name, shape)
            bench.start("peak", "peak", shape)
            record = records.comparison(bench, self._measured(bench, str(shape)), shape)
        report.comparison(self.tables, record)
        return record

    def scaling(self, cell: str, precision: str) -> dict[str, Any]:
        """Our training step on batches of many sizes, all in one process."""
        shape = self._shape(cell)
        with Bench(self.progress) as bench:
            bench.start(cell, f"scaling-{precision}", shape, **SCALING)
            times = self._measured(bench, f"{cell} {precision}")
        sizes = records.scaling(times.get(cell, {}), SCALING["batches"], SCALING["frames"])
        record = {**asdict(shape), **SCALING, "precision": precision, **sizes}
        record["left_out"] = bench.left_out
        report.scaling(self.tables, record)
        return record

    def layer_forward(self, size: tuple[int, int, int]) -> dict[str, Any]:
        """One clockwork layer of eight modules and plain layers of its size."""
        batch, frames, units = size
        plain = Shape("simple_rnn", batch, frames, units, layers=1)
        clockwork = dataclasses.replace(plain, cell="clockwork", periods=EIGHT_MODULES)
        kinds = [("layer-keras", plain)]
        for precision in self._precisions():
            kinds += [(f"layer-ours-{precision}", shape) for shape in (plain, clockwork)]
        with Bench(self.progress) as bench:
            for kind, shape in kinds:
                bench.start(f"{shape.cell} {kind.removeprefix('layer-')}", kind, shape)
            times = self._measured(bench, "x".join(map(str, size)))
            record = records.layers(bench, times)
        report.layers(self.tables, record)
        return record

    def breakdown(self, cell: str, precision: str) -> dict[str, Any]:
        """The parts of our training step."""
        shape = self._shape(cell)
        with Bench(self.progress) as bench:
            bench.start(cell, f"parts-{precision}", shape)
            times = self._measured(bench, f"{cell} {precision}").get(cell)
        parts = records.parts(times) if times else {}
        record = {**asdict(shape), "precision": precision, "seconds": parts, "rounds": times}
        record["left_out"] = bench.left_out
        report.breakdown(self.tables, shape, record)
        return record


def positive(text: str) -> int:
    """A whole number of at least one, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS, metavar="CELL")
    parser.add_argument("--implementations", nargs="+", choices=list(STACKS), metavar="NAME")
    parser.add_argument("--also", nargs="+", choices=sorted(OPTIONAL), default=[], metavar="NAME")
    for name in ("batch", "frames", "units", "layers"):
        parser.add_argument(f"--{name}", type=positive, default=getattr(Shape, name))
    parser.add_argument("--rounds", type=positive, help="5; of the grid 3")
    parser.add_argument(
        "--seconds", type=float, help="a measurement repeats what takes less: 0.3; of the grid 0"
    )
    parser.add_argument("--force-bfloat16", action="store_true")
    parser.add_argument("--json", type=Path, metavar="OUT")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--grid", action="store_true", help="batches, frame counts and units")
    mode.add_argument("--scaling", action="store_true", help="ours from 8 x 250 to 64 x 2000")
    mode.add_argument("--layer-forward", action="store_true", help="one clockwork layer")
    mode.add_argument("--breakdown", action="store_true", help="what our step is made of")
    return parser


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    options = arguments().parse_args(given)
    if options.rounds is None:
        options.rounds = 3 if options.grid else 5
    if options.seconds is None:
        options.seconds = 0.0 if options.grid else 0.3
    return Benchmark(options).run()


if __name__ == "__main__":
    main()
