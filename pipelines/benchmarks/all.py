"""Every benchmark, one after the other, and docs/benchmarks.md from what they find.

    python pipelines/benchmarks/all.py                        about 25 minutes on two quiet cores
    python pipelines/benchmarks/all.py --only features        one part; the others stay as they are
    python pipelines/benchmarks/all.py --page                 measure nothing, write the page again
    python pipelines/benchmarks/all.py --quick --results q.json --docs /tmp      does it all run?

Each part is one of the scripts beside this one, in a process of its own; ratios are within a part.
What they find goes to pipelines/results/benchmarks.json after each, with the machine's description
and how busy it was with other things before; stop it when you like. Keras, librosa and
flashlight-text come with ``make install``. The other peers are optional, and a row says where one
is missing:

    pip install torch onnx onnxruntime pocketsphinx

Parts that need speech use AN4: where the environment variable SPEECHRNN_DATA names a folder with
an4/manifest.tsv, that; what --data names; or else a download of 64 MB. Exits with 1 where a part
could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import chart
import page
from machine import machine, versions
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from speechrnn.files import write_atomically

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
RESULTS = REPOSITORY / "pipelines" / "results" / "benchmarks.json"
DOCS = REPOSITORY / "docs"

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A script beside this one, and what it is called with.

    Args:
        quick: options of its smallest form, which shows that it runs and measures nothing.
        minutes: on two quiet cores, for the progress bar.
        speech: whether it needs AN4, which --data may name.
    """

    script: str
    options: tuple[str, ...]
    quick: tuple[str, ...]
    minutes: float
    speech: bool = False


TINY_STACK = (
    *("--cells", "lstm", "--implementations", "keras", "ours-float32", "pytorch-dense"),
    *("--batch=2", "--frames=9", "--units=4", "--layers=1", "--rounds=1", "--seconds=0"),
)
TINY_STEP = (
    *("--rows=one,accumulate 2", "--rounds=1", "--seconds=0.01"),
    '--shape={"rows":2,"frames":120,"units":4,"layers":1}',
)
TINY_NETWORK = (
    *("--forms", "litert-float32", "litert-int8", "keras-float32", "onnx-int8"),
    *("--units=8", "--layers=1", "--mels=16", "--channels=4", "--symbols=6"),
    *("--rounds=1", "--seconds=0"),
)

# In the order of the page. FOLDER is one that is deleted at the end.
PARTS = {
    "training_step": Part("recurrent.py", ("--cells", "lstm", "gru"), TINY_STACK, 6),
    "training_options": Part("training_step.py", (), TINY_STEP, 4),
    "inference": Part("inference.py", (), TINY_NETWORK, 2),
    "features": Part("features.py", (), ("--rounds=1",), 0.5),
    "input_pipeline": Part(
        "input_pipeline.py",
        ("output=FOLDER/run",),
        ("--rounds=1", "model.units=8"),
        2,
        speech=True,
    ),
    "decoding": Part(
        "beam_search.py", ("--files=FOLDER/decoding",), ("--rounds=1", "--trials=2"), 3, True
    ),
    "recognisers": Part("beside_pocketsphinx.py", (), ("--rounds=1", "--utterances=4"), 3, True),
}


def command_of(part: Part) -> str:
    """What a reader types to measure the part alone."""
    options = [option for option in part.options if "FOLDER" not in option]
    return " ".join(["python", f"pipelines/benchmarks/{part.script}", *options])


def measure(
    name: str, folder: Path, data: Path | None, quick: bool, advance: Callable[[float], None]
) -> Found:
    """Run a part: what it found, or in ``failed`` why it could not. ``advance`` gets the minutes
    that it has taken."""
    part, written = PARTS[name], folder / f"{name}.json"
    options = [*part.options, *(part.quick if quick else ()), f"--json={written}"]
    options += [f"--data={data}"] if part.speech and data else []
    options = [option.replace("FOLDER", str(folder)) for option in options]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": path}
    started = time.monotonic()
    with (folder / f"{name}.log").open("w+", errors="replace") as log:
        with subprocess.Popen(
            [sys.executable, HERE / part.script, *options],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    advance((time.monotonic() - started) / 60)
            finally:
                process.terminate()
        log.seek(0)
        said = [line.strip() for line in log if line.strip()]
    record = {"command": command_of(part), "minutes": (time.monotonic() - started) / 60}
    if process.returncode != 0 or not written.exists():
        last = said[-1][:300] if said else "it said nothing"
        return {**record, "failed": f"exit code {process.returncode}: {last}"}
    return {**record, "found": json.loads(written.read_bytes())}


def _advance(bar: Progress, task: TaskID, minutes: float) -> None:
    """A part that takes longer than it should waits at the end of its bar."""
    bar.update(task, completed=min(minutes, bar.tasks[task].total or minutes))


def run(names: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Measure ``names``, save each as it ends; those that could not be measured."""
    conditions = {
        "machine": machine(),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "quick": options.quick,
    }
    known: Found = json.loads(options.results.read_bytes()) if options.results.exists() else {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    failed = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar,
    ):
        tasks = {name: bar.add_task(name, total=PARTS[name].minutes, start=False) for name in names}
        for name, task in tasks.items():
            bar.start_task(task)
            found = measure(
                name, Path(folder), options.data, options.quick, partial(_advance, bar, task)
            )
            bar.update(task, completed=PARTS[name].minutes)
            if "failed" in found:
                failed.append(name)
                bar.console.print(f"{name}: {found['failed']}", markup=False)
            known[name] = {**conditions, **found}
            save({each: known[each] for each in PARTS if each in known}, options.results)
    return failed


def save(results: Found, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())


def write_page(results: Path, docs: Path) -> None:
    """``docs``/benchmarks.md and its picture."""
    found = json.loads(results.read_text(encoding="utf-8"))
    picture = docs / "images" / "benchmarks.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    chart.draw(page.ratios(found), picture)
    write_atomically(docs / "benchmarks.md", page.page(found, list(PARTS)).encode())


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; repeatable")
    parser.add_argument("--page", action="store_true", help="write the page from what is known")
    parser.add_argument("--quick", action="store_true", help="each part in its smallest form")
    parser.add_argument("--data", type=Path, help="AN4's unpacked archive, or a manifest")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="JSON")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER")
    options = parser.parse_args(given)
    failed = [] if options.page else run(options.only or list(PARTS), options)
    write_page(options.results, options.docs)
    print(f"{options.docs / 'benchmarks.md'} is written")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    # Ended from outside, the part under way is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
