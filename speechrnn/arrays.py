"""Arrays in a file that can neither run code nor swell: an .npz, no pickles, no compression."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.errors import ModelError

# What zipfile and NumPy raise at bytes that are no such file.
_NOT_ARRAYS = (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error, OSError)


def pack(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as an .npz in memory; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes, source: Path) -> dict[str, np.ndarray]:
    """The inverse; the arrays are read-only.

    Nothing is allocated on the word of a header: what ``pack`` writes is as large as its arrays,
    and a file that declares more than it holds is refused first.

    Raises:
        ModelError: ``data`` is no such file; it names ``source``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its arrays are compressed, and may be of any size")
            if sum(member.file_size for member in members) > len(data):
                raise ValueError(f"its {len(data)} bytes declare arrays of more")
            return {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except _NOT_ARRAYS as error:
        raise ModelError(
            f"{source} is no file of arrays as speechrnn writes them ({error}); train again, or "
            "copy it again from where it was made"
        ) from error


def _array(content: bytes) -> np.ndarray:
    """The array in the bytes of an .npy file."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read_header:
        raise ValueError(f"an array has the format {version}")
    shape, in_columns, dtype = read_header[version](file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which could run code")
    declared, there = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if declared != there or dtype.itemsize == 0:
        raise ValueError(f"an array declares {declared} bytes and has {there}")
    flat = np.frombuffer(content, dtype, offset=file.tell())
    return flat.reshape(shape[::-1]).T if in_columns else flat.reshape(shape)
