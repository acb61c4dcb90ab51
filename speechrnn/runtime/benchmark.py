"""What a model costs where it runs: size, latency, real-time factor, memory, operations."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import speechrnn
from speechrnn.errors import DataError, ModelError, UsageError
from speechrnn.runtime import container, saved_model_folder
from speechrnn.runtime.operations import count_operations

ERRORS = {kind.exit_code: kind for kind in (UsageError, DataError, ModelError)}
STARTS = 3  # of a fresh process: what a start takes varies more than what a result takes
# The clock starts before NumPy, LiteRT or TensorFlow are imported.
SCRIPT = (
    "import sys, time; started = time.perf_counter(); "
    "from speechrnn.runtime.benchmark_process import main; sys.exit(main(started, *sys.argv[1:]))"
)
# LiteRT runs on one thread by itself; TensorFlow reads these.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cost:
    """One model measured on one thread, in processes of its own, on a single clip.

    Times are medians: of ``STARTS`` fresh processes what has to do with the start, else of
    ``runs`` rounds. ``first_partial_s`` and ``piece_s`` are None where the model does not
    stream, the operations where it is no ``.tflite``.
    """

    model: str
    kind: str  # tflite, run or savedmodel
    size_bytes: int
    load_s: float  # from a fresh process to a model ready to run, all imports included
    first_result_s: float  # from a fresh process to the clip's text
    result_s: float  # of the clip, later
    real_time_factor: float  # result_s / clip_s
    first_partial_s: float | None  # from a recording's first sample on, in pieces of 320 ms
    piece_s: float | None  # computing such a piece
    peak_rss_bytes: int  # of the whole process
    multiply_adds_per_second: float  # of audio; see operations.multiply_adds
    operations: dict[str, int] | None  # in the file by name; see operations.count_operations
    operations_total: int | None
    clip_s: float
    runs: int
    threads: int = 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        shown = [(label, show(self)) for label, _, show in ROWS]
        lines = [f"{label:18}{text}" for label, text in shown if text]
        if self.operations:
            # No line ends between a name and its number.
            names = ", ".join(f"{name}\xa0{count}" for name, count in self.operations.items())
            wrapped = textwrap.indent(textwrap.fill(names, 78), "  ")
            lines.append(wrapped.replace("\xa0", " "))
        return "\n".join([*lines, _conditions(self)])


@dataclass(frozen=True)
class Comparison:
    """Two models measured in turn, round by round."""

    model: Cost
    other: Cost

    @property
    def ratios(self) -> dict[str, float | None]:
        """OTHER / MODEL by the name of the field; None where one of them has none."""
        mine, others = self.model.to_dict(), self.other.to_dict()
        return {
            field: others[field] / mine[field] if mine[field] and others[field] else None
            for _, field, _ in ROWS
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.to_dict(),
            "other": self.other.to_dict(),
            "ratios": self.ratios,
            "ratio": "other / model",
        }

    def table(self) -> str:
        lines = [f"MODEL  {self.model.model}", f"OTHER  {self.other.model}", ""]
        lines.append(f"{'':18}{'MODEL':>14}{'OTHER':>14}{'OTHER / MODEL':>16}")
        for label, field, show in ROWS:
            mine, others, ratio = show(self.model), show(self.other), self.ratios[field]
            if mine or others:
                quotient = "" if ratio is None else f"{ratio:.2f}"
                lines.append(f"{label:18}{mine or '-':>14}{others or '-':>14}{quotient:>16}")
        return "\n".join([*lines, _conditions(self.model)])


def _show(field: str, text: str, factor: float = 1) -> Callable[[Cost], str]:
    """A field times ``factor`` by the format ``text``; empty where it is None."""

    def show(cost: Cost) -> str:
        value = getattr(cost, field)
        return "" if value is None else text.format(factor * value)

    return show


# What is shown, its field, and how.
ROWS: tuple[tuple[str, str, Callable[[Cost], str]], ...] = tuple(
    (label, field, _show(field, *how))
    for label, field, *how in (
        ("size", "size_bytes", "{:.2f} MB", 1e-6),
        ("load", "load_s", "{:.3f} s"),
        ("first result", "first_result_s", "{:.3f} s"),
        ("later results", "result_s", "{:.1f} ms", 1e3),
        ("real-time factor", "real_time_factor", "{:.5f}"),
        ("first partial", "first_partial_s", "{:.1f} ms", 1e3),
        ("320 ms piece", "piece_s", "{:.2f} ms", 1e3),
        ("peak memory", "peak_rss_bytes", "{:.1f} MB", 1e-6),
        ("multiply-adds", "multiply_adds_per_second", "{:.1f} M/s", 1e-6),
        ("operations", "operations_total", "{:d}"),
    )
)


def _conditions(cost: Cost) -> str:
    streaming = "" if cost.piece_s is None else "; first partial: from the first sample on"
    return (
        f"{cost.clip_s:g} s of audio, one thread (TensorFlow's too); medians of {cost.runs} "
        f"rounds and of {STARTS} starts\nload, first result: from a fresh process on{streaming}"
    )


def measure(
    model: str | Path, seconds: float = 10.0, runs: int = 5, progress: Progress | None = None
) -> Cost:
    """Measure a model on a clip of noise. ``progress`` gets (measurements done, of how many).

    Raises:
        ModelError: the model cannot be opened.
        UsageError: it needs TensorFlow, which is not installed.
    """
    (cost,) = _measure_in_turn([Path(model)], seconds, runs, progress)
    return cost


def compare(
    model: str | Path,
    other: str | Path,
    seconds: float = 10.0,
    runs: int = 5,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two models as ``measure`` does one, in turn: start by start, round by round.

    Whatever else the machine does meanwhile, it does to both. Raises as ``measure`` does.
    """
    return Comparison(*_measure_in_turn([Path(model), Path(other)], seconds, runs, progress))


def _measure_in_turn(
    models: Sequence[Path], seconds: float, runs: int, progress: Progress | None
) -> list[Cost]:
    done, total = 0, len(models) * (STARTS + runs)

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    beginnings: list[list[dict[str, Any]]] = [[] for _ in models]
    rounds: list[list[dict[str, Any]]] = [[] for _ in models]
    with ExitStack() as stack:
        for start in range(STARTS):
            processes = []
            for model, found in zip(models, beginnings, strict=True):
                process = stack.enter_context(_process(model, seconds))
                processes.append(process)
                found.append(process.answer())
                if start < STARTS - 1:
                    process.end()
                step()
        for _ in range(runs):
            for process, answers in zip(processes, rounds, strict=True):
                answers.append(process.round())
                step()
    return [
        _cost(model, seconds, *found)
        for model, *found in zip(models, beginnings, rounds, strict=True)
    ]


def _cost(
    model: Path, seconds: float, beginnings: list[dict[str, Any]], rounds: list[dict[str, Any]]
) -> Cost:
    result = statistics.median(found["result_s"] for found in rounds)
    operations = count_operations(container.read(model).model_bytes) if model.is_file() else None
    return Cost(
        model=str(model),
        kind=beginnings[0]["kind"],
        size_bytes=size_of(model),
        load_s=statistics.median(found["load_s"] for found in beginnings),
        first_result_s=statistics.median(found["first_result_s"] for found in beginnings),
        result_s=result,
        real_time_factor=result / seconds,
        first_partial_s=_median(beginnings, "first_partial_s"),
        piece_s=_median(rounds, "piece_s"),
        peak_rss_bytes=rounds[-1]["peak_rss_bytes"],
        multiply_adds_per_second=beginnings[0]["multiply_adds_per_second"],
        operations=operations,
        operations_total=None if operations is None else sum(operations.values()),
        clip_s=seconds,
        runs=len(rounds),
    )


def _median(answers: list[dict[str, Any]], name: str) -> float | None:
    values = [answer[name] for answer in answers]
    return None if None in values else statistics.median(values)


@contextmanager
def _process(model: Path, seconds: float) -> Iterator[_Process]:
    """A fresh process with one model, which ends with the block."""
    package_root = str(Path(speechrnn.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, str(model), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
        ) as process,
    ):
        try:
            yield _Process(model, process, complaints)
        finally:
            process.kill()


@dataclass(frozen=True)
class _Process:
    model: Path
    process: subprocess.Popen[str]
    complaints: TextIO

    def end(self) -> None:
        self.process.communicate()  # closes its stdin, and waits

    def round(self) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # it has ended, and ``answer`` says why
            print(file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line of the process.

        Raises:
            UsageError, DataError, ModelError: as the process did.
            ModelError: the process ended in another way.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        answer: dict[str, Any] = json.loads(line or "{}")
        if answer and "error" not in answer:
            return answer
        code = self.process.wait()
        if code in ERRORS and answer:
            raise ERRORS[code](answer["error"])
        self.complaints.seek(0)
        complaints = self.complaints.read().strip()
        raise ModelError(f"{self.model} could not be measured (exit code {code}):\n{complaints}")


def size_of(model: Path) -> int:
    """Bytes of a file; of a SavedModel's files; of a run's model without its checkpoints."""
    if model.is_file():
        return model.stat().st_size
    if (model / "model.json").is_file():
        return sum(p.stat().st_size for p in [model / "model.json", *model.glob("weights-*.npz")])
    folder = saved_model_folder(model) or model
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
