"""Tar archives that mean harm: members that lead out of them, that are no files, that never end."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
MARK = b"written by an archive"  # what every hostile member holds

Member = tuple[tarfile.TarInfo, bytes]


def _plain(name: str, content: bytes = MARK, **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def _kind(name: str, kind: bytes, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def _tar(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if content else None)
    return file.getvalue()


def _pax(**records: str) -> bytes:
    """A member whose extended header overrides what its plain one says."""
    info, content = _plain("an4/plain.wav")
    info.pax_headers = records
    return _tar((info, content), form=tarfile.PAX_FORMAT)


def _with_size(size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose size field is exactly so; its checksum is made right."""
    info = tarfile.TarInfo("an4/plain.wav")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + MARK.ljust(BLOCK, b"\0") + END


def _gnu_sparse(_: Path) -> bytes:
    """GNU's old form: 4 GB of which one block is stored."""
    info = tarfile.TarInfo("an4/holes.wav")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, BLOCK
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" + b"00000001000\0"
    header[483:495] = b"37777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + MARK.ljust(BLOCK, b"\0") + END


def _nested(_: Path) -> bytes:
    """5,000 extended headers, each announcing the next."""
    record = b"11 path=abc\n"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return (header + record.ljust(BLOCK, b"\0")) * 5_000 + _tar(_plain("an4/plain.wav"))


def _links(out: Path) -> bytes:
    """A link to a folder outside, then a file through it."""
    return _tar(_kind("an4/out", tarfile.SYMTYPE, str(out)), _plain("an4/out/planted"))


def _link_chain(out: Path) -> bytes:
    deep = "/".join(["d"] * 60)
    return _tar(
        _kind("an4/a", tarfile.SYMTYPE, deep),
        _kind("an4/a/b", tarfile.SYMTYPE, "../" * 70 + str(out).lstrip("/")),
        _plain("an4/a/b/planted"),
    )


def _base256(number: int) -> bytes:
    return (number % 2**96 | (0 if number < 0 else 0x80 << 88)).to_bytes(12)


# name -> what makes the archive; each is given the folder outside that is not to be touched.
ARCHIVES: dict[str, Callable[[Path], bytes]] = {
    "an absolute path": lambda out: _tar(_plain(f"{out}/planted")),
    "an absolute path over the canary": lambda out: _tar(_plain(f"{out}/canary")),
    "a path with ..": lambda out: _tar(_plain("../outside/planted")),
    "a path with .. further in": lambda out: _tar(_plain("an4/wav/../../../outside/canary")),
    "a long path with ..": lambda out: _tar(_plain("../" * 60 + "x" * 90 + "/planted")),
    "a Windows path": lambda out: _tar(_plain("C:\\outside\\planted")),
    "a path with ..\\": lambda out: _tar(_plain("an4\\..\\..\\outside\\planted")),
    "an absolute path in PAX": lambda out: _pax(path=f"{out}/planted"),
    ".. in PAX": lambda out: _pax(path="../outside/canary"),
    "a link to the canary": lambda out: _tar(_kind("an4/x.wav", tarfile.SYMTYPE, f"{out}/canary")),
    "a relative link": lambda out: _tar(
        _kind("an4/x.wav", tarfile.SYMTYPE, "../../outside/canary")
    ),
    "a link within": lambda out: _tar(_plain("an4/a"), _kind("an4/x.wav", tarfile.SYMTYPE, "a")),
    "a hard link": lambda out: _tar(_kind("an4/x.wav", tarfile.LNKTYPE, f"{out}/canary")),
    "a hard link with ..": lambda out: _tar(_kind("an4/x", tarfile.LNKTYPE, "../outside/canary")),
    "a file through a link": _links,
    "a file through a chain of links": _link_chain,
    "a link in PAX": lambda out: _pax(linkpath=f"{out}/canary", path="an4/x"),
    "a character device": lambda out: _tar(_kind("an4/null.wav", tarfile.CHRTYPE)),
    "a block device": lambda out: _tar(_kind("an4/disk.wav", tarfile.BLKTYPE)),
    "a pipe": lambda out: _tar(_kind("an4/pipe.wav", tarfile.FIFOTYPE)),
    "an unknown kind": lambda out: _tar(_kind("an4/x.wav", b"Z")),
    "a sparse file": _gnu_sparse,
    "a sparse file in PAX 0.1": lambda out: _pax(
        **{"GNU.sparse.map": "0,1,4294967296,1", "GNU.sparse.size": str(2**40)}
    ),
    "a sparse file in PAX 1.0": lambda out: _pax(
        **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    ),
    "a size of 8 TB": lambda out: _with_size(_base256(2**43)),
    "a negative size": lambda out: _with_size(_base256(-BLOCK)),
    "a negative size in PAX": lambda out: _pax(size="-1024"),
    "a size of 2^70 in PAX": lambda out: _pax(size=str(2**70)),
    "an extended header of 8 GB": lambda out: _with_size(b"77777777777\0", tarfile.XHDTYPE),
    "a long name of 8 GB": lambda out: _with_size(b"77777777777\0", tarfile.GNUTYPE_LONGNAME),
    "an extended header of negative size": lambda out: _with_size(_base256(-1), tarfile.XHDTYPE),
    "nested extended headers": _nested,
    "a name with control characters": lambda out: _tar(_plain("an4/a\x1b[31m\n.wav")),
    "a device's numbers of 2^62": lambda out: _tar(
        (_kind("an4/x", tarfile.CHRTYPE)[0], b""), _plain("../outside/planted")
    ),
}


def mutated(content: bytes, seed: int) -> bytes:
    """An archive with some bytes of its headers changed and their checksums made right."""
    rng = np.random.default_rng([11, seed])
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        block = int(rng.integers(max(1, min(len(changed), 40 * BLOCK) // BLOCK))) * BLOCK
        changed[block + int(rng.integers(BLOCK))] = int(rng.integers(256))
        if rng.integers(4):
            header = changed[block : block + BLOCK]
            header[148:156] = b" " * 8
            changed[block + 148 : block + 156] = struct.pack("8s", f"{sum(header):06o}\0 ".encode())
    return bytes(changed[: rng.integers(1, len(changed) + 1)] if rng.integers(5) == 0 else changed)
