"""Models that are programs, bombs or links.

Each is given to the code that opens MODEL, beside a canary file that their code would change: a
.keras with a Lambda layer; a run directory whose weights are an HDF5 file, hold pickles, declare
arrays of a terabyte, are compressed, or lie elsewhere; descriptions of enormous networks; links and
pipes; SavedModels whose graph reads or writes files or calls Python; a .tflite with operations from
outside. All carry the right checksums, as whoever makes such a file would give them. Promised: each
is refused with a ModelError that names it, nothing of it runs, and memory does not grow.

    python pipelines/reliability/hostile_models.py
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hostile_files import MAKERS, Maker
from rich.console import Console
from rich.progress import track

from speechrnn.errors import ModelError
from speechrnn.runtime import open_model

MEMORY = 400e6  # bytes that the process may grow by while it opens one


def attempts(folder: Path, makers: tuple[Maker, ...] = MAKERS) -> Iterator[tuple[str, list[str]]]:
    """Make and open each -> its name, and what was wrong with how it was taken."""
    for make in makers:
        here = folder / make.__name__
        (here / "model").mkdir(parents=True)
        canary = here / "canary"
        canary.write_text("alive")
        path = make(here / "model", canary)
        grown, problems = _peak(), []
        try:
            open_model(path)
            problems.append("opened")
        except ModelError as error:
            if str(here) not in str(error):
                problems.append(f"not named: {error}")
        except Exception as error:
            problems.append(f"raised {error!r}")
        if canary.read_text() != "alive":
            problems.append("the canary is dead")
        if _peak() - grown > MEMORY:
            problems.append(f"memory grew by {(_peak() - grown) / 1e6:.0f} MB")
        yield make.__name__, problems


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        found = attempts(Path(folder))
        for name, each in track(
            found, "models", len(MAKERS), console=Console(stderr=True), transient=True
        ):
            problems += [f"{name}: {problem}" for problem in each]
    for problem in problems:
        print(problem)
    result = f"{len(problems)} problems" if problems else "all refused, the canary untouched"
    print(f"{len(MAKERS)} tried: {result}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
