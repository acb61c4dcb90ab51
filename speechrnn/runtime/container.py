"""One file for the device: a ``.tflite`` that carries its own description and its own checksum.

The file is a TFLite flatbuffer, which any tool reads, and a trailer of fixed length behind it.
The flatbuffer's metadata buffer ``speechrnn`` holds JSON; the trailer ends in the sha256 of
every byte before it, which is checked before anything is parsed: of random bit flips in a
``.tflite``, about a quarter would otherwise load and give other results.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from speechrnn.errors import ModelError
from speechrnn.specs import RecogniserSpec

FORMAT = 1  # of the description; a reader refuses others
METADATA_NAME = "speechrnn"
TRAILER_MAGIC = b"SPEECHRNN-SHA256"
TRAILER_BYTES = len(TRAILER_MAGIC) + hashlib.sha256().digest_size
FLATBUFFER_IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TFLite file
BUFFER_ALIGNMENT = 16  # of weights within the file: the TFLite schema's force_align


@dataclass(frozen=True)
class Container:
    """What a device file holds.

    ``card`` is where the model comes from, as plain JSON data; ``model_bytes`` is the
    flatbuffer for the interpreter, without the trailer.
    """

    spec: RecogniserSpec
    card: dict[str, Any]
    model_bytes: bytes


def describe(spec: RecogniserSpec, card: dict[str, Any]) -> bytes:
    """The JSON that travels with an exported model, UTF-8."""
    description = {"format": FORMAT, "spec": spec.to_dict(), "card": card}
    return json.dumps(description, ensure_ascii=False, sort_keys=True).encode()


def parse_description(description: bytes, source: Path) -> tuple[RecogniserSpec, dict[str, Any]]:
    """The inverse of ``describe``.

    Raises:
        ModelError: not such JSON, or of another format; ``source`` is named.
    """
    try:
        data = json.loads(description)
        found, spec, card = data["format"], data["spec"], data["card"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{source}: the model's description is damaged ({error!r}); export it again"
        ) from error
    if found != FORMAT:
        raise ModelError(
            f"{source}: its description has format {found!r}; this version reads {FORMAT}. "
            "Use the version that exported it, or export it again."
        )
    try:
        return RecogniserSpec.from_dict(spec), card
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error


def pack(tflite: bytes, spec: RecogniserSpec, card: dict[str, Any]) -> bytes:
    """A TFLite flatbuffer and its description, in place of one that it may have -> the bytes of
    a device file."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(tflite), 0)
    description = _AlignedBuffer(np.frombuffer(describe(spec, card), np.uint8))
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    entries = model.metadata or []
    old = [entry.buffer for entry in entries if entry.name == METADATA_NAME.encode()]
    if old:
        model.buffers[old[0]] = description
    else:
        model.buffers.append(description)
        entries.append(schema.MetadataT(name=METADATA_NAME, buffer=len(model.buffers) - 1))
    model.metadata = entries
    builder = flatbuffers.Builder(len(tflite))
    builder.Finish(model.Pack(builder), file_identifier=FLATBUFFER_IDENTIFIER)
    content = bytes(builder.Output()) + TRAILER_MAGIC
    return content + hashlib.sha256(content).digest()


def read(path: str | Path) -> Container:
    """The device file at ``path``, checked.

    Raises:
        ModelError: no such file, not a device file, cut short or damaged.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    model = _checked(content, path)
    try:
        description = _metadata(model)
    except Exception as error:  # a file that never was a flatbuffer fails in any way
        raise ModelError(f"{path} carries a checksum but is no TFLite model ({error!r})") from error
    if description is None:
        raise ModelError(f"{path} has no metadata {METADATA_NAME!r}; use `speechrnn export`")
    spec, card = parse_description(description, path)
    return Container(spec=spec, card=card, model_bytes=model)


def with_card(path: str | Path, **entries: Any) -> bytes:
    """The bytes of the device file at ``path`` with these entries of its card replaced or added;
    the network and its weights stay what they are, byte for byte.

    Raises:
        ModelError: as ``read`` does.
    """
    found = read(path)
    return pack(found.model_bytes, found.spec, {**found.card, **entries})


def _checked(content: bytes, path: Path) -> bytes:
    """The flatbuffer in ``content``, once the trailer has vouched for it."""
    if content[4:8] != FLATBUFFER_IDENTIFIER:
        raise ModelError(f"{path} is not a TFLite model ({len(content)} bytes of something else)")
    trailer = content[-TRAILER_BYTES:]
    magic, digest = trailer[: len(TRAILER_MAGIC)], trailer[len(TRAILER_MAGIC) :]
    if magic != TRAILER_MAGIC:
        raise ModelError(
            f"{path} ends without speechrnn's checksum: it is cut short, damaged or was not "
            "written by `speechrnn export`. Copy or export it again."
        )
    if hashlib.sha256(memoryview(content)[: -len(digest)]).digest() != digest:
        raise ModelError(f"{path} is damaged: its checksum differs. Copy or export it again.")
    return content[:-TRAILER_BYTES]


def _metadata(model_bytes: bytes) -> bytes | None:
    model = schema.Model.GetRootAs(model_bytes, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == METADATA_NAME.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    return None


class _AlignedBuffer(schema.BufferT):
    """A buffer that keeps its alignment: the generated class packs bytes at any address, and
    then weights cannot be read in place on processors that insist on aligned words."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.data is None:
            return super().Pack(builder)
        payload = self.data.tobytes()
        builder.StartVector(1, len(payload), BUFFER_ALIGNMENT)
        builder.head -= len(payload)
        builder.Bytes[builder.head : builder.head + len(payload)] = payload
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
