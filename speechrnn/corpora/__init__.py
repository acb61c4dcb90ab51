"""Where utterances come from: any corpus that can be named -> its utterances."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from speechrnn.corpora import archives, folders, manifest, splits, tarred
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import ManifestError

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


def is_one(source: str | os.PathLike[str]) -> bool:
    """Whether a name is a corpus's, rather than a model's or a text's: by its suffix, or by what
    is in the folder."""
    name = os.fspath(source)
    known = (*manifest.SUFFIXES, tarred.SUFFIX)
    return name.startswith(TFDS) or name.lower().endswith(known) or _reader(Path(name)) is not None


def _utterances(name: str) -> list[Utterance]:
    path = Path(name)
    if name.endswith(tarred.SUFFIX):
        return tarred.webdataset(archives.expand(name))
    if path.is_dir():
        reader = _reader(path)
        if reader is None:
            raise ManifestError(
                f"{name} is a folder without a corpus that is known: neither manifest.tsv, "
                f"{folders.RECORDINGS} (Kaldi), *{tarred.SUFFIX}, {folders.CLIPS} (Common Voice) "
                "nor *.trans.txt (LibriSpeech) is in it; name a manifest"
            )
        return reader(path)
    if tarred.is_nemo(path):
        return tarred.nemo(path)
    if folders.is_common_voice(path):
        return folders.common_voice(path)
    return manifest.rows(path)


def _reader(folder: Path) -> Callable[[Path], list[Utterance]] | None:
    """What reads a folder, by what is in it; None: nothing here does."""
    if not folder.is_dir():
        return None
    if (folder / MANIFEST).is_file():
        return lambda here: manifest.rows(here / MANIFEST)
    if any(folder.glob(folders.RECORDINGS)) or any(folder.glob(f"*/{folders.RECORDINGS}")):
        return folders.kaldi
    if (folder / tarred.NEMO).is_file():
        return lambda here: tarred.nemo(here / tarred.NEMO)
    if any(folder.glob(f"*{tarred.SUFFIX}")):
        return lambda here: tarred.webdataset(sorted(here.glob(f"*{tarred.SUFFIX}")))
    if (folder / folders.CLIPS).is_dir():
        return folders.common_voice
    return folders.librispeech if any(folder.rglob(folders.TRANSCRIPTS)) else None
