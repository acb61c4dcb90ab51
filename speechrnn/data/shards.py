"""Utterances -> TFRecord shards, each with a sidecar that says what it was made from.

The shard is the unit of resumption: one whose sidecar and bytes match what is asked for is
never written again, and a stop at any moment leaves only whole shards under their names.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from speechrnn import audio
from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.data.index import Shard
from speechrnn.data.utterance import Prepared, Rejected, Settings, prepare_utterance
from speechrnn.errors import DataError
from speechrnn.files import sha256_of, write_atomically

FORMAT = 1  # of payloads and sidecars: a change makes every older shard stale
_RECORD_HEADER = 12  # bytes of TFRecord before a payload: its length (8) and that one's CRC (4)
_RECORD_FOOTER = 4  # the payload's CRC
_IN_FLIGHT = 4  # utterances a worker: enough to keep it busy, few enough to hold in memory


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
class Written:
    """A shard that is on disk, sound, and what its plan asks for."""

    shard: Shard
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]


def plan(utterances: Sequence[Utterance], settings: Settings, per_shard: int) -> list[Plan]:
    """Cut the utterances, in order, into shards of ``per_shard`` of one split each."""
    plans = []
    for split in dict.fromkeys(utterance.split for utterance in utterances):
        members = [utterance for utterance in utterances if utterance.split == split]
        for start in range(0, len(members), per_shard):
            chosen = tuple(members[start : start + per_shard])
            name = f"{split}-{start // per_shard:05d}.tfrecord"
            plans.append(Plan(name, chosen, _fingerprint(chosen, settings)))
    return plans


def current(root: Path, planned: Plan) -> Written | None:
    """The shard as it is on disk, if it is what ``planned`` asks for and undamaged."""
    path = root / planned.name
    try:
        sidecar = json.loads(_sidecar(path).read_bytes())
        written = Written(
            Shard(**sidecar["shard"]),
            tuple(Record(*record) for record in sidecar["records"]),
            tuple(Rejected(**rejected) for rejected in sidecar["rejected"]),
        )
        sound = path.stat().st_size == written.shard.size
        sound = sound and sidecar["fingerprint"] == planned.fingerprint
        return written if sound and sha256_of(path) == written.shard.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with it, the answer is to write it again


def write(
    root: Path,
    plans: Sequence[Plan],
    settings: Settings,
    workers: int,
    advance: Callable[[float], None],
) -> dict[str, Written]:
    """Decode and write the planned shards -> what was written, by shard name.

    The bytes do not depend on ``workers``. ``advance`` is called after each utterance with
    its seconds of audio.

    Raises:
        DataError: a worker process died.
    """
    if not plans:
        return {}
    root.mkdir(parents=True, exist_ok=True)
    utterances = [utterance for planned in plans for utterance in planned.utterances]
    with closing(_in_order(utterances, settings, min(workers, len(utterances)))) as outcomes:
        written = {}
        for planned in plans:
            mine = islice(outcomes, len(planned.utterances))
            written[planned.name] = _write_shard(root, planned, settings, mine, advance)
        return written


def remove_stale(root: Path, plans: Sequence[Plan]) -> None:
    """Delete shards that an earlier manifest left behind: files with a sidecar of ours only."""
    wanted = {planned.name for planned in plans}
    for sidecar in root.glob("*.tfrecord.json"):
        shard = sidecar.with_suffix("")
        if shard.name not in wanted:
            shard.unlink(missing_ok=True)
            sidecar.unlink()


def waveform_of(payload: bytes) -> np.ndarray:
    """The audio in a payload -> (samples,) float32."""
    import tensorflow as tf

    example = tf.train.Example.FromString(payload)
    pcm16 = example.features.feature["audio"].bytes_list.value[0]
    return audio.from_pcm16(np.frombuffer(pcm16, np.dtype("<i2")))


def _payload(prepared: Prepared) -> bytes:
    import tensorflow as tf  # here: worker processes import this module and need none of it

    utterance = prepared.utterance
    values = {
        "audio": prepared.pcm16,
        "utterance_id": utterance.utterance_id.encode(),
        "text": utterance.text.encode(),
        "speaker": utterance.speaker.encode(),
    }
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # a map's order is free otherwise


def _sidecar(shard: Path) -> Path:
    return shard.with_name(shard.name + ".json")


def _fingerprint(utterances: Sequence[Utterance], settings: Settings) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, *astuple(settings)]).encode())
    for utterance in utterances:
        state = recordings.state(utterance)
        told = [utterance.utterance_id, utterance.text, utterance.speaker, *state]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _write_shard(
    root: Path,
    planned: Plan,
    settings: Settings,
    outcomes: Iterator[Prepared | Rejected],
    advance: Callable[[float], None],
) -> Written:
    import tensorflow as tf

    path = root / planned.name
    partial = path.with_name(path.name + ".partial")
    records, rejected, end = [], [], 0
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
                advance(0.0)
                continue
            payload = _payload(outcome)
            writer.write(payload)
            name, start, length = outcome.utterance.utterance_id, end + _RECORD_HEADER, len(payload)
            records.append(Record(name, start, length, zlib.crc32(payload), outcome.samples))
            end = start + length + _RECORD_FOOTER
            advance(outcome.samples / settings.sample_rate)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    shard = Shard(planned.name, len(records), partial.stat().st_size, sha256_of(partial))
    os.replace(partial, path)
    written = Written(shard, tuple(records), tuple(rejected))
    _write_sidecar(path, planned, written)
    return written


def _write_sidecar(path: Path, planned: Plan, written: Written) -> None:
    content = {
        "fingerprint": planned.fingerprint,
        "shard": asdict(written.shard),
        "records": [astuple(record) for record in written.records],
        "rejected": [asdict(rejected) for rejected in written.rejected],
    }
    write_atomically(_sidecar(path), json.dumps(content).encode())


def _in_order(
    utterances: Sequence[Utterance], settings: Settings, workers: int
) -> Generator[Prepared | Rejected, None, None]:
    """The outcome of each utterance, in their order, computed by ``workers`` processes.

    One worker is this process itself. Spawned, not forked: TensorFlow has threads.
    """
    if workers == 1:
        yield from (prepare_utterance(utterance, settings) for utterance in utterances)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, initializer=_start_worker)
    pending: deque[Future[Prepared | Rejected]] = deque()
    try:
        for utterance in utterances:
            pending.append(pool.submit(prepare_utterance, utterance, settings))
            if len(pending) >= _IN_FLIGHT * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that prepares recordings died. In a script, call this under "
            '`if __name__ == "__main__":`; otherwise set data.workers=1 to see which recording '
            "it was, or give the machine more memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
