"""Corpora that are folders of files: Kaldi's data folders, LibriSpeech, Common Voice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speechrnn.corpora import manifest, splits
from speechrnn.corpora.utterance import Stretch, Utterance
from speechrnn.errors import ManifestError

RECORDINGS = "wav.scp"  # what tells a Kaldi data folder
KALDI_FILES = (RECORDINGS, "text", "segments", "utt2spk")
CLIPS = "clips"  # what tells a folder of Common Voice
TRANSCRIPTS = "*.trans.txt"  # what tells LibriSpeech
COMMON_VOICE_PARTS = {"train.tsv": "train", "dev.tsv": "dev", "test.tsv": "test"}


def kaldi(folder: Path) -> list[Utterance]:
    """A Kaldi data folder, or a folder of them (``train``, ``dev``, ``test``), whose names then
    are the splits.

    ``wav.scp`` says where the recordings are: paths, relative to the working directory as Kaldi
    has it, or else to the folder. Commands are never run. ``segments``, where there is one, cuts
    recordings into utterances; ``utt2spk`` names the speakers.

    Raises:
        ManifestError: a line that cannot be used, by its file and number.
    """
    if (folder / RECORDINGS).is_file():
        return list(_kaldi(folder, splits.usual(folder.name)))
    parts = sorted(path.parent for path in folder.glob(f"*/{RECORDINGS}"))
    return [
        utterance
        for part in parts
        for utterance in _kaldi(part, splits.usual(part.name) or part.name)
    ]


def _kaldi(folder: Path, split: str) -> Iterator[Utterance]:
    recordings = _table(folder / RECORDINGS)
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    segments = _table(folder / "segments") if (folder / "segments").is_file() else None
    for line, name, text in _pairs(folder / "text"):
        owner, within = name, None
        if segments is not None:
            if name not in segments:
                raise ManifestError(f"{folder / 'text'}, line {line}: {name} is not in segments")
            owner, within = _segment(folder, *segments[name])
        if owner not in recordings:
            raise ManifestError(
                f"{folder / 'text'}, line {line}: {owner} is not in {RECORDINGS}; add it, or "
                "remove the line"
            )
        path = _recording(folder, *recordings[owner])
        speaker = speakers[name][1] if name in speakers else ""
        yield Utterance(name, path, text, split, speaker, line=line, within=within)


def _table(path: Path) -> dict[str, tuple[int, str]]:
    """Lines of a key and the rest by key: (line number, rest)."""
    found: dict[str, tuple[int, str]] = {}
    for line, name, rest in _pairs(path):
        if name in found:
            raise ManifestError(
                f"{path}, line {line}: {name} already stands in line {found[name][0]}; keep one"
            )
        found[name] = line, rest
    return found


def _pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """Lines of a key and the rest: (line number, key, rest)."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}; add it") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    for line, written in enumerate(content.split("\n"), start=1):
        words = written.split(maxsplit=1)
        if words:
            yield line, words[0], " ".join(words[1].split()) if len(words) > 1 else ""


def _segment(folder: Path, line: int, written: str) -> tuple[str, Stretch]:
    """``recording start end`` in seconds; an end of -1 is the recording's."""
    where = f"{folder / 'segments'}, line {line}"
    words = written.split()
    try:
        owner, start, end = words[0], float(words[1]), float(words[2])
    except (IndexError, ValueError) as error:
        raise ManifestError(f"{where}: {written!r}; write recording, start and end") from error
    if not (0 <= start < math.inf and (end == -1 or start < end < math.inf)):
        raise ManifestError(f"{where}: {start} s to {end} s; the end must follow the start")
    return owner, Stretch(start, None if end == -1 else end)


def _recording(folder: Path, line: int, written: str) -> Path:
    where = f"{folder / RECORDINGS}, line {line}"
    if written.endswith("|") or written.startswith("|"):
        raise ManifestError(
            f"{where} is a command ({written!r}), and none is run; convert the recordings, and "
            "write their paths"
        )
    if not written or written == "-":
        raise ManifestError(f"{where} names no recording; write its path")
    if ":" in written and written.rpartition(":")[2].isdigit():
        raise ManifestError(f"{where}: {written!r} lies in a Kaldi archive; write it as a file")
    path = Path(written)
    return path if path.is_absolute() or os.path.exists(path) else folder / path


def librispeech(folder: Path) -> list[Utterance]:
    """LibriSpeech as it is unpacked, whole, a subset of it, or anything laid out alike: every
    ``*.trans.txt`` beside its recordings, ``ID.flac`` in the original.

    ``train-*``, ``dev-*`` and ``test-*`` are the splits; the column ``subset`` has the whole name.
    A speaker is the first part of an id, ``1272-128104-0000``.

    Raises:
        ManifestError: a line without text, or without its recording.
    """
    found: list[Utterance] = []
    for listing in sorted(folder.rglob(TRANSCRIPTS)):
        parts = (folder.name, *listing.relative_to(folder).parts[:-1])
        subset = next((part for part in reversed(parts) if splits.usual(part)), "")
        here = {path.stem: path for path in listing.parent.iterdir() if path.suffix != ".txt"}
        for line, name, text in _pairs(listing):
            if name not in here:
                raise ManifestError(f"{listing}, line {line}: {name} has no recording beside it")
            columns = {"subset": subset} if subset else {}
            found.append(
                Utterance(
                    utterance_id=name,
                    path=here[name],
                    text=text,
                    split=splits.usual(subset),
                    speaker=name.split("-")[0] if "-" in name else "",
                    line=line,
                    columns=columns,
                )
            )
    return found


def is_common_voice(path: Path) -> bool:
    """Whether a file is a list of Common Voice: ``clips`` is beside it, and it names neither a
    folder nor an id."""
    if path.suffix != ".tsv" or not (path.parent / CLIPS).is_dir():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = file.readline().rstrip("\r\n").split("\t")
    return {"client_id", "path", "sentence"} <= set(names)


def common_voice(source: Path) -> list[Utterance]:
    """A language's folder of Common Voice, with its own splits, or one of its lists, such as
    ``validated.tsv``, without. Recordings are in ``clips`` beside the list.

    Raises:
        ManifestError: as ``manifest.rows``.
    """
    parts = {source: ""}
    if source.is_dir():
        parts = {source / name: split for name, split in COMMON_VOICE_PARTS.items()}
    return [
        replace(
            utterance,
            utterance_id=utterance.path.stem,
            path=utterance.path.parent / CLIPS / utterance.path.name,
            split=split,
        )
        for path, split in parts.items()
        if path.exists() or path == source
        for utterance in manifest.rows(path)
    ]
