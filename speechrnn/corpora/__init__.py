"""Where utterances come from: any corpus that can be named -> its utterances."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speechrnn.corpora import archives, folders, manifest, splits, tarred
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import ManifestError
from speechrnn.files import sha256_of

TFDS = "tfds:"  # what a TensorFlow dataset's name stands behind
MANIFEST = "manifest.tsv"  # of a folder


def read(source: str | os.PathLike[str], dev_fraction: float = 0.1) -> list[Utterance]:
    """A corpus as ``data.manifest`` names it -> its utterances in order, each with its split.

    A manifest (``manifest``); a folder with one of them named ``manifest.tsv``, of Kaldi,
    LibriSpeech or Common Voice (``folders``); tar archives, by a pattern or a folder of them
    (``tarred``); ``tfds:NAME``, a TensorFlow dataset (``tfds``). Recordings are not decoded here;
    ``recordings`` does that, of any utterance, in any process.

    Utterances without a split are given one, see ``splits.drawn``.

    Raises:
        ManifestError: there is no such corpus, or it cannot be read.
        MissingExtra: it is a TensorFlow dataset, and the extra [tfds] is not installed.
    """
    return splits.drawn(unsplit(source), dev_fraction)


def unsplit(source: str | os.PathLike[str]) -> list[Utterance]:
    """``read`` without drawing splits: an utterance has that which its corpus names, or none."""
    name = os.fspath(source)
    if name.startswith(TFDS):
        from speechrnn.corpora import tfds

        return tfds.read(name.removeprefix(TFDS))
    utterances = _utterances(name)
    if not utterances:
        raise ManifestError(f"{name} holds no utterance; see docs/corpora.md for what it may be")
    return utterances


def fingerprint(source: str | os.PathLike[str]) -> str:
    """What changes with anything that ``read`` would tell of a corpus, without reading it: the
    sha256 of a manifest's content, or of the paths, sizes and times of all files that ``read``
    looks at. Recordings are not among them; ``recordings.state`` tells of those.

    Raises:
        ManifestError, OSError: there is no such corpus.
    """
    listings = _listings(os.fspath(source))
    if listings == [Path(source)] and listings[0].suffix != tarred.SUFFIX:
        return sha256_of(listings[0])
    digest = hashlib.sha256()
    for path in listings:
        status = path.stat()
        digest.update(f"{path}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_one(source: str | os.PathLike[str]) -> bool:
    """Whether a name is a corpus's, rather than a model's or a text's: by its suffix, or by what
    is in the folder."""
    name = os.fspath(source)
    known = (*manifest.SUFFIXES, tarred.SUFFIX)
    return name.startswith(TFDS) or name.lower().endswith(known) or any(_kinds(Path(name)))


def _utterances(name: str) -> list[Utterance]:
    path = Path(name)
    if name.endswith(tarred.SUFFIX):
        return tarred.webdataset(archives.expand(name))
    if path.is_dir():
        return _kind(path).read(path)
    if tarred.is_nemo(path):
        return tarred.nemo(path)
    if folders.is_common_voice(path):
        return folders.common_voice(path)
    return manifest.rows(path)


def _listings(name: str) -> list[Path]:
    """The files that ``read`` looks at."""
    path = Path(name)
    if name.startswith(TFDS):
        from speechrnn.corpora import tfds

        return tfds.files(name.removeprefix(TFDS))
    if name.endswith(tarred.SUFFIX):
        return archives.expand(name)
    if path.is_dir():
        return sorted(each for listed in _kind(path).listed for each in path.glob(listed))
    return [path, *tarred.beside(path)] if tarred.is_nemo(path) else [path]


@dataclass(frozen=True)
class _Kind:
    """A kind of folder: one of ``told_by`` is in it, ``read`` looks at those of ``listed``."""

    told_by: tuple[str, ...]
    listed: tuple[str, ...]
    read: Callable[[Path], list[Utterance]]


_TARS = f"*{tarred.SUFFIX}"
_KINDS = (
    _Kind((MANIFEST,), (MANIFEST,), lambda folder: manifest.rows(folder / MANIFEST)),
    _Kind(
        (folders.RECORDINGS, f"*/{folders.RECORDINGS}"),
        tuple(f"{where}{name}" for where in ("", "*/") for name in folders.KALDI_FILES),
        folders.kaldi,
    ),
    _Kind((tarred.NEMO,), (tarred.NEMO, _TARS), lambda folder: tarred.nemo(folder / tarred.NEMO)),
    _Kind((_TARS,), (_TARS,), lambda folder: tarred.webdataset(sorted(folder.glob(_TARS)))),
    _Kind((folders.CLIPS,), tuple(folders.COMMON_VOICE_PARTS), folders.common_voice),
    _Kind((f"**/{folders.TRANSCRIPTS}",), (f"**/{folders.TRANSCRIPTS}",), folders.librispeech),
)


def _kinds(folder: Path) -> Iterator[_Kind]:
    if folder.is_dir():
        for kind in _KINDS:
            if any(any(folder.glob(pattern)) for pattern in kind.told_by):
                yield kind


def _kind(folder: Path) -> _Kind:
    found = next(_kinds(folder), None)
    if found is None:
        known = ", ".join(kind.told_by[0] for kind in _KINDS)
        raise ManifestError(
            f"{folder} is a folder without a corpus that is known (none of {known} is in it); "
            "name a manifest, or see docs/corpora.md"
        )
    return found
