"""A folder of recordings, of noise say, at hand for training: decoded once, then read from disk.

The decoded samples lie in one file, mapped into memory: any number of hours takes no more memory
than the system has to spare, and any excerpt is there at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from speechrnn import audio
from speechrnn.errors import AudioError, DataError
from speechrnn.files import sha256_of, sync_folder, write_atomically

LONGEST_S = 300.0  # of longer recordings the first five minutes are used
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".au", ".caf", ".sph", ".w64"),
)
_FORMAT = 1


@dataclass(frozen=True)
class Recordings:
    """``offsets`` has one more entry than there are recordings, whose samples lie between.

    ``identity`` names the files' content: equal exactly where names, bytes and sample rate are.
    ``left_out`` are messages about recordings that cannot be used.
    """

    path: Path
    offsets: tuple[int, ...]
    identity: str
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """(samples,) int16, the loudest of which is full scale."""
        return self._samples[self.offsets[number] : self.offsets[number + 1]]

    @cached_property
    def _samples(self) -> np.ndarray:
        return np.memmap(self.path, np.dtype("<i2"), "r")


def load(folder: Path, sample_rate: int, cache: Path) -> Recordings:
    """The recordings below a folder, in the order of their names, decoded into ``cache`` where
    that is not done.

    Raises:
        DataError: there is no such folder, or nothing in it that can be used.
    """
    found_there = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    listed = sorted(path for path in found_there if not path.is_fifo())  # which never end
    if not listed:
        what = "holds no recordings" if folder.is_dir() else "is no folder"
        raise DataError(
            f"{folder} {what}; name a folder of WAV, FLAC, Ogg, Opus or MP3 files in augment"
        )
    identity = _identity(listed, folder, sample_rate)
    description = cache / f"{identity[:16]}.json"
    found = _cached(description, identity)
    if found is None:
        cache.mkdir(parents=True, exist_ok=True)
        found = _decode(listed, sample_rate, description.with_suffix(".pcm16"), identity)
        content = {
            "offsets": found.offsets,
            "identity": identity,
            "left_out": found.left_out,
            "sha256": sha256_of(found.path),
        }
        write_atomically(description, json.dumps(content).encode())
    if len(found) == 0:
        raise DataError(
            f"none of {len(listed)} recordings in {folder} can be used; the first: "
            f"{found.left_out[0]}"
        )
    return found


def _identity(listed: list[Path], folder: Path, sample_rate: int) -> str:
    names = [[path.relative_to(folder).as_posix(), _content(path)] for path in listed]
    named = json.dumps([_FORMAT, sample_rate, LONGEST_S, names])
    return hashlib.sha256(named.encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:  # a folder, or not to be read: reported when it is decoded
        return f"{error.strerror}"


def _cached(description: Path, identity: str) -> Recordings | None:
    """What was decoded before, if it is whole."""
    samples = description.with_suffix(".pcm16")
    try:
        content = json.loads(description.read_bytes())
        if content["identity"] != identity or sha256_of(samples) != content["sha256"]:
            return None
        return Recordings(samples, tuple(content["offsets"]), identity, tuple(content["left_out"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decode(listed: list[Path], sample_rate: int, target: Path, identity: str) -> Recordings:
    offsets, left_out = [0], []
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for path in listed:
                try:
                    samples = _usable(path, sample_rate)
                except AudioError as error:
                    left_out.append(str(error))
                    continue
                file.write(samples.tobytes())
                offsets.append(offsets[-1] + len(samples))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)
    return Recordings(target, tuple(offsets), identity, tuple(left_out))


def _usable(path: Path, sample_rate: int) -> np.ndarray:
    """(samples,) int16, checked; its loudest sample is full scale, as its level will be drawn."""
    waveform = np.concatenate([*_beginning(path, sample_rate)])
    audio.check(waveform, sample_rate, name=str(path))
    return audio.to_pcm16(waveform / np.abs(waveform).max()).astype(np.dtype("<i2"))


def _beginning(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    left = int(LONGEST_S * sample_rate)
    for block in audio.blocks(path, sample_rate):
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
