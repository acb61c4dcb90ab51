"""An index of ten million utterances: written, loaded, read at random, planned, given to training.

Promised: whatever the size up to the one that is asked for, loading the index and planning an
epoch takes less than 3 GB of memory and 2 minutes; each utterance is in one batch of the plan, no
batch is over its budget, and the parts of four workers put together are the batches.

There is no audio: an utterance is its row in the index. Of ten million, a hundred thousand hours
are 36 s each, so LibriSpeech's lengths are stretched.

    python pipelines/reliability/scale.py --utterances 10000000
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_index
from rich.console import Console
from rich.progress import track

from speechrnn.data.index import Index
from speechrnn.data.plan import JITTER, Plan, epoch_plan, slice_of

MEMORY_GB, SECONDS = 3.0, 120.0
READS = 10_000


@dataclass(frozen=True)
class Step:
    """``memory``: the most that the process held during the step, in GB, what it has read of mapped
    files included. ``wrong`` says what is not as promised."""

    name: str
    seconds: float
    processor: float  # seconds
    memory: float
    found: str
    wrong: str = ""


def run(folder: Path, utterances: int, mean_seconds: float, batch_seconds: float) -> list[Step]:
    """All steps at one size; the index is written by a process of its own."""
    steps = []
    for part in (write, use):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as pool:
            steps += pool.submit(part, folder, utterances, mean_seconds, batch_seconds).result()
    return steps


def write(folder: Path, utterances: int, mean_seconds: float, _: float) -> list[Step]:
    def step() -> str:
        synthetic_index.make(folder, utterances, mean_seconds).save()
        (folder / "letters").unlink()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return f"{size / 1e9:.2f} GB on disk"

    return [_measured("write", step)]


def use(folder: Path, utterances: int, _: float, batch_seconds: float) -> list[Step]:
    """What a start of training does with an index."""
    budget = int(batch_seconds * synthetic_index.RATE)
    kept: dict[str, Any] = {}

    def load() -> str:
        kept["index"] = Index.load(folder)
        kept["rows"] = kept["index"].split("train")
        return f"{kept['index'].seconds('train') / 3600:,.0f} h to train on"

    def read() -> str:
        chosen = np.random.default_rng(0).integers(0, len(kept["rows"]), READS)
        started = time.perf_counter()
        for i in chosen.tolist():
            kept["rows"][i]
        return f"{1e6 * (time.perf_counter() - started) / READS:.0f} us a row"

    def plan() -> str:
        kept["plan"] = epoch_plan(kept["rows"].column("samples"), budget, seed=1, epoch=1)
        return f"{len(kept['plan']):,} batches"

    def follow() -> str:
        return f"{sum(len(batch) for batch in kept['plan']):,} utterances, batch by batch"

    steps = [_measured(*each) for each in (("load", load), ("read rows", read), ("plan", plan))]
    steps.append(_measured("go through it", follow))
    samples = kept["rows"].column("samples")
    wrong = "; ".join(broken(samples, kept["plan"], budget))
    steps.append(Step("check", 0.0, 0.0, 0.0, "as promised" if not wrong else "", wrong))
    steps.append(_dataset(kept["index"], batch_seconds))
    return steps


def _dataset(index: Index, batch_seconds: float) -> Step:
    """What ``training`` builds of it, but for the first batch, whose audio there is not."""
    from speechrnn import recipe
    from speechrnn.data.dataset import Batches, recogniser_spec

    data = {"manifest": "none.tsv", "batch_seconds": batch_seconds}
    loaded = recipe.from_dict({"name": "scale", "output": str(index.root), "data": data})

    def build() -> str:
        batches = Batches(loaded, recogniser_spec(loaded, index), index, "train")
        return f"{len(batches.plan(1)):,} batches"

    return _measured("Batches and its plan", build)


def broken(samples: np.ndarray, plan: Plan, budget: int) -> Iterator[str]:
    """What a plan breaks of its promises."""
    if not np.array_equal(np.bincount(plan.utterances), np.ones(len(samples))):
        yield "not every utterance is in one batch"
    if not np.array_equal(np.sort(plan.order), np.arange(len(plan))):
        yield "not every batch comes once"
    size = np.diff(plan.starts)
    lengths = samples[plan.utterances]
    longest = np.maximum.reduceat(lengths, plan.starts[:-1]).astype(np.int64)
    if np.any((size > 1) & (longest * size > budget)):
        yield "a batch is over its budget"
    # From batch to batch, as they were cut, lengths rise but for the jitter.
    before = np.maximum.accumulate(longest)[:-1]
    behind = np.minimum.accumulate(lengths[::-1])[::-1][plan.starts[1:-1]]
    if np.any(before * (1 - JITTER) > behind * (1 + JITTER)):
        yield "lengths in a batch differ by more than the jitter and its neighbours explain"
    for batch in plan[:1000]:
        parts = [slice_of(batch, worker, 4) for worker in range(4)]
        if not np.array_equal(np.concatenate(parts), batch):
            yield "the parts of four workers are not the batch"
            return


def _measured(name: str, step: Callable[[], str]) -> Step:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started, processor = time.perf_counter(), time.process_time()
    found = step()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return Step(name, seconds, processor, int(peak.split()[1]) / 1e6, found)


def verdict(steps: list[Step]) -> str:
    """Empty if the promise is kept."""
    to_plan = [step for step in steps if step.name in ("load", "read rows", "plan")]
    memory, seconds = max(s.memory for s in to_plan), sum(s.seconds for s in to_plan)
    wrong = [step.wrong for step in steps if step.wrong]
    if memory > MEMORY_GB:
        wrong.append(f"{memory:.2f} GB to plan an epoch, over {MEMORY_GB:g}")
    if seconds > SECONDS:
        wrong.append(f"{seconds:.0f} s to plan an epoch, over {SECONDS:g}")
    return "; ".join(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--utterances", type=int, default=10_000_000)
    parser.add_argument("--mean-seconds", type=float, default=36.0, help="of an utterance")
    parser.add_argument("--batch-seconds", type=float, default=600.0, help="of audio in a batch")
    parser.add_argument("--folder", type=Path, help="where there is space; default: temporary")
    options = parser.parse_args()
    sizes = [options.utterances // 100, options.utterances // 10, options.utterances]
    problem, steps = "", []
    for size in track(sizes, "sizes", console=Console(stderr=True)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            steps = run(Path(folder), size, options.mean_seconds, options.batch_seconds)
        print(f"{size:,} utterances: time, of the processor, most memory")
        for each in steps:
            cost = f"{each.seconds:7.2f} s ({each.processor:6.2f} s) {each.memory:6.2f} GB"
            print(f"  {each.name:20} {cost}  {each.found}")
        problem = problem or verdict(steps)
    done = {step.name: step for step in steps}
    memory = max(done[name].memory for name in ("load", "read rows", "plan"))
    summary = f"loaded in {done['load'].seconds:.1f} s, planned in {done['plan'].seconds:.1f} s"
    print(f"{options.utterances} tried: {problem or f'{summary}, at most {memory:.2f} GB'}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
