"""One utterance -> checked 16-bit audio, or the reason why not. Runs in worker processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speechrnn import audio
from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import DataError

REPORT_FILE = "report.tsv"  # of a prepared folder: every Rejected


@dataclass(frozen=True)
class Settings:
    """What decoding depends on: nothing of the text, the model or the features but their rate."""

    sample_rate: int  # Hz
    min_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class Prepared:
    """``pcm16``: mono samples at the settings' rate, 16-bit little endian."""

    utterance: Utterance
    pcm16: bytes

    @property
    def samples(self) -> int:
        return len(self.pcm16) // 2


@dataclass(frozen=True)
class Rejected:
    """An utterance that is left out; ``reason`` is the short code that reports count."""

    utterance_id: str
    path: str
    split: str
    reason: str
    message: str


def prepare_utterance(utterance: Utterance, settings: Settings) -> Prepared | Rejected:
    """Decode, check and convert one recording. A pure function of its arguments and the file.

    Never raises: an error nobody foresaw is a rejection of reason ``unexpected``.
    """
    try:
        waveform = recordings.load(utterance, settings.sample_rate, settings.max_seconds)
        audio.check(
            waveform,
            settings.sample_rate,
            min_seconds=settings.min_seconds,
            max_seconds=settings.max_seconds,
            name=utterance.where,
        )
        pcm = audio.to_pcm16(waveform).astype(np.dtype("<i2"))
    except DataError as error:
        return reject(utterance, error.reason, str(error))
    except Exception as error:
        return reject(utterance, "unexpected", f"{type(error).__name__}: {error}")
    return Prepared(utterance, pcm.tobytes())


def reject(utterance: Utterance, reason: str, message: str) -> Rejected:
    """The record of why ``utterance`` is left out."""
    return Rejected(utterance.utterance_id, utterance.where, utterance.split, reason, message)
