"""The utterances of an index, column by column: ten million of them need no ten million objects.

On disk a column is a ``.npy`` file that NumPy maps into memory: opening one reads nothing, and
what is read the system may drop again. Text is UTF-8, one utterance after the other, with the
position where each one ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from speechrnn.errors import PreparedDataError
from speechrnn.files import sha256_of, sync_folder
from speechrnn.text import frames_needed

FOLDER = "utterances"  # and the start of a digest of its content
_HASHED_AT_ONCE = 4  # files; hashing leaves Python's lock
# Of the columns that are numbers, as array.array and NumPy call them.
_NUMBERS = {
    "split": ("H", "<u2"),  # position in splits
    "speaker": ("i", "<i4"),  # position in speakers
    "shard": ("i", "<i4"),
    "offset": ("q", "<i8"),
    "length": ("i", "<i4"),
    "crc32": ("I", "<u4"),
    "samples": ("i", "<i4"),
    "frames_needed": ("i", "<i4"),  # by CTC, to write the text: the fewest
}
_STRINGS = ("utterance_id", "text", "splits", "speakers")


@dataclass(frozen=True)
class Row:
    """One utterance. ``offset`` and ``length`` locate its payload's bytes in the shard.

    The payload is a serialised ``tf.train.Example`` with the bytes features ``audio`` (mono
    16-bit little endian), ``utterance_id``, ``text`` (as in the manifest) and ``speaker``.
    """

    utterance_id: str
    split: str
    speaker: str
    shard: int  # position in Index.shards
    offset: int  # past the 12 bytes with which TFRecord opens a record
    length: int
    crc32: int  # zlib.crc32 of the payload
    samples: int
    text: str  # normalised: what the labels are made of


@dataclass(frozen=True, eq=False)
class Strings(Sequence[str]):
    """Texts in one array of UTF-8 ``content`` (uint8); text i ends before ``ends[i]`` (int64)."""

    content: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        start = self.ends[i - 1] if i else 0
        return self.content[start : self.ends[i]].tobytes().decode()


class _Joined:
    """Strings in the making."""

    def __init__(self) -> None:
        self.content, self.ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        self.content += text.encode()
        self.ends.append(len(self.content))

    def strings(self) -> Strings:
        return Strings(np.frombuffer(self.content, np.uint8), np.frombuffer(self.ends, "<i8"))


@dataclass(frozen=True, eq=False)
class Columns:
    """All utterances of an index: ``numbers`` by the names above, and their texts."""

    numbers: dict[str, np.ndarray]
    utterance_id: Strings
    text: Strings
    splits: Strings
    speakers: Strings

    def files(self) -> dict[str, np.ndarray]:
        """The arrays by the name of the file that holds each."""
        found = {f"{name}.npy": self.numbers[name] for name in _NUMBERS}
        for name in _STRINGS:
            strings = getattr(self, name)
            found |= {f"{name}.npy": strings.content, f"{name}_ends.npy": strings.ends}
        return found


class Rows(Sequence[Row]):
    """Utterances of an index, or those of a split: a ``Row`` each, made when it is asked for.

    Args:
        columns: of the whole index.
        positions: of these utterances in it; an array or a range, which takes no memory.
    """

    def __init__(self, columns: Columns, positions: range | np.ndarray | None = None):
        self.columns = columns
        self.positions = range(len(columns.utterance_id)) if positions is None else positions

    @staticmethod
    def of(rows: Iterable[Row]) -> Rows:
        """The same rows in columns. They are read once and not kept: a generator will do."""
        numbers = {name: array(code) for name, (code, _) in _NUMBERS.items()}
        texts = {name: _Joined() for name in _STRINGS}
        splits: dict[str, int] = {}
        speakers: dict[str, int] = {}
        for row in rows:
            for name in ("shard", "offset", "length", "crc32", "samples"):
                numbers[name].append(getattr(row, name))
            numbers["split"].append(splits.setdefault(row.split, len(splits)))
            numbers["speaker"].append(speakers.setdefault(row.speaker, len(speakers)))
            numbers["frames_needed"].append(frames_needed(map(ord, row.text)))
            texts["utterance_id"].add(row.utterance_id)
            texts["text"].add(row.text)
        for name, known in (("splits", splits), ("speakers", speakers)):
            for each in known:
                texts[name].add(each)
        arrays = {n: np.frombuffer(numbers[n], dtype) for n, (_, dtype) in _NUMBERS.items()}
        return Rows(Columns(arrays, **{name: each.strings() for name, each in texts.items()}))

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, i: int) -> Row: ...
    @overload
    def __getitem__(self, i: slice) -> Rows: ...
    def __getitem__(self, i: int | slice) -> Row | Rows:
        if isinstance(i, slice):
            return Rows(self.columns, self.positions[i])
        at, columns = self.positions[i], self.columns
        number = {name: int(column[at]) for name, column in columns.numbers.items()}
        return Row(
            utterance_id=columns.utterance_id[at],
            split=columns.splits[number["split"]],
            speaker=columns.speakers[number["speaker"]],
            shard=number["shard"],
            offset=number["offset"],
            length=number["length"],
            crc32=number["crc32"],
            samples=number["samples"],
            text=columns.text[at],
        )

    def alone(self) -> Columns:
        """The columns of these utterances and no others."""
        whole = len(self) == len(self.columns.utterance_id)
        return self.columns if whole else Rows.of(self).columns

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def column(self, name: str) -> np.ndarray:
        """A column of numbers, of these utterances alone: shard, offset, length, crc32, samples or
        ``frames_needed``, the fewest frames in which CTC can write the text."""
        at = self.positions
        return self.columns.numbers[name][
            at if isinstance(at, np.ndarray) else slice(at.start, at.stop, at.step)
        ]


def save(root: Path, columns: Columns) -> tuple[str, dict[str, str]]:
    """Write the columns into a folder under ``root``; its name and the sha256 of each file.

    The name is new wherever the content is, so that what an older index names stays as it was.
    """
    partial = root / f".{FOLDER}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        sums = {}
        for name, values in columns.files().items():
            with (partial / name).open("wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())
            sums[name] = sha256_of(partial / name)
        digest = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
        folder = root / f"{FOLDER}-{digest[:16]}"
        folder.mkdir(exist_ok=True)
        for name in sums:  # one that is there has the same content, or a damaged one
            os.replace(partial / name, folder / name)
        sync_folder(folder)
        sync_folder(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder.name, sums


def remove_others(root: Path, folder: str) -> None:
    """Delete what earlier saves and those that were stopped have left."""
    for path in [*root.glob(f"{FOLDER}-*"), *root.glob(f".{FOLDER}.*.partial")]:
        if path.name != folder:
            shutil.rmtree(path, ignore_errors=True)


def load(folder: Path, sums: Mapping[str, str], remedy: str) -> Columns:
    """What ``save`` wrote: every file is read once to check it, and then mapped.

    Raises:
        PreparedDataError: a file is damaged; it is named, with the remedy.
        OSError: a file is not there.
    """
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        found = dict(zip(sums, pool.map(lambda name: sha256_of(folder / name), sums), strict=True))
    for name, digest in sums.items():
        if found[name] != digest:
            raise PreparedDataError(
                f"{folder / name} is damaged (its sha256 differs from the index's); {remedy}"
            )

    def mapped(name: str) -> np.ndarray:
        mapping = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return mapping.view(np.ndarray)  # which is quicker to slice

    numbers = {name: mapped(name) for name in _NUMBERS}
    texts = {name: Strings(mapped(name), mapped(f"{name}_ends")) for name in _STRINGS}
    return Columns(numbers, **texts)
