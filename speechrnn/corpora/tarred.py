"""Corpora whose recordings stay in tar archives: WebDataset's shards and NeMo's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from speechrnn.corpora import archives, manifest, splits
from speechrnn.corpora.archives import Archive
from speechrnn.corpora.utterance import Member, Utterance
from speechrnn.errors import ManifestError

SUFFIX = ".tar"
NEMO = "tarred_audio_manifest.json"  # as NeMo's script calls it
AUDIO = ("wav", "flac", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "sph")
_TEXT = ("txt", "text", "transcript")


def webdataset(paths: Sequence[Path]) -> list[Utterance]:
    """Shards of samples -> their utterances, in order.

    A sample is the files that stand one after another with the same name up to its first dot, in
    a folder or not: a recording, and ``.txt`` or ``.json`` with the key ``text``. Further keys of
    the JSON that are plain values become columns, ``speaker`` and ``duration`` what they say. The
    split is ``split`` of the JSON, or else what the shard's name begins with.

    Raises:
        ManifestError: an archive that cannot be read; a sample without transcript or recording,
            or with two of one.
    """
    return [utterance for path in paths for utterance in _samples(path)]


def _samples(path: Path) -> Iterator[Utterance]:
    with Archive(path) as archive:
        key, files = "", dict[str, Member]()
        number = 0
        for member in archive.members():
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not stem:  # a dot file, as macOS packs them
                continue
            own = f"{folder}/{stem}" if folder else stem
            if own != key and files:
                number += 1
                yield from _utterance(archive, key, files, number)
                files = {}
            key = own
            if extension.lower() in files:
                raise ManifestError(f"{path}: {member.name} stands there twice; keep one")
            files[extension.lower()] = member
        if files:
            yield from _utterance(archive, key, files, number + 1)


def _utterance(
    archive: Archive, key: str, files: dict[str, Member], number: int
) -> Iterator[Utterance]:
    where = f"{archive.path}:{key}"
    recordings = [member for extension, member in files.items() if extension in AUDIO]
    if not recordings:
        _require_no_sample(where, files)
        return  # what describes the shard
    if len(recordings) > 1:
        raise ManifestError(f"{where} has {len(recordings)} recordings; a sample has one")
    facts: dict[str, Any] = {}
    if "json" in files:
        try:
            facts = json.loads(archive.text(files["json"]))
        except (ValueError, RecursionError) as error:  # nested without end
            raise ManifestError(f"{where}.json is not JSON: {error}") from error
        if not isinstance(facts, dict):
            raise ManifestError(f"{where}.json is no JSON object")
    written = next((archive.text(files[each]) for each in _TEXT if each in files), None)
    if written is not None:
        facts["text"] = written
    facts = {"utterance_id": key, **facts, "path": archive.path.name}
    if not any(name in facts for name in ("text", "transcript", "transcription", "sentence")):
        raise ManifestError(f"{where} has no transcript; add {PurePosixPath(key).name}.txt to it")
    told = manifest.from_fields(facts, number, archive.path)
    split = told.split or splits.usual(archive.path.stem)
    yield replace(told, path=archive.path, split=split, within=recordings[0])


def _require_no_sample(where: str, files: Iterable[str]) -> None:
    """Raise ManifestError where files without a recording are a sample nonetheless: one with a
    transcript and something else, or one whose name has further dots, where its key has ended."""
    for extension in files:
        where_it_is = f"{where}.{extension}"
        if extension.endswith(tuple(f".{each}" for each in AUDIO)):
            raise ManifestError(
                f"{where_it_is}: a sample's name ends at its first dot; replace the others"
            )
        if extension not in (*_TEXT, "json") and any(each in files for each in _TEXT):
            raise ManifestError(
                f"{where_it_is} is no recording that is read here; give one of {', '.join(AUDIO)}"
            )


def is_nemo(path: Path) -> bool:
    """Whether a manifest of JSON lines speaks of recordings in tars: its rows name a shard."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
            row = json.loads(first) if first.lstrip().startswith("{") else {}
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it says what is wrong
    return isinstance(row, dict) and "shard_id" in row


def beside(path: Path) -> list[Path]:
    """The archives of NeMo's manifest."""
    return sorted(path.parent.glob(f"*{SUFFIX}"))


def nemo(path: Path) -> list[Utterance]:
    """NeMo's tarred manifest, with its archives beside it: ``audio_3.tar`` for ``shard_id`` 3.

    Raises:
        ManifestError: an archive or a recording that the manifest names is not there.
    """
    members: dict[tuple[str, str], tuple[Path, Member]] = {}
    numbers = set()
    for archive, member in archives.every(beside(path)):
        found = re.search(r"_(\d+)$", archive.path.stem)
        if found:
            number = str(int(found[1]))
            numbers.add(number)
            members[number, member.name] = (archive.path, member)
    utterances = []
    for told in manifest.rows(path):
        number, name = told.columns.get("shard_id", ""), told.path
        if name.is_relative_to(path.parent):  # others are in no archive
            name = name.relative_to(path.parent)
        place = members.get((number, name.as_posix()))
        if place is None:
            missing = f"holds no {name}" if number in numbers else "is not beside it"
            raise ManifestError(f"{path}, line {told.line}: audio_{number}{SUFFIX} {missing}")
        columns = {key: value for key, value in told.columns.items() if key != "shard_id"}
        utterances.append(replace(told, path=place[0], columns=columns, within=place[1]))
    return utterances
