"""How fast a corpus is prepared, beside nothing but decoding it, in the same run.

    python pipelines/benchmarks/preparation.py data/an4/manifest.tsv

For one worker and for two: seconds of audio for each second of processor time, of all processes
together, and for each second of the clock and worker. Counted is the whole of ``speechrnn prepare``
after its imports: listing, decoding, checking, writing, statistics, the index; processes that are
started count with their imports, so small corpora look slower on two. Bare decoding is
``soundfile.read`` of the same files in the same process. The best of several rounds counts, since
other programs can only make it slower. Exits 1 where preparing does less than ``--least``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from speechrnn import recipe
from speechrnn.corpora import manifest

LEAST = 200  # times real time, for each core


def measure(listed: Path, workers: int) -> dict[str, float]:
    """One round, in this process: seconds of audio, of processor time and of the clock."""
    import soundfile

    from speechrnn.data.prepare import prepare

    paths = [each.path for each in manifest.read(listed)]

    def decode() -> None:
        for path in paths:
            soundfile.read(path, dtype="float32")

    with tempfile.TemporaryDirectory(dir=listed.parent) as folder:
        data = {"manifest": str(listed), "workers": workers, "max_seconds": 60}
        asked = recipe.from_dict({"name": "speed", "output": folder, "data": data})
        bare, _ = timed(decode)
        whole, clock = timed(lambda: prepare(asked, progress=False))
        index = prepare(asked, progress=False)
        audio = sum(index.seconds(split) for split in index.splits)
    return {"audio": audio, "bare": bare, "whole": whole, "clock": clock}


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of processor time, of ended child processes too, and of the clock."""
    before, started = _processor_seconds(), time.perf_counter()
    action()
    return _processor_seconds() - before, time.perf_counter() - started


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def copies(listed: Path, count: int, folder: Path) -> Path:
    """A manifest that lists every recording ``count`` times."""
    utterances = [
        replace(each, utterance_id=f"{each.utterance_id}-{copy}", path=each.path.resolve())
        for copy in range(count)
        for each in manifest.read(listed)
    ]
    manifest.write(folder / "manifest.tsv", utterances)
    return folder / "manifest.tsv"


def rounds(listed: Path, workers: int, count: int, bar: Progress) -> list[dict[str, float]]:
    """``measure``, each time in a process of its own."""
    command = [sys.executable, __file__, str(listed), "--measure", str(workers)]
    return [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        for _ in bar.track(range(count), description=f"workers: {workers}")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how fast a corpus is prepared.")
    parser.add_argument("manifest", type=Path, help="recordings; FLAC at 16 kHz says the most")
    parser.add_argument("--copies", type=int, default=4, help="of each recording")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=LEAST)
    parser.add_argument("--measure", type=int, metavar="WORKERS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.manifest, given.measure)))
        return 0
    table = Table("workers", "bare decoding", "prepare", "of bare decoding", "by the clock")
    slowest = float("inf")
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        listed = copies(given.manifest, given.copies, Path(folder))
        for workers in (1, 2):
            found = rounds(listed, workers, given.rounds, bar)
            best = {name: min(each[name] for each in found) for name in found[0]}
            bare, whole = best["audio"] / best["bare"], best["audio"] / best["whole"]
            clock = best["audio"] / best["clock"] / workers
            slowest = min(slowest, whole)
            table.add_row(
                str(workers), f"{bare:.0f}", f"{whole:.0f}", f"{whole / bare:.0%}", f"{clock:.0f}"
            )
    console = Console()
    console.print("seconds of audio a second of one core's time; by the clock, for each worker")
    console.print(table)
    print(f"{2 * given.rounds} tried: {slowest:.0f} times real time per core or more")
    return 1 if slowest < given.least else 0


if __name__ == "__main__":
    sys.exit(main())
