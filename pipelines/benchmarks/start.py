"""How long training waits for its first batch, from the moment that TensorFlow is imported.

A corpus of noise of the given size is prepared; then a fresh process loads its index, checks its
labels, plans the first epoch, traces the graph and reads and augments a batch, several times over.
The first start in a process is what a training has; processor time is given beside the clock's, for
a machine that others use as well.

    python pipelines/benchmarks/start.py --utterances 1000
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.recipe import Recipe

AUGMENT = {"speed": [0.9, 1.1], "frequency_masks": 2, "time_masks": 2}
RATE = 16_000


def corpus(folder: Path, utterances: int) -> Recipe:
    """Noise of 1 to 4 s, prepared, as a recipe."""
    from speechrnn.data.prepare import prepare

    rng = np.random.default_rng(0)
    listed = []
    for number in range(utterances):
        path = folder / f"{number}.wav"
        soundfile.write(path, rng.normal(0, 0.1, int(rng.uniform(1, 4) * RATE)), RATE)
        listed.append(Utterance(f"u{number}", path, "some words of text", "train"))
    manifest.write(folder / "manifest.tsv", listed)
    data = {"manifest": str(folder / "manifest.tsv"), "workers": 1}
    tree = {"name": "start", "output": str(folder / "run"), "data": data, "augment": AUGMENT}
    loaded = recipe.from_dict(tree)
    prepare(loaded)
    return loaded


def starts(loaded: Recipe, count: int) -> list[dict[str, tuple[float, float]]]:
    """Of each start in this process: what each part takes, (seconds, processor seconds)."""
    from speechrnn.data.dataset import Batches, recogniser_spec
    from speechrnn.data.index import Index

    found = []
    for _ in range(count):
        clock = _Clock()
        index = Index.load(loaded.prepared)
        clock.lap("index")
        batches = Batches(loaded, recogniser_spec(loaded, index), index, "train")
        batches.plan(0)
        clock.lap("labels and plan")
        dataset = batches.epochs(0, 1)
        clock.lap("graph")
        next(iter(dataset))
        clock.lap("first batch")
        found.append(clock.laps)
    return found


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, tuple[float, float]] = {}
        self._last = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        now = time.perf_counter(), time.process_time()
        self.laps[name] = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--utterances", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaded = corpus(Path(folder), options.utterances)
        spawn = multiprocessing.get_context("spawn")
        for number in range(options.processes):
            with ProcessPoolExecutor(1, spawn) as pool:
                laps = pool.submit(starts, loaded, 2).result()
            for which, each in zip(("first", "second"), laps, strict=True):
                wall, cpu = (sum(lap[i] for lap in each.values()) for i in (0, 1))
                parts = ", ".join(f"{name} {lap[0]:.2f}" for name, lap in each.items())
                total = f"{wall:.2f} s ({cpu:.2f} s of processor time)"
                print(f"process {number + 1}, {which} start: {total}: {parts}")


if __name__ == "__main__":
    main()
