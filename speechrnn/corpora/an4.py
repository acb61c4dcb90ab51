"""CMU AN4 (the "census" recordings, Acero 1991): from the distributed archive to a manifest."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from speechrnn.corpora import archives, manifest
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import DataError

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"

# AN4 has no development set. These nine of its 74 training speakers are this project's.
DEV_SPEAKERS = ("fbbh", "fjdn", "fsaf2", "mblw", "mcrt", "mdcs2", "mnfe", "mrjc2", "mrmg")
MOST_BYTES = 2**30  # unpacked: ten times what it has
SIZES = {"train": 831, "dev": 117, "test": 130}

_LINE = re.compile(r"^(?:<s>)?\s*(?P<text>.*?)\s*(?:</s>)?\s*\((?P<id>[\w-]+)\)$")


def download(out: Path) -> Path:
    """Fetch and unpack the archive (64 MB) into ``out``; returns the folder ``out/an4``.

    Raises:
        DataError: the archive cannot be fetched or unpacked.
    """
    if (out / "an4" / "etc").is_dir():
        return out / "an4"
    out.mkdir(parents=True, exist_ok=True)
    archive = out / "an4_sphere.tar.gz"
    partial, unpacked = out / ".an4_sphere.part", out / ".an4.partial"
    try:
        if not archive.exists():
            urllib.request.urlretrieve(URL, partial)
            partial.rename(archive)
        shutil.rmtree(unpacked, ignore_errors=True)  # of a call that was stopped
        _unpack(archive, unpacked)
        (unpacked / "an4").rename(out / "an4")
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        archive.unlink()
        raise DataError(
            f"{archive} was damaged ({error}) and is removed; run this again to fetch it anew"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot get AN4 from {URL} ({error}); unpack an4_sphere.tar.gz yourself and name "
            "its folder, or name a manifest"
        ) from error
    shutil.rmtree(unpacked)
    return out / "an4"


def _unpack(archive: Path, folder: Path) -> None:
    """Plain files and folders, under the folder, of no more than ``MOST_BYTES`` in all."""

    def checked(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        reason = None if member.isdir() else archives.refusal(member)
        if reason:
            raise tarfile.ReadError(f"member {member.name!r} {reason}")
        return tarfile.data_filter(member, path)

    with gzip.open(archive) as content:
        bounded: Any = archives.Bounded(content, MOST_BYTES)
        try:
            with tarfile.open(fileobj=bounded, mode="r:") as tar:
                tar.extractall(folder, filter=checked)
        except RecursionError as error:
            raise tarfile.ReadError("nested headers") from error


def build_manifest(folder: Path) -> Path:
    """The unpacked archive's folder -> ``folder/manifest.tsv``, with splits and speakers.

    Raises:
        DataError: as ``utterances``.
    """
    target = folder / "manifest.tsv"
    manifest.write(target, utterances(folder))
    return target


def utterances(folder: Path) -> list[Utterance]:
    """The unpacked archive's folder -> its utterances, in the order of its lists.

    The official test set is split "test"; nine training speakers are split "dev".

    Raises:
        DataError: a list or a recording is missing, or the counts are not AN4's.
    """
    found: list[Utterance] = []
    for part in ("train", "test"):
        try:
            files = (folder / "etc" / f"an4_{part}.fileids").read_text().split()
            lines = (folder / "etc" / f"an4_{part}.transcription").read_text().splitlines()
        except OSError as error:
            raise DataError(f"{folder} is no unpacked AN4 archive: {error}") from error
        texts = {match["id"]: match["text"] for line in lines if (match := _LINE.match(line))}
        for name in files:
            path = folder / "wav" / f"{name}.sph"
            utterance_id, speaker = path.stem, path.parent.name
            if utterance_id not in texts or not path.is_file():
                raise DataError(f"AN4 utterance {utterance_id} lacks its recording or transcript")
            split = "dev" if part == "train" and speaker in DEV_SPEAKERS else part
            text = texts[utterance_id].lower()
            found.append(Utterance(utterance_id, path, text, split, speaker))
    counts = {split: sum(u.split == split for u in found) for split in SIZES}
    if counts != SIZES:
        raise DataError(f"{folder} holds {counts} utterances; AN4 has {SIZES}. Unpack it again.")
    return found
