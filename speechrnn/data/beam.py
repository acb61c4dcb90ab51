"""Shards written by Apache Beam: on FnApiRunner here, on Flink, Spark or Dataflow elsewhere.

The work is a list of plans in a file of the prepared folder, a plan a line. Whoever takes a line
decodes the recordings of that shard and writes it into the folder, so no audio passes through Beam
or the process that starts it; all workers must see recordings and folder under the same paths. A
line done twice does no harm.
"""

from __future__ import annotations

import base64
import glob
import logging
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from speechrnn.data import shards
from speechrnn.data.progress import Bar
from speechrnn.data.shards import Plan, Written
from speechrnn.data.utterance import Settings
from speechrnn.errors import MachineRefused, MissingExtra, UsageError

logging.disable(logging.WARNING)  # Beam's import tells everyone that Google's clients are absent
try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner
except ImportError as error:
    raise MissingExtra("preparing with --runner", "beam") from error
finally:
    logging.disable(logging.NOTSET)

PLANS_FILE = ".plans.beam"
LOCAL = "FnApiRunner"
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # tells errors twice
LOOK_SECONDS = 1.0  # between two looks into the folder, for the progress bar


def bring_up_to_date(
    root: Path,
    plans: Sequence[Plan],
    settings: Settings,
    runner: str,
    options: Sequence[str],
    bar: Bar,
) -> list[Written]:
    """The planned shards, of which only those are written that are not there and sound.

    Args:
        runner: the name of one of Beam's runners.
        options: for Beam, as on its command line.

    Raises:
        UsageError: no such runner.
        MachineRefused: the pipeline failed, or its workers wrote elsewhere.
    """
    known = _options(runner, options)
    bar.expect(sum(len(planned.utterances) for planned in plans))
    root = root.absolute()
    file = root / PLANS_FILE
    try:
        file.write_bytes(b"".join(_line(planned) + b"\n" for planned in plans))
        with _watched(root, plans, settings, bar):
            _run(file, settings, runner, known)
    finally:
        file.unlink(missing_ok=True)
    return [_found(root, planned, runner) for planned in plans]


def _found(root: Path, planned: Plan, runner: str) -> Written:
    found = shards.current(root, planned, read=False)
    if found is None:
        raise MachineRefused(
            f"{runner} ended, and {root / planned.name} is not there. Its workers must see "
            f"{root} under this path: name a folder that they share as data.prepared"
        )
    return found


@contextmanager
def _watched(root: Path, plans: Sequence[Plan], settings: Settings, bar: Bar) -> Iterator[None]:
    """Move the bar by the shards that come to stand in the folder."""
    waited = {planned.name: len(planned.utterances) for planned in plans}
    ended = threading.Event()

    def look() -> None:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name in waited:
                    seconds = entry.stat().st_size / 2 / settings.sample_rate
                    bar.advance(waited.pop(entry.name), seconds)

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


def _options(runner: str, options: Sequence[str]) -> PipelineOptions:
    if runner.lower() in ("direct", "directrunner"):
        raise UsageError(
            f"{runner} of this Beam first downloads an executable; on one machine, name {LOCAL}, "
            "or leave --runner out"
        )
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        told = str(error).rstrip(".")
        raise UsageError(
            f"--runner {runner}: {told}. On one machine, name {LOCAL}; on a cluster FlinkRunner, "
            "SparkRunner or DataflowRunner, with the packages that Beam wants for it"
        ) from error
    return PipelineOptions([*options, f"--runner={runner}"])


def _run(file: Path, settings: Settings, runner: str, options: PipelineOptions) -> None:
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            coder = apache_beam.coders.BytesCoder()
            name = glob.escape(str(file))  # Beam takes a pattern
            lines = pipeline | "plans" >> apache_beam.io.ReadFromText(name, coder=coder)
            # A stage's input stays with whoever has read it, unless it is dealt out anew.
            dealt = lines | "deal out" >> apache_beam.Reshuffle()
            dealt | "write shards" >> apache_beam.Map(_Ensure(file.parent, settings))
    except ValueError as error:
        raise UsageError(f"--runner {runner}: {' '.join(str(error).split())}") from error
    except (OSError, RuntimeError) as error:
        # In this process Beam takes an interruption for a failure of what it interrupted.
        if isinstance(error.__context__, KeyboardInterrupt | SystemExit):
            raise error.__context__ from None
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise MachineRefused(
            f"preparing on {runner} failed: {told[-1]}. Shards that were finished stay: mend the "
            "cause and prepare again, which goes on with the others"
        ) from error


class _Ensure:
    """A line of the file -> its shard, on disk. Sent to Beam's workers."""

    def __init__(self, root: Path, settings: Settings):
        self.root, self.settings = root, settings

    def __call__(self, line: bytes) -> None:
        # Only this program writes these lines, as Beam's own messages are pickles of its own.
        planned = pickle.loads(base64.b64decode(line))
        shards.ensure(self.root, planned, self.settings)


def _line(planned: Plan) -> bytes:
    # Columns that only describe an utterance may be long, and nobody there reads them.
    bare = tuple(replace(each, columns={}) for each in planned.utterances)
    return base64.b64encode(pickle.dumps(replace(planned, utterances=bare)))
