"""The index of a prepared corpus: where each utterance's bytes are, and that they are sound.

A folder holds ``index.json``, ``utterances.tsv`` and the shards. Any utterance can be read
at once by (shard, offset, length), in any order, by any number of readers.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import defaultdict
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from speechrnn.errors import DataError, PreparedDataError
from speechrnn.files import sha256_of, write_atomically
from speechrnn.specs import AlphabetSpec, Statistics, TextRules

FORMAT = 1  # of index.json, utterances.tsv and the payloads
INDEX_FILE = "index.json"
ROWS_FILE = "utterances.tsv"


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
    rows: tuple[Row, ...]
    rejected: dict[str, int] = field(default_factory=dict)

    @cached_property
    def _by_split(self) -> dict[str, list[Row]]:
        splits = defaultdict(list)
        for row in self.rows:
            splits[row.split].append(row)
        return dict(splits)

    @property
    def splits(self) -> list[str]:
        return sorted(self._by_split)

    def split(self, name: str) -> list[Row]:
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
        return sum(row.samples for row in self.split(split)) / self.sample_rate

    def save(self) -> None:
        """Write both files, each atomically; ``index.json``, which vouches for the rows, last."""
        self.root.mkdir(parents=True, exist_ok=True)
        names = [column.name for column in fields(Row)]
        lines = ["\t".join(names), *("\t".join(map(str, astuple(row))) for row in self.rows)]
        rows = ("\n".join(lines) + "\n").encode()
        write_atomically(self.root / ROWS_FILE, rows)
        description = {
            "format": FORMAT,
            "sample_rate": self.sample_rate,
            "corpus_sha256": self.corpus_sha256,
            "rows_sha256": hashlib.sha256(rows).hexdigest(),
            "rejected": self.rejected,
            "alphabet": asdict(self.alphabet),
            "statistics": self.statistics and asdict(self.statistics),
            "shards": [asdict(shard) for shard in self.shards],
        }
        content = json.dumps(description, ensure_ascii=False, indent=1) + "\n"
        write_atomically(self.root / INDEX_FILE, content.encode())

    @staticmethod
    def load(root: str | os.PathLike[str]) -> Index:
        """Read what ``save`` wrote; the shards are not looked at.

        Raises:
            PreparedDataError: a file is missing, damaged or of another version.
        """
        root = Path(root)
        try:
            description = json.loads((root / INDEX_FILE).read_bytes())
            rows = (root / ROWS_FILE).read_bytes()
            return _from_description(root, description, rows)
        except OSError as error:
            raise PreparedDataError(
                f"{root} is not prepared: {error.filename}: {error.strerror}; {_REMEDY}"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PreparedDataError(
                f"{root / INDEX_FILE} is damaged or not of this version ({error!r}); {_REMEDY}"
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
                f"cannot read {row.utterance_id} from {path}: {error.strerror}; {_REMEDY}"
            ) from error
        if len(payload) != row.length or zlib.crc32(payload) != row.crc32:
            raise PreparedDataError(
                f"{path} is damaged at {row.utterance_id} (bytes {row.offset} to "
                f"{row.offset + row.length}); {_REMEDY}"
            )
        return payload


_REMEDY = "run speechrnn prepare again: it redoes only what is missing or damaged"


def _from_description(root: Path, description: dict[str, Any], rows: bytes) -> Index:
    if description["format"] != FORMAT:
        raise ValueError(f"format {description['format']}, not {FORMAT}")
    if hashlib.sha256(rows).hexdigest() != description["rows_sha256"]:
        raise PreparedDataError(f"{root / ROWS_FILE} is damaged (its sha256 differs); {_REMEDY}")
    alphabet, statistics = description["alphabet"], description["statistics"]
    return Index(
        root=root,
        sample_rate=description["sample_rate"],
        alphabet=AlphabetSpec(tuple(alphabet["symbols"]), TextRules(**alphabet["rules"])),
        statistics=statistics
        and Statistics(mean=tuple(statistics["mean"]), std=tuple(statistics["std"])),
        corpus_sha256=description["corpus_sha256"],
        shards=tuple(Shard(**shard) for shard in description["shards"]),
        rows=tuple(_row(line) for line in rows.decode().split("\n")[1:-1]),
        rejected=description["rejected"],
    )


def _row(line: str) -> Row:
    name, split, speaker, shard, offset, length, crc32, samples, text = line.split("\t")
    return Row(
        name, split, speaker, int(shard), int(offset), int(length), int(crc32), int(samples), text
    )
