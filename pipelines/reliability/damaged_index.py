"""Damage to the files of an index, one change at a time.

Promised: whichever bit of whichever file is turned over, and wherever a file is cut, loading the
index refuses it and names the file; never does it give other rows.

    python pipelines/reliability/damaged_index.py --flips 300 --cuts 100
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import synthetic_index
from rich.console import Console
from rich.progress import track

from speechrnn.data.index import Index
from speechrnn.errors import PreparedDataError

UTTERANCES = 500


def damages(path: Path, flips: int, cuts: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """What was done to a file's content, and what it is then."""
    sound = path.read_bytes()
    for bit in rng.sample(range(8 * len(sound)), min(flips, 8 * len(sound))):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} turned over", bytes(content)
    # The ends of the header and of whole numbers are among the places: the file looks complete.
    places = {0, 128, len(sound) - 1, len(sound) - 8} & {*range(len(sound))}
    others = [*{*range(len(sound))} - places]
    places |= {*rng.sample(others, min(max(0, cuts - len(places)), len(others)))}
    for place in sorted(places)[:cuts]:
        yield f"cut after {place} of {len(sound)} bytes", sound[:place]


def undetected(root: Path, path: Path, damage: bytes) -> str:
    """What loading does with a damaged file; empty if it refuses it by name."""
    sound = path.read_bytes()
    path.write_bytes(damage)
    try:
        Index.load(root)
    except PreparedDataError as error:
        return "" if path.name in str(error) else f"refused without its name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        path.write_bytes(sound)
    return "loaded"


def run(root: Path, flips: int, cuts: int, seed: int = 0) -> tuple[int, list[str]]:
    """Damages tried on an index under ``root``, and what was not detected."""
    synthetic_index.make(root, UTTERANCES, mean_seconds=2.0).save()
    (root / "letters").unlink()
    files = sorted(path for path in root.rglob("*") if path.is_file())
    rng, tried, wrong = random.Random(seed), 0, []
    for path in track(files, "files", console=Console(stderr=True)):
        for what, content in damages(path, flips, cuts, rng):
            tried += 1
            problem = undetected(root, path, content)
            if problem:
                wrong.append(f"{path.name}, {what}: {problem}")
    Index.load(root)  # as it was
    return tried, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flips", type=int, default=300, help="bits turned over, of each file")
    parser.add_argument("--cuts", type=int, default=100, help="of each file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tried, wrong = run(Path(folder), options.flips, options.cuts)
    for each in wrong:
        print(each)
    print(f"{tried} tried: {len(wrong)} not detected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
