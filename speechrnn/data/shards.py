"""Utterances -> TFRecord shards, each with a sidecar that says what it was made from.

The shard is the unit of resumption: one whose sidecar and bytes match what is asked for is
never written again, and a stop at any moment leaves only whole shards under their names. A shard's
name tells what it was made from, so none is ever replaced by another: an index goes on naming
what it named until the next one stands.

A shard is written by whoever decodes its utterances, whole or in pieces that are put one behind
the other: its bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import audio
from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.data import tfrecord
from speechrnn.data.index import Shard
from speechrnn.data.utterance import Prepared, Rejected, Settings, prepare_utterance
from speechrnn.files import sha256_of, sync_folder, write_atomically

FORMAT = 1  # of payloads and sidecars: a change makes every older shard stale
_PARTIAL = ".partial"
_BLOCK = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Plan:
    """A shard to be: ``fingerprint`` changes with anything its bytes could depend on."""

    name: str
    utterances: tuple[Utterance, ...]
    fingerprint: str


@dataclass(frozen=True)
class Record:
    """Where an utterance's payload lies in its shard; the fields mean what ``index.Row``'s do."""

    utterance_id: str
    offset: int
    length: int
    crc32: int
    samples: int


@dataclass(frozen=True)
class Piece:
    """A stretch of a shard's utterances in a file of its own; offsets count from its start."""

    path: Path
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]

    @property
    def samples(self) -> int:
        return sum(record.samples for record in self.records)


@dataclass(frozen=True)
class Written:
    """A shard that is on disk, sound, and what its plan asks for."""

    shard: Shard
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]


def plan(utterances: Sequence[Utterance], settings: Settings, per_shard: int) -> list[Plan]:
    """Cut the utterances, in order, into shards of ``per_shard`` of one split each."""
    by_split: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_split.setdefault(utterance.split, []).append(utterance)
    plans = []
    for split, members in by_split.items():
        for start in range(0, len(members), per_shard):
            chosen = tuple(members[start : start + per_shard])
            fingerprint = _fingerprint(chosen, settings)
            name = f"{split}-{start // per_shard:05d}-{fingerprint[:8]}.tfrecord"
            plans.append(Plan(name, chosen, fingerprint))
    return plans


def current(root: Path, planned: Plan, read: bool = True) -> Written | None:
    """The shard as it is on disk, if it is what ``planned`` asks for and undamaged.

    Without ``read`` its bytes are not looked at, only its size and its sidecar.
    """
    path = root / planned.name
    try:
        sidecar = json.loads(_sidecar(path).read_bytes())
        content = sidecar["content"]
        written = Written(
            Shard(**content["shard"]),
            tuple(Record(*record) for record in content["records"]),
            tuple(Rejected(**rejected) for rejected in content["rejected"]),
        )
        sound = sidecar["sha256"] == _sha256(content)
        sound = sound and content["fingerprint"] == planned.fingerprint
        sound = sound and path.stat().st_size == written.shard.size
        sound = sound and (not read or sha256_of(path) == written.shard.sha256)
        return written if sound else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with it, the answer is to write it again


def ensure(root: Path, planned: Plan, settings: Settings) -> Written:
    """The shard of a plan: as it is on disk, or else written. Doing it twice does no harm.

    Raises:
        OSError: there is no space or no permission; nothing is left of the shard then.
    """
    found = current(root, planned)
    return found or join(root, planned, [decode(root, planned, planned.utterances, settings)])


def decode(
    root: Path,
    planned: Plan,
    utterances: Sequence[Utterance],
    settings: Settings,
    stopped: Callable[[], bool] = lambda: False,
) -> Piece:
    """Decode and check utterances of a shard into a file that ``join`` takes.

    ``stopped`` is asked before each utterance.

    Raises:
        InterruptedError: ``stopped`` said so.
        OSError: as ``ensure`` does.
    """
    path = _partial(root / planned.name)
    records: list[Record] = []
    rejected: list[Rejected] = []
    end = 0
    try:
        with path.open("wb") as file:
            for utterance in utterances:
                if stopped():
                    raise InterruptedError("preparing was stopped")
                outcome = prepare_utterance(utterance, settings)
                if isinstance(outcome, Rejected):
                    rejected.append(outcome)
                    continue
                payload = _payload(outcome)
                file.write(tfrecord.record(payload))
                start, length = end + tfrecord.HEADER, len(payload)
                crc32 = zlib.crc32(payload)
                records.append(
                    Record(utterance.utterance_id, start, length, crc32, outcome.samples)
                )
                end = start + length + tfrecord.FOOTER
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Piece(path, tuple(records), tuple(rejected))


def join(root: Path, planned: Plan, pieces: Sequence[Piece]) -> Written:
    """The pieces of all utterances of a plan, in their order -> its shard; the pieces are gone.

    Raises:
        OSError: as ``ensure`` does; the pieces are gone too.
    """
    path, whole = root / planned.name, pieces[0].path
    records = list(pieces[0].records)
    try:
        with whole.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256")  # leaves the file at its end
            for piece in pieces[1:]:
                start = file.tell()
                records += [_moved(record, start) for record in piece.records]
                _append(file, piece.path, digest)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        rejected = tuple(each for piece in pieces for each in piece.rejected)
        shard = Shard(planned.name, len(records), size, digest.hexdigest())
        written = Written(shard, tuple(records), rejected)
        # The sidecar first: a shard without one would belong to nobody, and never be removed.
        _write_sidecar(path, planned, written)
        os.replace(whole, path)
        sync_folder(root)
    finally:
        for piece in pieces:
            piece.path.unlink(missing_ok=True)
    return written


def remove_stale(root: Path, plans: Sequence[Plan]) -> None:
    """Delete shards that an earlier manifest left behind: files with a sidecar of ours only."""
    wanted = {planned.name for planned in plans}
    for sidecar in root.glob("*.tfrecord.json"):
        shard = sidecar.with_suffix("")
        if shard.name not in wanted:
            shard.unlink(missing_ok=True)
            sidecar.unlink()


def remove_partials(root: Path) -> None:
    """Delete what a killed run began: only for whoever holds the folder's lock."""
    for path in root.glob(f".*{_PARTIAL}"):
        with suppress(OSError):  # a folder nobody may write to is no reason to fail at the end
            path.unlink()


def waveform_of(payload: bytes) -> np.ndarray:
    """The audio in a payload -> (samples,) float32."""
    return audio.from_pcm16(np.frombuffer(tfrecord.value(payload, "audio"), np.dtype("<i2")))


def _payload(prepared: Prepared) -> bytes:
    utterance = prepared.utterance
    values = {
        "audio": prepared.pcm16,
        "utterance_id": utterance.utterance_id.encode(),
        "text": utterance.text.encode(),
        "speaker": utterance.speaker.encode(),
    }
    return tfrecord.example(values)


def _sidecar(shard: Path) -> Path:
    return shard.with_name(shard.name + ".json")


def _partial(shard: Path) -> Path:
    # Not the process's number: those of two machines may be equal.
    return shard.with_name(f".{shard.name}.{uuid.uuid4().hex}{_PARTIAL}")


def _fingerprint(utterances: Sequence[Utterance], settings: Settings) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, *astuple(settings)]).encode())
    for utterance in utterances:
        state = recordings.state(utterance)
        told = [utterance.utterance_id, utterance.text, utterance.speaker, *state]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _moved(record: Record, start: int) -> Record:
    name, offset, *rest = astuple(record)
    return Record(name, start + offset, *rest)


def _append(file: Any, piece: Path, digest: Any) -> None:
    with piece.open("rb") as source:
        while block := source.read(_BLOCK):
            file.write(block)
            digest.update(block)


def _write_sidecar(path: Path, planned: Plan, written: Written) -> None:
    content = {
        "fingerprint": planned.fingerprint,
        "shard": asdict(written.shard),
        "records": [astuple(record) for record in written.records],
        "rejected": [asdict(rejected) for rejected in written.rejected],
    }
    sidecar = {"sha256": _sha256(content), "content": content}
    write_atomically(_sidecar(path), json.dumps(sidecar).encode())


def _sha256(content: dict[str, Any]) -> str:
    """Of plain data, before and after its way through JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
