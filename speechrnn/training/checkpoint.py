"""Checkpoints that are whole or not there: arrays, a state, and a sha256 over both."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.errors import ModelError
from speechrnn.files import sync_folder, write_synced

ARRAYS, STATE, SUMS = "arrays.npz", "state.json", "sha256.json"


def save(
    folder: Path, step: int, arrays: Mapping[str, Sequence[np.ndarray]], state: dict, keep: int
) -> Path:
    """Write ``folder/step-NNNNNNNN`` and drop all but the newest ``keep``.

    Written to a temporary folder, synced and renamed, so a process killed at any moment leaves
    the checkpoints it had.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    for left_behind in folder.glob(".step-*"):  # by a process that was killed
        shutil.rmtree(left_behind)
    temporary.mkdir(parents=True)
    named = {f"{group}/{i}": a for group, list_ in arrays.items() for i, a in enumerate(list_)}
    contents = {ARRAYS: pack_arrays(named), STATE: json.dumps(state, indent=1).encode()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in {**contents, SUMS: json.dumps(sums).encode()}.items():
        write_synced(temporary / name, data)
    sync_folder(temporary)
    if target.exists():  # the same step again, after a stop: never be without one
        target.rename(folder / f".{target.name}.old")
    temporary.rename(target)
    sync_folder(folder)
    for old in checkpoints(folder)[keep:]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def load_newest(folder: Path) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]] | None:
    """The arrays by group and the state of the newest whole checkpoint; None if there is none.

    A damaged one is passed over in favour of the next.

    Raises:
        ModelError: there are checkpoints, but every one is damaged.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return _load(path)
        except ModelError as error:
            last = error
    if found:
        raise ModelError(f"no checkpoint in {folder} is whole; the oldest: {last}")
    return None


def _load(path: Path) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]]:
    try:
        sums = json.loads((path / SUMS).read_bytes())
        contents = {name: (path / name).read_bytes() for name in (ARRAYS, STATE)}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is incomplete ({error}); delete it") from error
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise ModelError(f"{path / name} is damaged: its sha256 differs; delete {path}")
    groups: dict[str, list[np.ndarray]] = {}
    for name, array in unpack_arrays(contents[ARRAYS]).items():
        groups.setdefault(name.split("/")[0], []).append(array)
    return groups, json.loads(contents[STATE])


def pack_arrays(arrays: dict[str, Any]) -> bytes:
    """Arrays as an .npz in memory."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The inverse; arrays only, no pickled objects, so a file cannot run code."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
