"""Mean and deviation of each feature over a prepared training set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from speechrnn.data import shards
from speechrnn.data.columns import Row
from speechrnn.data.index import Index
from speechrnn.features import reference
from speechrnn.files import write_atomically
from speechrnn.recipe import Recipe
from speechrnn.specs import FeatureSpec, Statistics

FILE = "statistics.json"
UTTERANCES = 5_000  # at most: more change the third digit at best
MIN_STD = 1e-3  # a dimension that never moves stays finite when it is divided by this
_AT_ONCE = 256  # utterances whose sums are held


def of_training(recipe: Recipe, index: Index, workers: int) -> Statistics:
    """Over all frames of the training set, or of evenly spaced utterances of it.

    The same for any number of ``workers``, threads here. Kept beside the index under a key of all
    that they depend on.
    """
    training = index.split("train")
    chosen = training[:: -(-len(training) // UTTERANCES)]
    told = [recipe.fingerprint("features"), chosen.column("crc32").tolist()]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    path = index.root / FILE
    found = _kept(path, key)
    if found is None:
        mean, std = _moments(recipe.features, index, chosen, workers)
        found = {"key": key, "mean": mean.tolist(), "std": std.tolist()}
        kept = {**found, "sha256": _sha256(found)}
        write_atomically(path, json.dumps(kept).encode())
    return Statistics(tuple(found["mean"]), tuple(found["std"]))


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    """What was measured before, if it is of this key and undamaged."""
    try:
        found = json.loads(path.read_bytes())
        digest = found.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there or not readable: measure again
    return found if found.get("key") == key and digest == _sha256(found) else None


def _sha256(found: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _moments(
    spec: FeatureSpec, index: Index, rows: Sequence[Row], workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all frames of the rows: (dimension,) float64 each."""

    def sums(row: Row) -> tuple[int, np.ndarray, np.ndarray]:
        waveform = shards.waveform_of(index.read_payload(row))
        features = reference.features(waveform, spec).astype(np.float64)
        return len(features), features.sum(axis=0), np.square(features).sum(axis=0)

    frames, total, squares = 0, np.zeros(spec.dimension), np.zeros(spec.dimension)
    # Products this small gain nothing from threads of their own, and lose much on busy cores.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(rows), _AT_ONCE):
            for count, first, second in threads.map(sums, rows[start : start + _AT_ONCE]):
                frames += count
                total += first
                squares += second
    mean = total / frames
    variance = np.maximum(squares / frames - mean**2, 0)
    return mean, np.maximum(np.sqrt(variance), MIN_STD)
