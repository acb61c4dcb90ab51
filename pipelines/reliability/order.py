"""Training that is taken up again at every batch of an epoch, by one, two and four workers.

Promised: from any batch on, what is left is what an uninterrupted run would have seen, bit for bit
and augmentation included, for each worker; and the parts of the workers put together are, batch by
batch, the utterances that one worker sees.

    python pipelines/reliability/order.py --batches 20
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import Progress

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data.dataset import Batches, recogniser_spec
from speechrnn.data.prepare import prepare

RATE = 16_000
IN_A_BATCH = 3  # utterances: fewer than the most workers
WORKERS = (1, 2, 4)
AUGMENT = {"speed": [0.9, 1.1], "gain_db": [-6, 6], "frequency_masks": 1, "time_masks": 2}


def source(folder: Path, batches: int) -> Batches:
    """Noise of about a second each, prepared, enough for ``batches`` batches."""
    rng = np.random.default_rng(0)
    utterances = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(IN_A_BATCH * batches):
        path = folder / f"{number}.wav"
        seconds = rng.uniform(0.7, 1.0)
        soundfile.write(path, rng.normal(0, 0.1, int(seconds * RATE)), RATE)
        utterances.append(Utterance(f"u{number}", path, "ab"[: 1 + number % 2], "train"))
    manifest.write(folder / "manifest.tsv", utterances)
    data = {"manifest": str(folder / "manifest.tsv"), "batch_seconds": IN_A_BATCH, "workers": 1}
    tree = {"name": "order", "output": str(folder / "run"), "data": data, "augment": AUGMENT}
    loaded = recipe.from_dict(tree)
    index = prepare(loaded, progress=False)
    return Batches(loaded, recogniser_spec(loaded, index), index, "train")


def arrays(batches: Iterable) -> list[dict[str, np.ndarray]]:
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches]


def restored(batches: Batches, workers: int) -> Iterator[str]:
    """For each worker and each batch of epoch 1, and behind its last: empty, or what differs
    after a start there. At last the same of all parts put together."""
    alone = arrays(batches.epochs(1, 2))
    parts = []
    for worker in range(workers):
        whole = arrays(batches.epochs(1, 2, worker=worker, workers=workers))
        parts.append(whole)
        for skip in range(len(alone) + 1):
            rest = arrays(batches.epochs(1, 2, skip, worker, workers))
            if not same(rest, whole[skip:]):
                yield f"worker {worker} of {workers} sees other batches from batch {skip} on"
            else:
                yield ""
    for number, batch in enumerate(alone):
        together = np.concatenate([part[number]["utterances"] for part in parts])
        sizes = {int(part[number]["batch_size"]) for part in parts}
        if not np.array_equal(together, batch["utterances"]) or sizes != {len(together)}:
            yield f"the parts of {workers} workers are not batch {number}"


def same(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> bool:
    return len(found) == len(expected) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(found, expected, strict=True)
    )


def run(folder: Path, batches: int, workers: Iterable[int] = WORKERS) -> tuple[int, list[str]]:
    """Starts tried, and what was wrong."""
    made = source(folder, batches)
    starts = len(made.plan(1)) + 1
    results = []
    with Progress(console=Console(stderr=True)) as bar:
        for number in workers:
            task = bar.add_task(f"{number} workers", total=number * starts)
            for problem in restored(made, number):
                results.append(problem)
                bar.advance(task)
    tried = sum(number * starts for number in workers)
    return tried, [problem for problem in results if problem]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=20, help="of the epoch, about")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tried, wrong = run(Path(folder), options.batches)
    for each in wrong:
        print(each)
    print(f"{tried} tried: {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
