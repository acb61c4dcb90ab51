"""What a model costs where it runs: size, load time, memory, real-time factor."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import speechrnn
from speechrnn.errors import DataError, ModelError, SpeechRNNError, UsageError
from speechrnn.runtime import open_model, saved_model_folder

ERRORS = {kind.exit_code: kind for kind in (UsageError, DataError, ModelError)}


@dataclass(frozen=True)
class Cost:
    """One model measured in a process of its own, on a single clip."""

    model: str
    size_bytes: int
    load_s: float  # from the path to a model ready to run, TensorFlow's import included
    first_result_s: float
    real_time_factor: float  # median processing time / clip length
    peak_rss_bytes: int  # of the whole process
    clip_s: float
    runs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        return "\n".join(
            [
                f"size              {self.size_bytes / 1e6:.2f} MB",
                f"load              {self.load_s:.2f} s",
                f"first result      {1000 * self.first_result_s:.0f} ms for {self.clip_s:g} s",
                f"real-time factor  {self.real_time_factor:.4f} (median of {self.runs})",
                f"peak memory       {self.peak_rss_bytes / 1e6:.0f} MB",
            ]
        )


def measure(model: str | Path, seconds: float = 10.0, runs: int = 5) -> Cost:
    """Measure a model on a clip of noise, in a fresh process so that its memory is its own.

    Raises:
        ModelError: the model cannot be opened.
        UsageError: it needs TensorFlow, which is not installed.
    """
    command = [sys.executable, "-m", "speechrnn.runtime.benchmark", str(model)]
    package_root = str(Path(speechrnn.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, str(seconds), str(runs)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode in ERRORS:
        raise ERRORS[done.returncode](json.loads(done.stdout.splitlines()[-1]))
    if done.returncode != 0:
        raise ModelError(f"{model} could not be measured:\n{done.stderr.strip()}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _measure_here(model: Path, seconds: float, runs: int) -> Cost:
    start = time.perf_counter()
    recogniser = open_model(model)
    load = time.perf_counter() - start
    samples = int(seconds * recogniser.spec.features.sample_rate)
    clip = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        recogniser.transcribe(clip)
        times.append(time.perf_counter() - start)
    # The first result is slower (allocation, tracing); it is told apart, not averaged in.
    first, repeated = times[0], times[1:]
    return Cost(
        model=str(model),
        size_bytes=size_of(model),
        load_s=load,
        first_result_s=first,
        real_time_factor=statistics.median(repeated) / seconds,
        peak_rss_bytes=_peak_rss(),
        clip_s=seconds,
        runs=runs,
    )


def _peak_rss() -> int:
    """Bytes this process has held at most.

    Linux's ru_maxrss would do, did it not start at what the process held that started this one.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def size_of(model: Path) -> int:
    """Bytes of a file; of a SavedModel's files; of a run's model without its checkpoints."""
    if model.is_file():
        return model.stat().st_size
    if (model / "model.json").is_file():
        return sum(p.stat().st_size for p in [model / "model.json", *model.glob("weights-*.npz")])
    folder = saved_model_folder(model) or model
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(model: str, seconds: str, runs: str) -> int:
    """Print the cost, or the message of an error, as JSON; returns the exit code."""
    try:
        print(json.dumps(_measure_here(Path(model), float(seconds), int(runs)).to_dict()))
        return 0
    except SpeechRNNError as error:
        print(json.dumps(str(error)))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
