"""Tar archives that mean harm, as a corpus and as AN4's download.

    python pipelines/reliability/archives.py --count 2000

Promised of three dozen hostile archives and of mutations of them, read as a corpus (nothing is
unpacked) and unpacked as AN4's archive is: each is refused with its name, or harmless. Nothing is
written outside of the folder that was asked for, a canary file there is untouched, no link and no
device is made, and none takes more than 2 s of processor time or 512 MB of memory.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hostile_archives import ARCHIVES, mutated
from rich.console import Console
from rich.progress import track

from speechrnn import corpora
from speechrnn.corpora import an4
from speechrnn.errors import DataError

CANARY = b"untouched"
MOST_SECONDS = 2.0
MOST_BYTES = 512 * 2**20
ADDRESS_SPACE = 4 * 2**30


def attack(count: int, console: Console | None = None) -> tuple[Counter[str], list[str]]:
    """Every hostile archive and ``count`` mutations -> the outcomes, and what was broken."""
    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder) / "outside"
        cases = list(_cases(count, outside))
        for name, content in track(cases, "attacking", console=console, disable=console is None):
            for unpack in (False, True):
                outcome, problem = _attacked(Path(folder), outside, content, unpack)
                outcomes[outcome] += 1
                broken += [f"{name}, {'unpacked' if unpack else 'read'}: {problem}"] * bool(problem)
    return outcomes, broken


def _cases(count: int, outside: Path) -> Iterator[tuple[str, bytes]]:
    made = {name: make(outside) for name, make in ARCHIVES.items()}
    yield from made.items()
    names = list(made)
    for seed in range(count):
        name = names[seed % len(names)]
        yield f"{name}, mutation {seed}", mutated(made[name], seed)


def _attacked(folder: Path, outside: Path, content: bytes, unpack: bool) -> tuple[str, str]:
    """The outcome, and the promise that was broken."""
    inside = folder / "inside"
    inside.mkdir()
    outside.mkdir()
    (outside / "canary").write_bytes(CANARY)
    before = _seen(folder, inside)
    started = time.process_time()
    try:
        if unpack:
            (inside / "an4_sphere.tar.gz").write_bytes(gzip.compress(content, 1))
            an4.download(inside)
        else:
            (inside / "corpus.tar").write_bytes(content)
            corpora.read(inside / "corpus.tar")
        outcome, problem = "harmless", ""
    except DataError as error:
        outcome, problem = "refused", "" if str(inside) in str(error) else f"unnamed: {error}"
    except Exception as error:
        outcome, problem = "error", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    if seconds > MOST_SECONDS:
        problem = f"{seconds:.2f} s of processor time"
    if _seen(folder, inside) != before or (outside / "canary").read_bytes() != CANARY:
        problem = "something outside was touched"
    strange = [p for p in inside.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
    if strange:
        problem = f"{strange[0].name} is a link or a device"
    if not unpack and len(list(inside.iterdir())) != 1:
        problem = "something was unpacked"
    shutil.rmtree(inside)
    shutil.rmtree(outside)
    return outcome, problem


def _seen(folder: Path, inside: Path) -> set[tuple[str, int, int, int]]:
    """All that is outside: path, size, links and time of each; and what was planted elsewhere."""
    found = set()
    for path in [*folder.rglob("*"), *folder.parent.glob("planted"), Path("/planted")]:
        if path.exists() and not path.is_relative_to(inside):
            status = path.stat()
            found.add((str(path), status.st_size, status.st_nlink, status.st_mtime_ns))
    return found


def main() -> None:
    """Attack, print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000, help="mutated archives")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    outcomes, broken = attack(asked.count, Console(stderr=True))
    for problem in broken:
        print(problem)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{len(ARCHIVES)} hostile archives and {asked.count} mutations, read and unpacked, tried: "
        f"{outcomes['refused']} refused, {outcomes['harmless']} harmless, {len(broken)} broke a "
        f"promise, {peak / 2**20:.0f} MB at most"
    )
    sys.exit(1 if broken or peak > MOST_BYTES else 0)


if __name__ == "__main__":
    main()
