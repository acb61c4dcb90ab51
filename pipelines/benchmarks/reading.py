"""Reading utterances of shards at random, in runs of neighbours, and from end to end.

Shards of random bytes are written; utterances are then read as training does, an open, a seek and a
read each: in random order, as neighbours so many at a time, and one after the other. ``cold`` drops
the file's pages from memory before each pass, ``warm`` is the pass after it.

    python pipelines/benchmarks/reading.py --folder /where/the/shards/will/be
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from speechrnn.data.columns import Row, Rows
from speechrnn.data.index import Index, Shard
from speechrnn.specs import AlphabetSpec


def shards(root: Path, count: int, per_shard: int, length: int) -> Index:
    """``count`` shards of ``per_shard`` payloads of ``length`` bytes."""
    rng = np.random.default_rng(0)
    rows, named = [], []
    for shard in range(count):
        name = f"{shard:05d}.tfrecord"
        with (root / name).open("wb") as file:
            for place in range(per_shard):
                payload = rng.bytes(length)
                where = shard, file.tell(), length, zlib.crc32(payload)
                file.write(payload)
                rows.append(Row(f"{shard}-{place}", "train", "", *where, length // 2, "text"))
        named.append(Shard(name, per_shard, per_shard * length, ""))
    return Index(root, 16_000, AlphabetSpec(("a",)), None, "", tuple(named), Rows.of(rows))


def order(utterances: int, run: int, rng: np.random.Generator) -> np.ndarray:
    """All utterances, ``run`` neighbours at a time, the runs in random order."""
    runs = np.arange(utterances).reshape(-1, run)
    return rng.permutation(runs).reshape(-1)


def seconds(index: Index, numbers: np.ndarray) -> float:
    started = time.perf_counter()
    for i in numbers.tolist():
        index.read_payload(index.rows[i])
    return time.perf_counter() - started


def drop_pages(index: Index) -> None:
    for shard in index.shards:
        descriptor = os.open(index.root / shard.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--per-shard", type=int, default=64, help="utterances")
    parser.add_argument("--kilobytes", type=int, default=400, help="of an utterance: 32 a second")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        count, per_shard = options.shards, options.per_shard
        index = shards(Path(folder), count, per_shard, 1000 * options.kilobytes)
        rng = np.random.default_rng(0)
        total = count * per_shard * options.kilobytes / 1e3
        print(f"{count} shards, {total:,.0f} MB; megabytes a second, best of {options.rounds}")
        for run in sorted({1, 8, per_shard, count * per_shard}):
            numbers = order(count * per_shard, run, rng)
            cold, warm = [], []
            for _ in range(options.rounds):
                drop_pages(index)
                cold.append(seconds(index, numbers))
                warm.append(seconds(index, numbers))
            print(
                f"  runs of {run:5}: cold {total / min(cold):7.0f}, warm {total / min(warm):7.0f}"
            )


if __name__ == "__main__":
    main()
