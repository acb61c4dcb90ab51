"""Tar archives of recordings, read where they are: nothing is ever unpacked.

WebDataset's layout (samples of neighbouring files with one key: ``key.flac`` and ``key.txt``, or
``key.json`` with a ``text``) and NeMo's (recordings in tars, transcripts in a manifest of JSON
lines that names them). Reading a header tells where a recording's bytes are; any process can then
read them by offset and size.
"""

from __future__ import annotations

import gzip
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from speechrnn.corpora.utterance import Member
from speechrnn.errors import ManifestError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NEMO_RANGE = re.compile(r"_OP_(\d+)\.\.(\d+)_CL_")  # NeMo's way to write braces
_MOST_SHARDS = 1_000_000
_MOST_TEXT = 2**20  # bytes of a transcript or of what describes one
_MOST_HEADER = 2**20  # bytes of a member's headers: long names, attributes
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


def expand(pattern: str) -> list[Path]:
    """``shards/train-{000..003}.tar`` -> four paths; a name without braces is one.

    Raises:
        ManifestError: a range that falls, or of more than a million.
    """
    pattern = _NEMO_RANGE.sub(r"{\1..\2}", pattern)
    found = _RANGE.search(pattern)
    if found is None:
        return [Path(pattern)]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise ManifestError(f"{pattern}: {found[0]} must rise, by less than {_MOST_SHARDS}")
    numbers = (str(number).zfill(len(found[1])) for number in range(first, last + 1))
    return [
        path
        for number in numbers
        for path in expand(pattern[: found.start()] + number + pattern[found.end() :])
    ]


class Archive:
    """An uncompressed tar archive, open for reading; use it in ``with``.

    Raises:
        ManifestError: it cannot be opened.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise ManifestError(f"cannot read {path}: {error.strerror}; correct it") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def members(self) -> Iterator[Member]:
        """Every regular file, in order.

        Raises:
            ManifestError: the archive is damaged, compressed or cut, or has a member that is no
                plain file under its own folder: an absolute path, ``..``, a link, a device, a
                file with holes.
        """
        headers = Bounded(self._file, _MOST_HEADER)
        try:
            # Member by member, not as a list: a tar of a million recordings has a million headers.
            with tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:") as tar:
                while (info := tar.next()) is not None:
                    if not info.isdir():
                        yield self._member(info)
                    vars(tar)["members"].clear()  # or it would keep them all
                    headers.left = _MOST_HEADER
                self._require_end(tar.offset)
        except (tarfile.TarError, EOFError, OSError, ValueError, ArithmeticError) as error:
            raise ManifestError(f"{self.path} {self._diagnosis()} ({error})") from error
        except RecursionError as error:  # headers that announce a header, without end
            raise ManifestError(f"{self.path} {self._diagnosis()} (nested headers)") from error

    def text(self, member: Member) -> str:
        """A member that is text, UTF-8.

        Raises:
            ManifestError: it is too long, or no UTF-8.
        """
        where = f"{self.path}:{member.name}"
        if member.size > _MOST_TEXT:
            raise ManifestError(f"{where} has {member.size} bytes; a transcript has fewer")
        self._file.seek(member.offset)
        try:
            return self._file.read(member.size).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{where} is not UTF-8 ({error}); save it as UTF-8") from error

    def _member(self, info: tarfile.TarInfo) -> Member:
        reason = refusal(info)
        if reason:
            raise ManifestError(
                f"{self.path}: member {info.name!r} {reason}; pack plain files only, with names "
                "under the archive's own folder"
            )
        if info.offset_data + info.size > self.size:
            raise ManifestError(
                f"{self.path} is cut: it ends after {self.size} bytes, within {info.name!r}; copy "
                "it again"
            )
        return Member(info.name, info.offset_data, info.size)

    def _require_end(self, offset: int) -> None:
        """A block of zeros ends an archive: without it, it was cut or is damaged between two
        members, which ``tarfile`` takes for the end."""
        self._file.seek(offset)
        block = self._file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise ManifestError(
                f"{self.path} is cut: it ends after {self.size} bytes without the blocks of zeros "
                "that close an archive; copy it again"
            )
        if any(block):
            raise ManifestError(f"{self.path} is damaged at byte {offset}; copy it again")

    def _diagnosis(self) -> str:
        self._file.seek(0)
        head = self._file.read(2)
        packed = _PACKED.get(head)
        if packed:
            return f"is compressed with {packed}: nothing in it can be read by its place; unpack it"
        return "is damaged or no tar archive; copy it again"


class Bounded:
    """A file of which ``tarfile`` can read ``left`` bytes in all, and 1 MiB at once: headers are
    read whole, into memory, and say themselves how long they are."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, left: int):
        self._file, self.left = file, left

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if not 0 <= size <= _MOST_HEADER or self.left < 0:
            raise tarfile.ReadError("more to read than such an archive can have")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def refusal(info: tarfile.TarInfo) -> str | None:
    """What is wrong with a member as a place for a recording; None: nothing."""
    parts = PurePosixPath(info.name).parts
    if info.name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", info.name):
        return "has an absolute path"
    if ".." in parts or ".." in info.name.split("\\"):
        return "has a path with '..'"
    if info.islnk() or info.issym():
        return "is a link"
    if info.issparse():
        return "is sparse, a file with holes"
    if not info.isreg():
        return "is a device, a pipe or of a kind that nobody knows"
    if info.size < 0 or re.search(r"[\x00-\x1f\x7f]", info.name) or not parts:
        return "has no usable name or size"
    return None


def every(paths: Iterable[Path]) -> Iterator[tuple[Archive, Member]]:
    """The members of several archives, in order, each with its archive, open."""
    for path in paths:
        with Archive(path) as archive:
            for member in archive.members():
                yield archive, member
