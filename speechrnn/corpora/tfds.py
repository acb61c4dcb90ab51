"""TensorFlow Datasets by name: ``NAME[/CONFIG][:VERSION][@DATA_DIR][?KEY=VALUE&...]``.

A dataset is fetched and prepared by ``tensorflow_datasets``, once, where it is not there. Its
TFRecord files are then read here, without TensorFlow: an utterance is known by its record's place
in its file, so that any process reads any of them at once. Reading ``split[i:i + 1]`` through
TensorFlow would go through the file from its beginning, for each of them.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from speechrnn import audio
from speechrnn.corpora import splits
from speechrnn.corpora.utterance import Example, Form, Utterance
from speechrnn.errors import AudioError, ManifestError, MissingExtra

_NAME = re.compile(r"(?P<name>[^@?]+)(?:@(?P<data_dir>[^?]+))?(?:\?(?P<options>.*))?")
_OPTIONS = ("audio", "text", "sample_rate", "splits")
_TEXTS = ("text", "transcript", "transcription", "sentence")  # in order of preference
_SPEAKERS = ("speaker_id", "speaker", "client_id")
_IDS = ("utterance_id", "id")
LONGEST_S = 86_400.0  # of compressed samples, where no limit is given
_HEADER = 12  # bytes of TFRecord before a record: its length (8) and that one's checksum (4)
_FOOTER = 4


def read(source: str) -> list[Utterance]:
    """A dataset with audio and text -> its utterances, in the order of its splits and records.

    Of several text features, or audio ones, the option names one: ``?text=text_normalized``. The
    option ``splits`` names those that are read, with commas between them; without it, all are. The
    sample rate is the feature's, or the option's. Split names become ours as ``splits.usual`` has
    it; speakers are from ``speaker_id`` or the like.

    Raises:
        ManifestError: no such dataset, not the features, or another file format than TFRecord.
        MissingExtra: tensorflow_datasets is not installed.
    """
    builder, options = _prepared(source)
    place, text = _features(source, builder.info.features, options)
    utterances: list[Utterance] = []
    for name, split in _splits(source, builder.info.splits, options).items():
        before = len(utterances)
        for path in map(Path, split.filepaths):
            here = replace(place, split=name)
            utterances += _utterances(path, here, text, len(utterances) - before)
        if len(utterances) - before != split.num_examples:
            raise ManifestError(
                f"tfds:{source}: {name} holds {len(utterances) - before} of "
                f"{split.num_examples} examples; prepare it again"
            )
    return utterances


def _splits(source: str, there: Mapping[str, Any], options: Mapping[str, str]) -> Mapping[str, Any]:
    """Those that are asked for, in the dataset's order."""
    if "splits" not in options:
        return there
    wanted = options["splits"].split(",")
    strange = [name for name in wanted if name not in there]
    if strange:
        raise ManifestError(f"tfds:{source} has no split {strange[0]!r}; it has {', '.join(there)}")
    return {name: split for name, split in there.items() if name in wanted}


def files(source: str) -> list[Path]:
    """The files of a dataset.

    Raises:
        ManifestError, MissingExtra: as ``read`` does.
    """
    builder, _ = _prepared(source)
    return sorted(path for path in Path(builder.data_dir).iterdir() if path.is_file())


def _prepared(source: str) -> tuple[Any, dict[str, str]]:
    """The builder of a dataset that is on disk, as TFRecord, and the options behind its name."""
    found = _NAME.fullmatch(source)
    if found is None:
        raise ManifestError(f"tfds:{source} names no dataset; write tfds:NAME/CONFIG@DATA_DIR")
    options = dict(parse_qsl(found["options"] or ""))
    strange = options.keys() - set(_OPTIONS)
    if strange:
        known = ", ".join(_OPTIONS)
        raise ManifestError(f"tfds:{source}: there is no option {min(strange)}; there are {known}")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingExtra("a TensorFlow dataset", "tfds") from error
    if re.match(r"an4([/:]|$)", found["name"]):
        from speechrnn.corpora import tfds_an4  # noqa: F401  tells tensorflow_datasets of it
    try:
        builder = tfds.builder(found["name"], data_dir=found["data_dir"])
        builder.download_and_prepare(file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ManifestError(
            f"tfds:{source} cannot be had ({first}); correct the name, or the folder behind @"
        ) from error
    if builder.info.file_format.value != "tfrecord":
        raise ManifestError(
            f"tfds:{source} is stored as {builder.info.file_format.value}; prepare it as tfrecord"
        )
    return builder, options


def _features(
    source: str, features: Mapping[str, Any], options: Mapping[str, str]
) -> tuple[Example, str]:
    """How the audio is stored, in no split yet, and the name of the text."""
    import tensorflow_datasets as tfds

    kinds = {"audio": tfds.features.Audio, "text": tfds.features.Text}
    names = {}
    for what, kind in kinds.items():
        there = [name for name, feature in features.items() if isinstance(feature, kind)]
        usual = [name for name in _TEXTS if name in there]
        found = [options[what]] if what in options else there if len(there) == 1 else usual[:1]
        if not found or found[0] not in there:
            known = ", ".join(f"{n} ({type(f).__name__})" for n, f in features.items())
            raise ManifestError(
                f"tfds:{source} has {len(there)} features of {what} ({', '.join(there) or 'none'}) "
                f"among {known}; one is needed: name it with ?{what}=NAME"
            )
        names[what] = found[0]
    told = features[names["audio"]].to_json_content()
    rate = options.get("sample_rate", told.sample_rate)
    if not str(rate).isdigit() or int(rate) == 0:
        raise ManifestError(
            f"tfds:{source} does not say the sample rate of {names['audio']}; add "
            "?sample_rate=16000, or what it is"
        )
    forms: dict[str, Form] = {"BYTES": "raw", "ZLIB": "zlib"}
    form = "file" if told.lazy_decode else forms.get(told.encoding, "numbers")
    shape = features[names["audio"]].shape
    place = Example(
        split="",
        position=0,
        offset=0,
        size=0,
        feature=names["audio"],
        form=form,
        dtype=told.dtype,
        channels=shape[1] if len(shape) > 1 else 1,
        sample_rate=int(rate),
    )
    return place, names["text"]


def _utterances(path: Path, place: Example, text: str, position: int) -> Iterator[Utterance]:
    """The utterances of a TFRecord file, the first at ``position`` of its split. Of the audio
    nothing is read: its pages stay on the disk."""
    split = splits.usual(place.split) or place.split
    for offset, record in _records(path):
        where = f"{path} {place.split}[{position}]"
        try:
            fields = _walked(record)
            told = {
                name: _text(fields[name]) for name in (text, *_SPEAKERS, *_IDS) if name in fields
            }
        except (ValueError, LookupError) as error:
            raise ManifestError(f"{where} is damaged ({error}); prepare it again") from error
        if text not in told:
            raise ManifestError(f"{where} has no {text}; prepare it again")
        yield Utterance(
            utterance_id=next((told[k] for k in _IDS if told.get(k)), f"{place.split}-{position}"),
            path=path,
            text=told[text],
            split=split,
            speaker=next((told[k] for k in _SPEAKERS if told.get(k)), ""),
            line=position + 1,
            within=replace(place, position=position, offset=offset, size=len(record)),
        )
        position += 1


def _records(path: Path) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of each record of a TFRecord file. Their checksums are not looked at."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}; prepare it again") from error
    at = 0
    while at < size:
        length = struct.unpack_from("<Q", content, at)[0] if at + _HEADER <= size else size
        if at + _HEADER + length + _FOOTER > size:
            raise ManifestError(f"{path} is cut: it ends after {size} bytes; prepare it again")
        yield at + _HEADER, content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length + _FOOTER


def _walked(record: memoryview) -> dict[str, memoryview]:
    """A serialised ``tf.train.Example`` -> its features by name, each still serialised.

    The wire format of ``Example { Features { map<string, Feature> = 1 } = 1 }``: a parser of
    protocol buffers would decode all samples of the audio to get at the text beside it.
    """
    features: dict[str, memoryview] = {}
    for _, body in _fields(record):
        for _, entry in _fields(body):
            parts = dict(_fields(entry))
            features[bytes(parts[1]).decode()] = parts.get(2, memoryview(b""))
    return features


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of a message's fields, all of which have a length."""
    at = 0
    while at < len(message):
        tag = message[at]
        if tag & 7 != 2 or tag >= 0x80:
            raise ValueError(f"no tf.train.Example: tag {tag}")
        at, length, shift = at + 1, 0, 0
        while True:
            byte = message[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if at + length > len(message):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _parsed(feature: memoryview) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_feature_pb2

    try:
        return tf_feature_pb2.Feature.FromString(bytes(feature))
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _text(feature: memoryview) -> str:
    """Text, or a number as text: speakers may be either."""
    values = _parsed(feature)
    written = [value.decode() for value in values.bytes_list.value]
    return " ".join(" ".join([*written, *map(str, values.int64_list.value)]).split())


def blocks(
    utterance: Utterance, sample_rate: int, max_seconds: float | None
) -> Iterator[np.ndarray]:
    """The audio of an utterance that ``read`` gave, as ``audio.blocks``."""
    place, name = utterance.within, utterance.where
    if not isinstance(place, Example):
        raise TypeError(f"{name} lies in no TensorFlow dataset")
    try:
        with utterance.path.open("rb") as file:
            file.seek(place.offset)
            record = memoryview(file.read(place.size))
        feature = _parsed(_walked(record)[place.feature])
        content = feature.bytes_list.value
        if place.form == "file":
            yield from audio.blocks(content[0], sample_rate, max_seconds, name=name)
            return
        waveform = _waveform(feature, place, max_seconds)
    except FileNotFoundError as error:
        raise AudioError(f"{utterance.path} does not exist; prepare it again", "missing") from error
    except (OSError, LookupError, ValueError, ArithmeticError, zlib.error) as error:
        raise AudioError(f"{name} is damaged ({error!r}); prepare the dataset again") from error
    yield from audio.decoded_blocks(
        waveform, place.sample_rate, sample_rate, max_seconds, name=name
    )


def _waveform(feature: Any, place: Example, max_seconds: float | None) -> np.ndarray:
    """(samples,) float32, full scale 1: integers are 16-bit samples, which is what
    tensorflow_datasets stores of what it decodes."""
    dtype = np.dtype(place.dtype)
    if place.form == "numbers":
        samples = np.array(feature.float_list.value or feature.int64_list.value, dtype)
    else:
        content = feature.bytes_list.value[0]
        if place.form == "zlib":
            seconds = LONGEST_S if max_seconds is None else max_seconds + 1
            longest = int(seconds * place.sample_rate * place.channels * dtype.itemsize)
            content = zlib.decompressobj().decompress(content, longest)
        samples = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
    mono = samples.reshape(-1, place.channels).mean(axis=1, dtype=np.float32)
    return mono if dtype.kind == "f" else mono / np.float32(32_768)
