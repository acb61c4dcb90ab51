"""The same bits every time: what ``training.determinism`` switches on, and what it holds for."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

from speechrnn.recipe import TrainingSection


def configure(section: TrainingSection) -> None:
    """Let every operation of this process give the same bits for the same inputs, if the recipe
    says so; for good, as TensorFlow knows no way back."""
    if section.determinism:
        tf.config.experimental.enable_op_determinism()


def conditions(section: TrainingSection) -> dict[str, str]:
    """All that the last bits of a run may depend on beside its recipe and its data, by name.

    Sums are cut by the number of threads, and kernels are chosen by the processor.
    """
    threading = tf.config.threading
    threads = [
        threading.get_intra_op_parallelism_threads(),
        threading.get_inter_op_parallelism_threads(),
    ]
    return {
        "training.determinism": str(section.determinism).lower(),
        "number of threads": "{} and {}".format(*threads),
        "number of cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }


def changes(before: Mapping[str, str], section: TrainingSection) -> str:
    """Which conditions are not what they were ``before``, for people; empty where all are."""
    now = conditions(section)
    return ", ".join(
        f"{name} {now.get(name, 'unknown')} (was {value})"
        for name, value in before.items()
        if now.get(name) != value
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
