"""What a training step costs as a recipe may ask for it: in parts, compiled, in bfloat16, exact.

    python pipelines/benchmarks/training_step.py                      about four minutes
    python pipelines/benchmarks/training_step.py --rows one,jit --seconds 5

The step that a run takes (forward, CTC, backward, clipping, AdamW) on 16 utterances of up to 250
frames of 80 log-mels, three bidirectional LSTM layers of 256 units, frames stacked by one, so that
recurrence is nearly all of it. Every row is a process of its own; all of them stand ready and take
turns, so that a machine that slows down slows all of them. Best of all rounds, by the clock and by
processor time, which others on the machine disturb less; the memory is the process's peak. `first`
is the first step, graphs and compilation included: with jit, what every new shape of a batch costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from process import peak_memory

ROWS: dict[str, dict[str, Any]] = {
    "one": {},
    "accumulate 2": {"accumulate": 2},
    "accumulate 4": {"accumulate": 4},
    "jit": {"jit": True},
    "bfloat16": {"precision": "bfloat16"},
    "determinism": {"determinism": True},
}


def child(row: str, shape: dict[str, int]) -> None:
    """Make a learner, tell what its first step took, then take steps for as long as told."""
    import numpy as np

    from speechrnn import model as network
    from speechrnn import recipe
    from speechrnn.specs import AlphabetSpec, RecogniserSpec
    from speechrnn.training import determinism, threads
    from speechrnn.training.recogniser import RecogniserLearner

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    layers = {"units": shape["units"], "layers": shape["layers"], "dropout": 0.0}
    described = {
        "name": "step",
        "output": "unused",
        "data": {"manifest": "unused"},
        "model": {**layers, "subsampling": "stack", "time_stride": 1},
        "training": ROWS[row],
    }
    loaded = recipe.from_dict(described)
    threads.configure()
    determinism.configure(loaded.training)
    alphabet = AlphabetSpec(tuple("abcdefghijklmnopqrstuvwxyz' "), loaded.text)
    spec = RecogniserSpec(loaded.features, alphabet, loaded.model, None)
    built = network.build(spec, 0, loaded.training.precision)
    learner = RecogniserLearner(built, spec, loaded)
    rng, rows, frames = np.random.default_rng(0), shape["rows"], shape["frames"]
    lengths = np.sort(rng.integers(frames * 3 // 4, frames + 1, rows).astype(np.int32))
    batch = {
        "features": rng.normal(size=[rows, frames, 80]).astype(np.float32),
        "frames": lengths,
        "labels": rng.integers(1, 27, [rows, 40]).astype(np.int32),
    }
    started = time.perf_counter()
    loss = learner.step(batch, 1e-6)[0].numpy()
    first = time.perf_counter() - started
    print(json.dumps({"first": first, "loss": float(loss)}), file=answers, flush=True)
    for line in sys.stdin:
        best, least, end = float("inf"), float("inf"), time.perf_counter() + float(line)
        while time.perf_counter() < end:
            started, used = time.perf_counter(), time.process_time()
            learner.step(batch, 1e-6)[0].numpy()
            best = min(best, time.perf_counter() - started)
            least = min(least, time.process_time() - used)
        found = {"step": best, "processor": least, "memory": peak_memory()}
        print(json.dumps(found), file=answers, flush=True)


def main(rows: list[str], shape: dict[str, int], rounds: int, seconds: float) -> dict[str, Any]:
    """Row -> the seconds of its first and of its best step, its loss and its peak of memory."""
    found: dict[str, Any] = {}
    processes: dict[str, Any] = {}
    for row in rows:
        command = [sys.executable, __file__, "--child", row, "--shape", json.dumps(shape)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process: Any = subprocess.Popen(command, cwd=Path(__file__).parent, **pipes)
        processes[row], answer = process, process.stdout.readline()
        found[row] = json.loads(answer) if answer else {"failed": True}
        print(f"{row} stands ready", file=sys.stderr, flush=True)
    for _ in range(rounds):
        for row, process in processes.items():
            if "failed" in found[row]:
                continue
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            for name in ("step", "processor"):
                found[row][name] = min(told[name], found[row].get(name, told[name]))
            found[row]["memory"] = told["memory"]
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return found


def table(found: dict[str, Any]) -> str:
    """As the documentation has it."""
    lines = ["| | ms a step | of one | processor ms | of one | peak MB | first step, s | loss |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
    one = next(iter(found.values()))
    for row, told in found.items():
        if "failed" in told:
            lines.append(f"| {row} | failed | | | | | | |")
            continue
        step, used = told["step"], told["processor"]
        lines.append(
            f"| {row} | {1e3 * step:.0f} | {step / one['step']:.2f} "
            f"| {1e3 * used:.0f} | {used / one['processor']:.2f} "
            f"| {told['memory'] / 1e6:.0f} | {told['first']:.0f} | {told['loss']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="of " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a row in a round")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    shape = {"rows": 16, "frames": 250, "units": 256, "layers": 3}
    parser.add_argument("--shape", type=json.loads, default=shape, help="as JSON")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    given.shape = {**shape, **given.shape}
    if given.child:
        child(given.child, given.shape)
    else:
        told = main(given.rows.split(","), given.shape, given.rounds, given.seconds)
        print(table(told))
        if given.json:
            found = {"shape": given.shape, "rows": told}
            given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
