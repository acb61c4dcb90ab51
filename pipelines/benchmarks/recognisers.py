"""Whole recognisers, each in a process of its own: recordings in memory to text, on one thread."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from implementations import Actions, LeftOut

RECOGNISERS = {
    "speechrnn-greedy": "speechrnn, the shipped model",
    "speechrnn-beam": "the same, lexicon and 3-gram",
    "pocketsphinx": "pocketsphinx, its en-us model, the same 3-gram",
}
RATE = 16_000
Transcribe = Callable[[np.ndarray], str]


@dataclass(frozen=True)
class Spoken:
    """What is transcribed, with which language model, and where the texts are written."""

    manifest: str
    folder: str
    lm: str  # ARPA, of words
    split: str = "dev"
    utterances: int = 0  # the first so many; 0: all


def actions(job: dict[str, Any]) -> Actions:
    """``transcribe``: all recordings, one after the other; the first time, texts are written to
    FOLDER/IMPLEMENTATION.json, by utterance id.

    Raises:
        LeftOut: a package is missing.
    """
    from speechrnn import audio
    from speechrnn.corpora import manifest

    name, spoken = job["implementation"], Spoken(**job["shape"])
    transcribe = _pocketsphinx(spoken) if name == "pocketsphinx" else _speechrnn(name, spoken)
    listed = [u for u in manifest.read(spoken.manifest) if u.split == spoken.split]
    kept = listed[: spoken.utterances or None]
    waves = {u.utterance_id: audio.load(u.path, RATE) for u in kept}
    written = Path(spoken.folder) / f"{name}.json"

    def all_of_them() -> None:
        texts = {utterance: transcribe(wave) for utterance, wave in waves.items()}
        if not written.exists():
            written.write_text(json.dumps(texts), encoding="utf-8")

    return {"transcribe": all_of_them}


def _speechrnn(name: str, spoken: Spoken) -> Transcribe:
    from speechrnn.decoding.settings import DecoderSettings
    from speechrnn.errors import MissingExtra
    from speechrnn.runtime import default_model, open_model

    settings = DecoderSettings(lm=Path(spoken.lm)) if name.endswith("beam") else None
    try:
        recogniser = open_model(default_model(), decoder=settings)
    except MissingExtra as reason:
        raise LeftOut(str(reason)) from None
    return lambda wave: recogniser.transcribe(wave).text


def _pocketsphinx(spoken: Spoken) -> Transcribe:
    try:
        package: Any = importlib.import_module("pocketsphinx")
    except ImportError:
        raise LeftOut("pocketsphinx is not installed: pip install pocketsphinx") from None
    decoder = package.Decoder(
        hmm=package.get_model_path("en-us/en-us"),
        dict=package.get_model_path("en-us/cmudict-en-us.dict"),
        lm=spoken.lm,
        samprate=RATE,
        loglevel="FATAL",
    )

    def transcribe(wave: np.ndarray) -> str:
        samples = np.clip(np.rint(32768 * wave), -32768, 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return transcribe
