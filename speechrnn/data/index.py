"""The index of a prepared corpus: where each utterance's bytes are, and that they are sound.

A folder holds ``index.json``, the utterances in columns and the shards. Any utterance can be read
at once by (shard, offset, length), in any order, by any number of readers.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.data import columns
from speechrnn.data.columns import Row, Rows
from speechrnn.errors import DataError, PreparedDataError
from speechrnn.files import sha256_of, write_atomically
from speechrnn.specs import AlphabetSpec, Statistics, TextRules

FORMAT = 2  # of index.json, the columns and the payloads
INDEX_FILE = "index.json"
_REMEDY = "run speechrnn prepare again: it redoes only what is missing or damaged"


@dataclass(frozen=True)
class Shard:
    """A TFRecord file. Its own checksums miss a cut between two records; these do not."""

    name: str
    records: int
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Index:
    """A prepared corpus under ``root``.

    ``corpus_sha256`` names its content: equal exactly where ids, splits, texts and payloads
    are, however they are sharded. ``statistics`` is None where features are normalised by
    utterance. ``rejected`` counts what was left out, by reason.
    """

    root: Path
    sample_rate: int
    alphabet: AlphabetSpec
    statistics: Statistics | None
    corpus_sha256: str
    shards: tuple[Shard, ...]
    rows: Rows
    rejected: dict[str, int] = field(default_factory=dict)

    @cached_property
    def _by_split(self) -> dict[str, Rows]:
        numbers = self.rows.column("split")
        return {
            name: Rows(self.rows.columns, _as_range(np.flatnonzero(numbers == number)))
            for number, name in enumerate(self.rows.columns.splits)
        }

    @property
    def splits(self) -> list[str]:
        return sorted(self._by_split)

    def split(self, name: str) -> Rows:
        """The rows of a split, in manifest order.

        Raises:
            DataError: it has none; the message names the splits there are.
        """
        if name not in self._by_split:
            raise DataError(
                f"{self.root} has no utterance in split {name!r}; it has "
                f"{', '.join(self.splits) or 'none at all'}. Name one of these, or fill the "
                "manifest's split column"
            )
        return self._by_split[name]

    def seconds(self, split: str) -> float:
        """Seconds of audio in a split."""
        return int(self.split(split).column("samples").sum(dtype=np.int64)) / self.sample_rate

    def save(self) -> None:
        """Write the columns, then ``index.json``, which names and vouches for them, atomically:
        stopped at any moment, the folder holds the old index or this one."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder, sums = columns.save(self.root, self.rows.alone())
        description = {
            "format": FORMAT,
            "sample_rate": self.sample_rate,
            "corpus_sha256": self.corpus_sha256,
            "rejected": self.rejected,
            "alphabet": asdict(self.alphabet),
            "statistics": self.statistics and asdict(self.statistics),
            "utterances": {"folder": folder, "sha256": sums},
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_atomically(self.root / INDEX_FILE, _sealed(description))
        columns.remove_others(self.root, folder)

    @staticmethod
    def load(root: str | os.PathLike[str]) -> Index:
        """Read what ``save`` wrote; the shards are not looked at.

        Raises:
            PreparedDataError: a file is missing, damaged or of another version.
        """
        root = Path(root)
        try:
            description = _unsealed((root / INDEX_FILE).read_bytes())
            return _from_description(root, description)
        except OSError as error:
            raise PreparedDataError(
                f"{root} is not prepared: {error.filename}: {error.strerror}; {_REMEDY}"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PreparedDataError(
                f"{root / INDEX_FILE} is damaged or not of this version ({error}); {_REMEDY}"
            ) from error

    def verify(self) -> None:
        """Read every shard whole.

        Raises:
            PreparedDataError: naming the first one that is missing, cut or changed.
        """
        for shard in self.shards:
            path = self.root / shard.name
            try:
                size = path.stat().st_size
                intact = size == shard.size and sha256_of(path) == shard.sha256
            except OSError as error:
                raise PreparedDataError(
                    f"cannot read {path}: {error.strerror}; {_REMEDY}"
                ) from error
            if not intact:
                found = "other bytes" if size == shard.size else f"{size} of {shard.size} bytes"
                raise PreparedDataError(f"{path} is damaged ({found} than were written); {_REMEDY}")

    def read_payload(self, row: Row) -> bytes:
        """The serialised Example of a row, checked.

        Raises:
            PreparedDataError: naming the shard and the utterance.
        """
        path = self.root / self.shards[row.shard].name
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(row.offset)
                payload = file.read(row.length)
        except OSError as error:
            raise PreparedDataError(
                f"cannot read {row.utterance_id} from {path}: {error.strerror}. If the corpus was "
                f"prepared anew meanwhile, start this again; otherwise {_REMEDY}"
            ) from error
        if len(payload) != row.length or zlib.crc32(payload) != row.crc32:
            raise PreparedDataError(
                f"{path} is damaged at {row.utterance_id} (bytes {row.offset} to "
                f"{row.offset + row.length}); {_REMEDY}"
            )
        return payload


def _as_range(positions: np.ndarray) -> range | np.ndarray:
    """Positions one after the other as a range: a split mostly lies in one piece."""
    if len(positions) and positions[-1] - positions[0] + 1 == len(positions):
        return range(int(positions[0]), int(positions[-1]) + 1)
    return positions


def _sealed(description: dict[str, Any]) -> bytes:
    """JSON whose last line is the sha256 of all bytes before that line."""
    text = json.dumps(description, ensure_ascii=False, indent=1)
    return _seal(text.removesuffix("\n}").encode() + b",\n")


def _seal(content: bytes) -> bytes:
    return content + b' "sha256": "%s"\n}\n' % hashlib.sha256(content).hexdigest().encode()


def _unsealed(content: bytes) -> dict[str, Any]:
    """The inverse. Raises ValueError where any byte is not as it was written."""
    version = json.loads(content)["format"]
    if version != FORMAT:
        raise ValueError(f"format {version}, not {FORMAT}")
    if content != _seal(content[: -len(_seal(b""))]):
        raise ValueError("its sha256 differs")
    found: dict[str, Any] = json.loads(content)
    return found


def _from_description(root: Path, description: dict[str, Any]) -> Index:
    alphabet, statistics = description["alphabet"], description["statistics"]
    utterances = description["utterances"]
    return Index(
        root=root,
        sample_rate=description["sample_rate"],
        alphabet=AlphabetSpec(tuple(alphabet["symbols"]), TextRules(**alphabet["rules"])),
        statistics=statistics
        and Statistics(mean=tuple(statistics["mean"]), std=tuple(statistics["std"])),
        corpus_sha256=description["corpus_sha256"],
        shards=tuple(Shard(**shard) for shard in description["shards"]),
        rows=Rows(columns.load(root / utterances["folder"], utterances["sha256"], _REMEDY)),
        rejected=description["rejected"],
    )
