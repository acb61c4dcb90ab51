"""TensorFlow's record format without TensorFlow: payloads of utterances, and their frames.

Processes that prepare recordings would spend two seconds and a quarter of a gigabyte each on
importing TensorFlow, only to write what is four small rules:

- a record is its payload's length (uint64), that length's CRC, the payload, its CRC; all little
  endian (tensorflow/core/lib/io/record_writer.h);
- a CRC is CRC-32C, rotated right by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h);
- a payload is a ``tf.train.Example`` (tensorflow/core/example/example.proto): a map from names to
  lists of bytes, in the order of the names;
- in protocol buffers each of these is a key, a length and content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

try:
    import google_crc32c
except ImportError as error:  # the device side prepares nothing
    from speechrnn.errors import MissingExtra

    raise MissingExtra("preparing a corpus", "train") from error

HEADER = 12  # bytes before a payload
FOOTER = 4  # bytes behind it


def record(payload: bytes) -> bytes:
    """A payload as it stands in a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _masked_crc(length), payload, _masked_crc(payload)))


def example(values: Mapping[str, bytes]) -> bytes:
    """Each name with its bytes -> a serialised ``tf.train.Example``, the same for equal values."""
    entries = []
    for name in sorted(values):
        feature = _field(1, _field(1, values[name]))  # Feature.bytes_list, BytesList.value
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))  # Example.features


def value(payload: bytes, name: str) -> memoryview:
    """The bytes under a name in what ``example`` made.

    Raises:
        KeyError: the payload has no such name.
    """
    ((_, features),) = _fields(memoryview(payload))
    for _, entry in _fields(features):
        (_, key), (_, feature) = _fields(entry)
        if key == name.encode():
            ((_, values),) = _fields(feature)
            ((_, found),) = _fields(values)
            return found
    raise KeyError(name)


def _masked_crc(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(number: int, content: bytes) -> bytes:
    """A field of protocol buffers with content of any length."""
    length = bytearray()
    left = len(content)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return b"".join((bytes((number << 3 | 2, *length, left)), content))


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and content of each field that ``_field`` wrote."""
    at = 0
    while at < len(content):
        number, length, shift = content[at] >> 3, 0, 0
        while True:
            at += 1
            length |= (content[at] & 0x7F) << shift
            shift += 7
            if not content[at] & 0x80:
                break
        yield number, content[at + 1 : at + 1 + length]
        at += 1 + length
