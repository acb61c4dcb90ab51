"""Manifests: a list of recordings and transcripts in any usual format <-> utterances."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from speechrnn.corpora import splits
from speechrnn.corpora.utterance import Stretch, Utterance
from speechrnn.errors import ManifestError
from speechrnn.files import write_atomically

SUFFIXES = (".tsv", ".csv", ".json", ".jsonl")  # what a manifest is told by among other files

# Column names in order of preference; upper and lower case are the same.
_NAMES: dict[str, tuple[str, ...]] = {
    "utterance_id": ("utterance_id", "utt_id", "id"),
    "path": (
        *("path", "wav_filename", "audio_filepath", "audio_path", "audio", "audio_file"),
        *("file", "filename", "file_name", "filepath", "file_path", "wav", "recording"),
    ),
    "text": ("text", "transcript", "transcription", "sentence"),
    "split": ("split",),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "duration_s": ("duration_s", "duration"),
}
_REQUIRED = ("path", "text")
_COLUMNS = ("utterance_id", "path", "text", "split", "speaker", "duration_s")


_OFFSET = "offset"  # seconds; of JSON lines alone
_Row = tuple[int, dict[str, str], dict[str, str]]  # line; fields under our names; the others


class _UnquotedTSV(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def read(path: str | os.PathLike[str], dev_fraction: float = 0.1) -> list[Utterance]:
    """A manifest -> its utterances in order, paths resolved against its folder.

    The format is told by the content: JSON lines (NeMo), or TSV or CSV by the header: our own,
    DeepSpeech's and Coqui's, or any with a column of recordings and one of transcripts. UTF-8,
    with or without a byte order mark; TSV is read without quoting, CSV with it. Recordings are
    not looked at. An utterance without an id is named by its path without suffix.

    Utterances without a split go to train or dev by a hash of their speaker, or of their id
    where no speakers are told apart: a row's split does not depend on the other rows, except
    that a manifest of two or more gets at least one utterance in each.

    Raises:
        ManifestError: no such file, not UTF-8, empty, columns missing, a malformed row.
    """
    return splits.drawn(rows(path), dev_fraction)


def rows(path: str | os.PathLike[str]) -> list[Utterance]:
    """``read`` without drawing splits: an utterance has that which its row names, or none.

    Raises:
        ManifestError: as ``read`` does.
    """
    path = Path(path)
    utterances = [_utterance(row, path) for row in _rows(_content(path), path)]
    if not utterances:
        raise ManifestError(f"{path} lists no utterance; add one a line")
    return utterances


def from_fields(facts: Mapping[str, Any], line: int, path: Path) -> Utterance:
    """What one JSON object says of an utterance, as a row of the manifest ``path``.

    Raises:
        ManifestError: as ``read`` does.
    """
    return _utterance(_json_row(facts, line, path), path)


def write(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write our TSV, atomically, with paths relative to it; ``read`` gives the same back.

    Raises:
        ManifestError: a path holds a tab or a line break, which our TSV cannot.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()
    utterances = list(utterances)
    others = list(dict.fromkeys(name for utterance in utterances for name in utterance.columns))
    rows = ["\t".join([*_COLUMNS, *map(_clean, others)])]
    for utterance in utterances:
        relative = Path(os.path.relpath(utterance.path.resolve(), folder)).as_posix()
        if re.search(r"[\t\r\n]", relative):
            raise ManifestError(f"{relative!r} holds a tab or a line break; rename the recording")
        seconds = "" if utterance.duration_s is None else f"{utterance.duration_s:.4f}"
        name, text = _clean(utterance.utterance_id), _clean(utterance.text)
        fields = (name, relative, text, utterance.split, _clean(utterance.speaker), seconds)
        rest = [_clean(utterance.columns.get(name, "")) for name in others]
        rows.append("\t".join([*fields, *rest]))
    write_atomically(path, ("\n".join(rows) + "\n").encode())


def without_duplicates(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[tuple[Utterance, str]]]:
    """The first utterance of every id, in order; and the later ones, each with what is wrong."""
    first: dict[str, Utterance] = {}
    later = []
    for utterance in utterances:
        owner = first.setdefault(utterance.utterance_id, utterance)
        if owner is not utterance:
            message = (
                f"line {utterance.line}: utterance_id {utterance.utterance_id} already stands "
                f"in line {owner.line}; give each utterance its own"
            )
            later.append((utterance, message))
    return list(first.values()), later


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(
            f"cannot read the manifest {path}: {error.strerror}; correct data.manifest"
        ) from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error


def _rows(content: str, path: Path) -> Iterator[_Row]:
    """Every row that is not blank."""
    if content.lstrip()[:1] == "{":
        return _json_rows(content, path)
    return _table_rows(content, path)


def _json_rows(content: str, path: Path) -> Iterator[_Row]:
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row: Any = json.loads(text)
        except (ValueError, RecursionError) as error:  # nested without end
            raise ManifestError(f"{path}, line {line} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{path}, line {line} is no JSON object; write one a line")
        yield _json_row(row, line, path)


def _json_row(row: Mapping[str, Any], line: int, path: Path) -> _Row:
    columns = _columns(list(row), f"{path}, line {line}")
    fields = {name: _plain(value) for name, value in row.items()}
    nested = {name for name, value in row.items() if isinstance(value, list | dict)}
    ours, others = _sorted_out(fields, columns, nested)
    # NeMo's: the utterance is a part of its recording, from there on for its duration.
    return line, {**ours, _OFFSET: others.get(_OFFSET, "")}, others


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _sorted_out(
    fields: Mapping[str, str], columns: Mapping[str, str], without: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """A row's fields under our names, and the others that say something, except ``without``."""
    ours = {name: fields.get(theirs, "") for name, theirs in columns.items()}
    rest = fields.keys() - set(columns.values()) - set(without) - {""}
    # Values repeat from row to row: interned, a million rows hold one copy.
    others = {name: sys.intern(_clean(fields[name])) for name in fields if name in rest}
    return ours, {name: value for name, value in others.items() if value}


def _table_rows(content: str, path: Path) -> Iterator[_Row]:
    header = next((line for line in content.splitlines() if line.strip()), "")
    delimiter = max("\t,;", key=header.count)
    dialect = _UnquotedTSV if delimiter == "\t" else csv.excel
    reader = csv.reader(io.StringIO(content, newline=""), dialect, delimiter=delimiter)
    names: list[str] = []
    columns: Mapping[str, str] = {}
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if not names:
                names = [name.strip() for name in row]
                columns = _columns(names, str(path))
                continue
            if len(row) > len(names):
                raise ManifestError(
                    f"{path}, line {reader.line_num} has {len(row)} fields under {len(names)} "
                    "column names; quote (CSV) or replace (TSV) the separator inside a field"
                )
            fields = dict(zip(names, row, strict=False))
            yield reader.line_num, *_sorted_out(fields, columns)
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: {error}") from error
    if not names:
        raise ManifestError(f"{path} is empty; its first line must name the columns path and text")


def _columns(found: Sequence[str], where: str) -> dict[str, str]:
    """Our column names -> theirs, for those that are there."""
    theirs = {name.strip().lower(): name for name in reversed(found)}
    columns = {}
    for ours, accepted in _NAMES.items():
        match = next((theirs[name] for name in accepted if name in theirs), None)
        if match is not None:
            columns[ours] = match
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        needed = " and ".join(f"{name} (or {', '.join(_NAMES[name][1:])})" for name in missing)
        raise ManifestError(
            f"{where} has the columns {', '.join(map(repr, found))}; it needs {needed}. "
            "Name the columns in its first line"
        )
    return columns


def _utterance(row: _Row, manifest: Path) -> Utterance:
    line, fields, others = row
    values = {name: _clean(value) for name, value in fields.items() if name != "path"}
    written = fields["path"].strip()
    where = f"{manifest}, line {line}"
    if not written:
        raise ManifestError(f"{where} names no recording; fill the path or remove the line")
    split = values.get("split", "")
    if not re.fullmatch(r"[\w.-]*", split):
        raise ManifestError(f"{where}: split {split!r}; use letters, digits, '_', '-' and '.'")
    duration, within, part = _seconds(values.get("duration_s", ""), where), None, ""
    if values.get(_OFFSET):
        start = _seconds(values[_OFFSET], where) or 0.0
        within, part = Stretch(start, start + duration if duration else None), f"-{start:g}"
    utterance = Utterance(
        utterance_id=values.get("utterance_id") or _clean(_without_suffix(written)) + part,
        path=manifest.parent / written,
        text=values["text"],
        split=split,
        speaker=values.get("speaker", ""),
        duration_s=duration,
        line=line,
        columns=others,
        within=within,
    )
    try:
        "".join((*values.values(), *others, *others.values(), written)).encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        raise ManifestError(f"{where} is not valid Unicode: {error}") from error
    return utterance


def _clean(value: str) -> str:
    """One space for any run of white space: no field can hold a tab or a line break."""
    return " ".join(value.split())


def _without_suffix(written: str) -> str:
    return PurePosixPath(os.path.splitext(written)[0]).as_posix()


def _seconds(written: str, where: str) -> float | None:
    if not written:
        return None
    try:
        seconds = float(written)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ManifestError(f"{where}: duration {written!r}; give seconds or leave it empty")
    return seconds
