"""One implementation in a process of its own, which waits for orders to run a step of it.

    python process.py '{"implementation": "keras", "shape": {"cell": "lstm"}}'

answers with one JSON line when it stands ready, and then with one for every line it reads:
{"do": "train", "seconds": 0.2} repeats that action for at least 0.2 s and gives the mean time of
one; {"do": "memory"} gives the bytes that the process has held at most. TensorFlow and PyTorch
each bring a pool of threads: in one process they would be in each other's way.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from implementations import STACKS, Actions, LeftOut, timed
from networks import FORMS, actions
from recognisers import RECOGNISERS
from recognisers import actions as recogniser
from shapes import Shape


def peak_memory() -> int:
    """Bytes that this process has held at most, 0 where the system does not say."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    return 1024 * int(found[1]) if found else 0


def build(job: dict[str, Any]) -> Actions:
    """What this process can be told to do. A stack trains and infers; the rest is in parts.py."""
    name = job["implementation"]
    if name in FORMS:
        return actions(job)
    if name in RECOGNISERS:
        return recogniser(job)
    shape = Shape(**job["shape"])
    if name not in STACKS:
        return importlib.import_module("parts").build(job, shape)
    if name.startswith("pytorch"):
        return importlib.import_module("pytorch_stack").PyTorchStack(name, shape).actions()
    return importlib.import_module("tensorflow_stack").TensorFlowStack(name, shape).actions()


def versions() -> dict[str, str]:
    known = ("tensorflow", "keras", "torch", "onnxruntime", "ai_edge_litert")
    return {name: sys.modules[name].__version__ for name in known if name in sys.modules}


def main(job: str) -> None:
    # Libraries that print would spoil the answers: what they print goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        known = build(json.loads(job))
    except LeftOut as reason:
        answer(left_out=str(reason))
        return
    found = versions() | {"python": platform.python_version()}
    answer(actions=list(known), versions=found, memory=peak_memory())
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "memory":
            answer(memory=peak_memory())
        else:
            seconds, result = timed(known[order["do"]], order["seconds"])
            answer(seconds=seconds, result=result if isinstance(result, float) else None)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main(sys.argv[1])
