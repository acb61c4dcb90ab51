"""Utterances as examples of a TensorFlow dataset, and any corpus as such a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import audio, corpora
from speechrnn.corpora import manifest, recordings
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import DataError, ManifestError, MissingExtra

VERSION = "1.0.0"


def features(sample_rate: int) -> Any:
    """What an example holds: 16-bit audio, its text, who says it, and its id."""
    tfds = _tfds()
    return tfds.features.FeaturesDict(
        {
            # As numbers, three times the size of 16-bit audio: its encodings raise an error for
            # arrays, and files that are decoded when they are read need pydub and ffmpeg.
            "audio": tfds.features.Audio(shape=(None,), dtype=np.int16, sample_rate=sample_rate),
            "text": tfds.features.Text(),
            "speaker": tfds.features.Text(),
            "id": tfds.features.Text(),
        }
    )


def examples(
    utterances: Sequence[Utterance], sample_rate: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, example) of each.

    Raises:
        AudioError: a recording that cannot be read.
    """
    for utterance in utterances:
        waveform = recordings.load(utterance, sample_rate)
        yield (
            utterance.utterance_id,
            {
                "audio": audio.to_pcm16(waveform),
                "text": utterance.text,
                "speaker": utterance.speaker,
                "id": utterance.utterance_id,
            },
        )


def store(
    source: str | Path,
    out: Path,
    name: str,
    *,
    sample_rate: int = 16_000,
    dev_fraction: float = 0.1,
    description: str = "",
) -> Path:
    """Any corpus -> a TensorFlow dataset in ``out``; returns the folder of its version.

    There, ``tfds.load(name, data_dir=out)`` and ``tfds.builder_from_directory`` read it without
    this package. Texts are as the corpus has them.

    Raises:
        ManifestError: the corpus cannot be read, or has an id twice.
        DataError: the name is taken in ``out``.
        AudioError: a recording that cannot be read.
        MissingExtra: tensorflow_datasets is not installed.
    """
    tfds = _tfds()
    utterances, later = manifest.without_duplicates(corpora.read(source, dev_fraction))
    if later:
        raise ManifestError(f"{source}, {later[0][1]}")
    by_split: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_split.setdefault(utterance.split, []).append(utterance)
    builder = tfds.dataset_builders.AdhocBuilder(
        name=name,
        version=VERSION,
        features=features(sample_rate),
        split_datasets={s: examples(mine, sample_rate) for s, mine in by_split.items()},
        data_dir=out,
        description=description or f"{len(utterances)} utterances at {sample_rate} Hz.",
        file_format="tfrecord",
    )
    if builder.is_prepared():
        raise DataError(f"{builder.data_dir} is there already; give another name or folder")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise MissingExtra("a TensorFlow dataset", "tfds") from error
    return tensorflow_datasets
