"""Audio files as bytes: which format they are, and how long they promise to be.

libsndfile reads two dozen formats and believes what they say. Only those that corpora are kept in
get as far as its parsers, and the headers that it would follow without end are walked here first.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from speechrnn.errors import AudioError

# What soundfile calls the formats that are read; WAVEX and RF64 are WAV with other headers.
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "NIST")
MAX_CHUNKS = 1_000  # of a WAV, an AIFF or a FLAC: a recording has a dozen

_UNKNOWN_SIZE = 0x7FFF_F000  # from here on, what sox and ffmpeg write when they cannot seek back
_PAGE = 65_307  # bytes of an Ogg page at most (RFC 3533)
_MAX_ID3_TAGS = 16
# Bytes a second at most: MP3's free format; FLAC in Ogg, twice that of two channels at 96 kHz.
_DENSEST = {"MP3": 80_000, "OGG": 1_200_000}
_SLACK = 2**20  # bytes beside the audio: tags, lyrics, a picture
_NIST_FIELD = re.compile(rb"^(sample_count|sample_n_bytes|channel_count) -i (\d{1,12})\s*$", re.M)


class Window:
    """``size`` bytes of a binary file from ``offset`` on, as a file of their own.

    Seeking outside stops at the ends instead of raising: libsndfile calls this from C, where an
    exception has nowhere to go.
    """

    def __init__(self, file: BinaryIO, offset: int, size: int):
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        try:
            self._file.seek(self._offset + self._at)
            content = self._file.read(left if size < 0 else min(size, left))
        except OSError:  # the decoder then finds the recording cut
            content = b""
        self._at += len(content)
        return content


Source = str | os.PathLike[str] | bytes | BinaryIO | Window


@contextmanager
def opened(source: Source, name: str) -> Iterator[Window]:
    """The bytes of a recording, whatever it is given as.

    Raises:
        AudioError: with ``reason`` missing or unreadable.
    """
    if isinstance(source, bytes):
        yield Window(io.BytesIO(source), 0, len(source))
    elif isinstance(source, Window):
        yield source
    elif not isinstance(source, str | os.PathLike):
        yield Window(source, 0, source.seek(0, os.SEEK_END))
    # Path.exists raises where a folder may not be searched.
    elif not os.path.exists(source):
        raise AudioError(f"{name} does not exist; correct the path", "missing")
    elif not os.path.isfile(source):  # opening a pipe would wait for ever
        raise AudioError(f"{name} is a folder or a device; name a recording", "unreadable")
    else:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open(source, "rb"))
            except OSError as error:
                raise AudioError(f"{name} cannot be opened: {error.strerror}") from error
            yield Window(file, 0, os.fstat(file.fileno()).st_size)


def check(file: Window, name: str, max_seconds: float | None = None) -> None:
    """Refuse a file that is no recording, is cut, or would keep libsndfile busy for nothing.

    Args:
        max_seconds: refuse an MP3 or Ogg with more bytes than that can take: libsndfile looks
            through all of them to know the length.

    Raises:
        AudioError: with ``reason`` empty, unreadable, truncated or too_long.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise AudioError(f"{name} is an empty file; record or copy it again", "empty")
    start = _behind_id3(file, name)
    found = _format(_at(file, start, 16))
    if found is None:
        raise AudioError(
            f"{name} is no recording that can be read (it starts with "
            f"{_at(file, start, 8)!r}); give WAV, FLAC, Ogg, Opus, MP3, AIFF or SPHERE"
        )
    promised = _PROMISED[found](file, name, size) if found in _PROMISED else 0
    if promised > size:
        raise AudioError(
            f"{name} is truncated or damaged ({size} of at least {promised} bytes); copy it again",
            "truncated",
        )
    dense = _DENSEST.get(found)
    if dense and max_seconds is not None and size - start > max_seconds * dense + _SLACK:
        raise AudioError(
            f"{name} is longer than {max_seconds:g} s ({size - start} bytes of {found}); cut it, "
            "or raise data.max_seconds",
            "too_long",
        )
    file.seek(0)


def _format(head: bytes) -> str | None:
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"RF64"):
        return magic.decode() if head[8:12] == b"WAVE" else None
    if magic == b"FORM":
        return "AIFF" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head.startswith(b"NIST_1A\n"):
        return "NIST"
    if magic in (b"fLaC", b"OggS", b".snd"):
        return {b"fLaC": "FLAC", b"OggS": "OGG", b".snd": "AU"}[magic]
    # MPEG's frame header: eleven bits set, then a version and a layer that are not reserved.
    sync = len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return "MP3" if sync and head[1] & 0x18 != 0x08 and head[1] & 0x06 else None


def _at(file: Window, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _behind_id3(file: Window, name: str) -> int:
    """Where an ID3v2 tag ends: its size is four bytes of seven bits behind a header of ten."""
    start = 0
    for _ in range(_MAX_ID3_TAGS):
        tag = _at(file, start, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            return start
        a, b, c, d = (byte & 0x7F for byte in tag[6:])
        start += 10 + (a << 21 | b << 14 | c << 7 | d)
    raise AudioError(f"{name} starts with more than {_MAX_ID3_TAGS} ID3 tags; convert it again")


def _chunks_end(file: Window, name: str, size: int) -> int:
    """The byte behind a WAV's or AIFF's audio by its own account; 0: it does not say."""
    magic = _at(file, 0, 4)
    integer, audio = (">I" if magic in (b"FORM", b"RIFX") else "<I"), b"data"
    if magic == b"FORM":
        audio = b"SSND"
    offset, long_size = 12, 0
    for _ in range(MAX_CHUNKS):
        header = _at(file, offset, 8)
        if len(header) < 8:
            return 0
        (length,) = struct.unpack(integer, header[4:])
        if header[:4] == b"ds64" and magic == b"RF64":
            sizes = _at(file, offset + 8, 16)
            long_size = struct.unpack("<QQ", sizes)[1] if len(sizes) == 16 else 0
        if header[:4] == audio:
            length = long_size if magic == b"RF64" and length == 0xFFFF_FFFF else length
            known = 0 < length < _UNKNOWN_SIZE or (magic == b"RF64" and long_size == length)
            return offset + 8 + length if known and length else 0
        offset += 8 + length + length % 2  # chunks are padded to even sizes
    raise AudioError(f"{name} has more than {MAX_CHUNKS} chunks before its audio; convert it again")


def _flac_audio(file: Window, name: str, size: int) -> int:
    """The byte behind the first of a FLAC's frames: a metadata block says how long it is."""
    offset = _behind_id3(file, name) + 4
    for _ in range(MAX_CHUNKS):
        header = _at(file, offset, 4)
        if len(header) < 4:
            return size + 1
        offset += 4 + int.from_bytes(header[1:])
        if header[0] & 0x80:  # the last block
            return offset
    raise AudioError(f"{name} has more than {MAX_CHUNKS} metadata blocks; convert it again")


def _last_page_end(file: Window, name: str, size: int) -> int:
    """An Ogg page (RFC 3533): a 27-byte header, its count of segments last; sizes; segments."""
    start = max(0, size - 2 * _PAGE)
    tail = _at(file, start, 2 * _PAGE)
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return size + 1  # a page was begun, or none is near: libsndfile would look for it all over
    sizes = tail[page + 27 : page + 27 + tail[page + 26]]
    return start + page + 27 + tail[page + 26] + sum(sizes)


def _au_end(file: Window, name: str, size: int) -> int:
    head = _at(file, 4, 8)
    offset, length = struct.unpack(">II", head) if len(head) == 8 else (0, 0)
    return offset + length if length < _UNKNOWN_SIZE else 0


def _sphere_end(file: Window, name: str, size: int) -> int:
    """NIST SPHERE: a text header, its length in the second line, then raw samples. A compressed
    one (shorten) is refused by libsndfile."""
    head = _at(file, 0, 1024)
    length = head[8:16].strip()
    fields = {key: int(value) for key, value in _NIST_FIELD.findall(head)}
    if not length.isdigit() or len(fields) < 2 or b"-s" not in head:
        return 0
    width = fields.get(b"sample_n_bytes", 2) * fields.get(b"channel_count", 1)
    return int(length) + fields.get(b"sample_count", 0) * width


_PROMISED = {
    "RIFF": _chunks_end,
    "RIFX": _chunks_end,
    "RF64": _chunks_end,
    "AIFF": _chunks_end,
    "FLAC": _flac_audio,
    "OGG": _last_page_end,
    "AU": _au_end,
    "NIST": _sphere_end,
}
