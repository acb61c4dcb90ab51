"""Damaged and hostile recordings, thousands of them, each prepared as a corpus's would be.

    python pipelines/reliability/audio_files.py --count 5000

Promised of mutated WAV, FLAC, Ogg Vorbis, Opus and MP3 files, and of three dozen bombs, each as a
file and as a member of a tar archive: a rejection with a reason, or finite audio of at most the
length that was asked for; no crash, none over 2 s of processor time, memory under 512 MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from hostile_audio import BOMBS, mutated
from rich.console import Console
from rich.progress import track

from speechrnn.corpora.archives import Archive
from speechrnn.corpora.utterance import Member, Utterance
from speechrnn.data.utterance import Prepared, Settings, prepare_utterance

MOST_SECONDS = 2.0  # of processor time for one recording
MOST_BYTES = 512 * 2**20  # resident
ADDRESS_SPACE = 4 * 2**30  # more than libraries map, less than what a bomb could ask for
SETTINGS = Settings(sample_rate=16_000, min_seconds=0.2, max_seconds=20.0)
IN_A_PROCESS = 250  # recordings
CHILD = (sys.executable, __file__)


@dataclass(frozen=True)
class Tried:
    """What came of one recording; ``problem`` says which promise it broke."""

    name: str
    outcome: str  # "audio", or the reason of the rejection
    seconds: float = 0.0
    problem: str = ""


def fuzz(
    count: int, first: int = 0, bombs: Iterable[str] = BOMBS, console: Console | None = None
) -> tuple[list[Tried], int]:
    """``count`` mutated recordings and the bombs -> what came of them, and the most bytes that
    any process had resident."""
    jobs: list[list[str]] = [
        [str(n) for n in range(start, min(start + IN_A_PROCESS, first + count))]
        for start in range(first, first + count, IN_A_PROCESS)
    ]
    jobs += [[name] for name in bombs]
    tried: list[Tried] = []
    peak = 0
    for job in track(jobs, "preparing", console=console, disable=console is None):
        found, most = _in_processes(job)
        tried += found
        peak = max(peak, most)
    return tried, peak


def _in_processes(names: Sequence[str]) -> tuple[list[Tried], int]:
    """The recordings, one after another, in a process; in another one from behind one that ends
    it."""
    tried: list[Tried] = []
    peak = 0
    while names:
        with tempfile.TemporaryDirectory() as folder:
            child = [*CHILD, "--child", folder, *names]
            done = subprocess.run(child, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        peak = max([peak, *(line["peak"] for line in lines)])
        tried += [Tried(**line["tried"]) for line in lines if "tried" in line]
        finished = len({line["name"] for line in lines if line.get("finished")})
        if finished < len(names):
            died = f"the process ended with {done.returncode}: {done.stderr[-200:]}"
            tried.append(Tried(names[finished], "crash", problem=died))
            finished += 1
        names = names[finished:]
    return tried, peak


def _child(folder: Path, names: Sequence[str]) -> None:
    """Prepare the recordings under a limit, telling of each as soon as it is done."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for name in names:
        path = _made(name, folder)
        for utterance in chain([Utterance(name, path, "", "train")], _as_member(name, path)):
            _tell(tried=vars(_tried(utterance)))
        _tell(name=name, finished=True)
        path.unlink()


def _made(name: str, folder: Path) -> Path:
    if name in BOMBS:
        suffix, make = BOMBS[name]
        path = folder / f"bomb.{suffix}"
        make(path)
        return path
    suffix, content = mutated(int(name))
    path = folder / f"{name}.{suffix}"
    path.write_bytes(content)
    return path


def _as_member(name: str, path: Path) -> Iterator[Utterance]:
    """The same in an archive, which is there while it is used; gigabytes of holes are left out."""
    if path.stat().st_size > 2**28:
        return
    packed = path.with_suffix(".tar")
    with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(path, arcname=path.name)
    with Archive(packed) as archive:
        members: list[Member] = list(archive.members())
    yield Utterance(f"{name} in a tar", packed, "", "train", within=members[0])
    packed.unlink()


def _tried(utterance: Utterance) -> Tried:
    started = time.process_time()
    found = prepare_utterance(utterance, SETTINGS)
    seconds = time.process_time() - started
    problem, outcome = "", "audio"
    if isinstance(found, Prepared):
        samples = np.frombuffer(found.pcm16, "<i2")
        longest = SETTINGS.max_seconds * SETTINGS.sample_rate
        if not 0 < len(samples) <= longest + 1:
            problem = f"{len(samples)} samples"
    else:
        outcome = found.reason
        if outcome in ("unexpected", "bad_data"):
            problem = found.message
    if seconds > MOST_SECONDS:
        problem = f"{seconds:.2f} s of processor time"
    return Tried(utterance.utterance_id, outcome, seconds, problem)


def _tell(**what: Any) -> None:
    print(json.dumps({"peak": _peak(), **what}), flush=True)


def _peak() -> int:
    """The most bytes this process had resident. Not ``getrusage``'s, which begins at what the
    process had that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Try them, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5_000, help="mutated recordings")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(Path(asked.child[0]), asked.child[1:])
        return
    tried, peak = fuzz(asked.count, asked.first, console=Console(stderr=True))
    outcomes = Counter(each.outcome for each in tried)
    for outcome, number in outcomes.most_common():
        print(f"{number:6} {outcome}")
    broken = [each for each in tried if each.problem]
    for each in broken:
        print(f"{each.name}: {each.outcome}: {each.problem}")
    slowest = max(tried, key=lambda each: each.seconds)
    kept = not broken and peak <= MOST_BYTES
    print(
        f"{asked.count} mutated files and {len(BOMBS)} bombs, as files and in tars, tried: "
        f"{len(broken)} broke a promise ({outcomes['crash']} crashes), "
        f"{outcomes['audio'] / len(tried):.0%} gave audio, slowest {slowest.seconds:.2f} s "
        f"({slowest.name}), {peak / 2**20:.0f} MB at most"
    )
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
