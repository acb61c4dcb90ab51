"""Checkpoints that are whole or not there: arrays, a state, and a sha256 over both."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import arrays as npz
from speechrnn.errors import ModelError
from speechrnn.files import sync_folder, write_synced

ARRAYS, STATE, SUMS = "arrays.npz", "state.json", "sha256.json"
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")

Groups = dict[str, list[np.ndarray]]


def save(
    folder: Path, step: int, arrays: Mapping[str, Sequence[np.ndarray]], state: dict, keep: int
) -> Path:
    """Write ``folder/step-NNNNNNNN``, and then drop all but it and the ``keep - 1`` before it.

    Written to a temporary folder, synced and renamed, so a process killed at any moment, or a disk
    that is full, leaves the checkpoints there were. The same step again gets a name of its own,
    ``step-NNNNNNNN.1``: nothing whole is ever moved away before its successor stands.

    Raises:
        OSError: the machine refused; nothing is left of this one.
    """
    for left_behind in folder.glob(".step-*"):  # by a process that was killed
        _remove(left_behind)
    number = step, 1 + max([n for at, n, _ in _numbered(folder) if at == step], default=-1)
    target = folder / (f"step-{step:08d}" + (f".{number[1]}" if number[1] else ""))
    temporary = folder / f".{target.name}.{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        _write(temporary, arrays, state)
        temporary.rename(target)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    # What stands above it was passed over as damaged when training went on from below.
    before = [path for at, n, path in _numbered(folder) if (at, n) < number]
    for path in checkpoints(folder):
        if path != target and path not in before[: keep - 1]:
            _remove(path)
    return target


def _remove(path: Path) -> None:
    """A checkpoint, or a file that somebody put in the place of one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(folder: Path, arrays: Mapping[str, Sequence[np.ndarray]], state: dict) -> None:
    named = {f"{group}/{i}": a for group, list_ in arrays.items() for i, a in enumerate(list_)}
    contents = {ARRAYS: npz.pack(named), STATE: json.dumps(state, indent=1).encode()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in {**contents, SUMS: json.dumps(sums).encode()}.items():
        write_synced(folder / name, data)
    sync_folder(folder)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints, the newest first."""
    return [path for _, _, path in _numbered(folder)]


def _numbered(folder: Path) -> list[tuple[int, int, Path]]:
    """Each with its step and which of that step's it is, the newest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    found = [(int(match[1]), int(match[2] or 0), path) for match, path in matches if match]
    return sorted(found, reverse=True)


def load_newest(
    folder: Path, passed_over: Callable[[ModelError], None] = lambda damage: None
) -> tuple[Groups, dict[str, Any]] | None:
    """The arrays by group and the state of the newest whole checkpoint; None if there is none.

    Args:
        passed_over: called for each newer one that is damaged, with what is wrong.

    Raises:
        ModelError: there are checkpoints, but every one is damaged.
    """
    last = None
    for path in checkpoints(folder):
        try:
            return _load(path)
        except ModelError as error:
            last = error
            passed_over(error)
    if last is not None:
        raise ModelError(
            f"no checkpoint in {folder} is whole; the oldest: {last}. With that folder deleted, "
            "training starts anew"
        )
    return None


def _load(path: Path) -> tuple[Groups, dict[str, Any]]:
    try:
        sums = json.loads((path / SUMS).read_bytes())
        contents = {name: (path / name).read_bytes() for name in (ARRAYS, STATE)}
        listed = {name: sums[name] for name in contents}
    except OSError as error:
        raise ModelError(f"cannot read {error.filename or path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path / SUMS} is damaged ({error!r})") from error
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != listed[name]:
            raise ModelError(
                f"{path / name} is damaged, or {SUMS} beside it: its sha256 is not the one there"
            )
    groups: Groups = {}
    for name, array in npz.unpack(contents[ARRAYS], path / ARRAYS).items():
        groups.setdefault(name.split("/")[0], []).append(array)
    return groups, _state(contents[STATE], path / STATE)


def _state(content: bytes, path: Path) -> dict[str, Any]:
    try:
        state = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no state of a training ({error})") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} is no state of a training but a {type(state).__name__}")
    return state
