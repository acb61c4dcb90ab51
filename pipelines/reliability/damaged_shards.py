"""Bit flips and cuts in the shards of a prepared corpus, and in their sidecars.

Promised for each, one at a time:

- a damaged shard is found by ``Index.verify``, which names the file;
- reading its utterances gives the bytes that were written, or an error that names the file;
- a cut shard is found when a training starts, which looks at sizes alone;
- preparing again mends it: every file is as it was. So it is with a damaged sidecar.

A cut is at a random byte, at the end of a record, where TFRecord's own checksums see nothing, or
leaves nothing at all.

    python pipelines/reliability/damaged_shards.py --flips 300 --cuts 100
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from noise_corpora import Corpora, files, finished, make
from rich.console import Console
from rich.progress import Progress

from speechrnn.data import tfrecord
from speechrnn.data.index import Index
from speechrnn.data.prepare import prepare, prepared
from speechrnn.errors import PreparedDataError

SHARDS, SIDECARS = "*.tfrecord", "*.tfrecord.json"


class Damaged:
    """A prepared corpus of which one file after the other is damaged and mended."""

    def __init__(self, corpora: Corpora, seed: int = 0):
        self.corpora, self.random = corpora, random.Random(seed)
        self.root = corpora.folder / "damaged"
        shutil.copytree(corpora.folder / "later-whole", self.root)
        self.recipe = corpora.recipe(corpora.later, self.root)
        self.index = Index.load(self.root)
        self.payloads = [self.index.read_payload(row) for row in self.index.rows]

    def flips(self, count: int, pattern: str = SHARDS) -> Iterator[list[str]]:
        """One bit of a file, at random: the problems of each."""
        for _ in range(count):
            path = self._file(pattern)
            content = bytearray(path.read_bytes())
            at = self.random.randrange(8 * len(content))
            content[at // 8] ^= 1 << at % 8
            path.write_bytes(content)
            yield self._problems(path, f"bit {at} of {path.name}", cut=False)

    def cuts(self, count: int, pattern: str = SHARDS) -> Iterator[list[str]]:
        """The end of a file is gone; of shards a half at ends of records: the problems of each."""
        for number in range(count):
            path = self._file(pattern)
            size = path.stat().st_size
            left = self.random.randrange(size)
            if pattern == SHARDS and number % 2:
                left = self.random.choice([end for end in self._ends(path) if end < size])
            with path.open("rb+") as file:
                file.truncate(left)
            yield self._problems(path, f"{path.name} cut to {left} bytes", cut=True)

    def _file(self, pattern: str) -> Path:
        # Not the shard of the broken recording alone, which is empty.
        found = [path for path in sorted(self.root.glob(pattern)) if path.stat().st_size]
        return self.random.choice(found)

    def _ends(self, path: Path) -> list[int]:
        """Where a record of a shard may end, nothing at all included."""
        number = [shard.name for shard in self.index.shards].index(path.name)
        rows = [row for row in self.index.rows if row.shard == number]
        return [0, *(row.offset + row.length + tfrecord.FOOTER for row in rows)]

    def _problems(self, path: Path, what: str, cut: bool) -> list[str]:
        found = []
        if path.match(SHARDS):
            found += _unnamed(self.index.verify, path, "verify")
            found += self._misread(path)
        if path.match(SHARDS) and cut:
            prepared(self.recipe, progress=False)
        else:
            prepare(self.recipe, progress=False)
        found += finished(self.root, self.corpora)
        return [f"{what}: {problem}" for problem in found]

    def _misread(self, path: Path) -> list[str]:
        found = []
        for row, payload in zip(self.index.rows, self.payloads, strict=True):
            try:
                if self.index.read_payload(row) != payload:
                    found.append(f"{row.utterance_id} is read with other bytes")
            except PreparedDataError as error:
                if path.name not in str(error) or row.utterance_id not in str(error):
                    found.append(f"reading says {error}")
        return found


def _unnamed(check: Callable[[], object], path: Path, name: str) -> list[str]:
    try:
        check()
    except PreparedDataError as error:
        return [] if path.name in str(error) else [f"{name} says {error}"]
    return [f"{name} does not see it"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Damage the shards of a prepared corpus.")
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        damaged = Damaged(make(Path(folder)), given.seed)
        before = files(damaged.root)
        trials = {
            "flips of shards": (damaged.flips(given.flips), given.flips),
            "cuts of shards": (damaged.cuts(given.cuts), given.cuts),
            "flips of sidecars": (damaged.flips(given.flips, SIDECARS), given.flips),
            "cuts of sidecars": (damaged.cuts(given.cuts, SIDECARS), given.cuts),
        }
        failed = 0
        with Progress(console=Console(stderr=True)) as bar:
            for name, (each, count) in trials.items():
                for found in bar.track(each, total=count, description=name):
                    failed += bool(found)
                    for problem in found:
                        bar.console.print(problem, markup=False)
        failed += files(damaged.root) != before
    tried = sum(count for _, count in trials.values())
    counts = ", ".join(f"{count} {name}" for name, (_, count) in trials.items())
    held = "all found, named and mended" if not failed else f"{failed} not found, named or mended"
    print(f"{tried} tried ({counts}): {held}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
