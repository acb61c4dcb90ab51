"""Files that are whole or not there, whenever the process or the machine stops; run directories."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechrnn.errors import MachineRefused, ModelError

MODEL = "model.json"  # of a run directory
_SEAL = "seal"  # of model.json: its own checksum
RECOGNISER, LANGUAGE_MODEL = "recogniser", "language model"  # what a run may have trained

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def write_atomically(path: Path, content: bytes) -> None:
    """Whatever stops this, ``path`` holds the old content or the new, and never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_synced(partial, content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def saving(what: str, folder: Path, then: str) -> Iterator[None]:
    """Within it, a refusal of the machine becomes an error that tells what could not be written.

    Args:
        what: is written within, by what leaves the old or the new behind and never a part.
        then: what there is to do once the cause is gone.

    Raises:
        MachineRefused: no space, no permission, a disk that fails.
    """
    try:
        yield
    except OSError as error:
        raise MachineRefused(
            f"cannot write {what} in {folder}: {error.strerror or error}. What was there before is "
            f"untouched. Free space there, or permit writing; {then}"
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries: renames survive a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, held: str = "") -> Iterator[None]:
    """Hold the lock that ``path`` stands for, waiting for whoever has it; its end, a kill too,
    frees it. Where a file system has no locks this does nothing.

    Args:
        held: the error's message where nobody is to be waited for.

    Raises:
        MachineRefused: another process has it, and ``held`` was given.
    """
    import fcntl  # not on Windows, where models are read and nothing is prepared

    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if held else 0))
        except BlockingIOError as error:
            raise MachineRefused(held) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def sha256_of(path: Path) -> str:
    """Hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def own(folder: Path, name: str) -> Path:
    """``folder``/``name``, a file of the folder itself.

    Raises:
        ModelError: it is a link or a path that leads out of the folder, a device or a pipe.
        OSError: it is not there.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{path} leads to {path.resolve()}, outside of its folder; what a model reads must be "
            "in it. Copy the folder with what its links lead to (cp -rL)."
        )
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelError(f"{path} is not a file; copy the folder again from where it was made")
    return path


def sealed(description: dict[str, Any]) -> bytes:
    """A model.json of these contents, which vouches for itself."""
    content = {**description, _SEAL: _seal_of(description)}
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _seal_of(description: dict[str, Any]) -> str:
    """sha256 of all that it says but the seal, however that is laid out."""
    told = {key: value for key, value in description.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_run(folder: Path) -> tuple[dict[str, Any], bytes]:
    """A run directory -> what its model.json says and its weights, an .npz, which are whole.

    ``kind`` is one of those above; ``spec`` and ``card`` are plain data. The checksums tell damage,
    and not who wrote the files.

    Raises:
        ModelError: no model there, or a damaged one.
    """
    try:
        description = json.loads(own(folder, MODEL).read_bytes())
        if description[_SEAL] != _seal_of(description):
            raise ValueError("its checksum differs")
        if not re.fullmatch(r"weights-\d+\.npz", description["weights"]):
            raise ModelError(
                f"{folder / MODEL} names the weights {description['weights']!r}; they are a file "
                "weights-N.npz beside it. Copy the run directory again from where it was made."
            )
        data = own(folder, description["weights"]).read_bytes()
        expected = description["sha256"]
        found = {name: description[name] for name in ("spec", "card")}
        found["kind"] = description["kind"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} holds no trained model (no {Path(error.filename).name}); name a run "
            "directory, or train with this output directory first (without its checkpoints, where "
            "that training was at its end)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{folder / MODEL} is damaged or not of this version ({error!r}); copy the folder "
            "again, or train again"
        ) from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise ModelError(
            f"{folder / description['weights']} is damaged: the sha256 of the weights differs; "
            "copy it again, or train again"
        )
    return found, data
