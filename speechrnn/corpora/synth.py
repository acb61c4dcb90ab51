"""Phrases -> a corpus of synthetic speech: many voices, speeds and pitches, and a manifest.

A corpus to start with, for somebody who has phrases and no recordings yet. First a *plan*, a
pure function of (phrases, settings, seed), says who speaks what and how; then processes speak
what the folder does not hold yet. espeak-ng's samples are not reproducible, so a seed fixes
the manifest and not the audio: ``corpus.json`` holds the hash of what was made.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from speechrnn.audio import to_pcm16
from speechrnn.corpora import espeak, manifest
from speechrnn.corpora import phrases as phrase_list
from speechrnn.corpora.phrases import Phrase
from speechrnn.errors import AudioError, UsageError
from speechrnn.files import sha256_of, write_atomically

SAMPLE_RATE = 16000

# Speakers by split: espeak-ng's variants, "" being a voice's plain form. Chosen by matching the
# letters and digits of each variant with those of all others (dynamic time warping of MFCCs):
# the ones that resemble no other are left out, and so are the whispering, croaking and robotic
# ones. No training speaker is a near copy of a held-out one, and each split has both sexes.
SPEAKERS = {
    "train": (
        *("", "Alex", "m1", "m2", "m5", "m7", "m8", "Mario", "max", "boris", "rob", "quincy"),
        *("pablo", "victor", "Denis", "Diogo"),
        *("f1", "f3", "f4", "Annie", "aunty", "belinda", "grandma", "steph"),
    ),
    "dev": ("m6", "f5"),
    "test": ("m3", "m4", "f2", "linda"),
}
_HELD_OUT = {4: "dev", 9: "test"}  # of ten utterances of phrases that name no split

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """What is drawn anew for each utterance, uniformly: enough that no two sound alike."""

    rate_wpm: Range = (130, 190)
    pitch: Range = (35, 65)  # espeak-ng's scale, 0 to 99
    pitch_range: Range = (30, 70)  # the same
    word_gap_ms: Range = (0, 60)
    vocal_tract: Range = (0.94, 1.06)  # all frequencies times this, and the tempo with them
    tilt: Range = (-0.3, 0.3)  # of the spectrum: y[n] = x[n] + tilt x[n-1]
    level_db: Range = (-32, -20)  # speech, rms, against full scale
    snr_db: Range = (25, 45)  # white noise below the speech
    silence_s: Range = (0.1, 0.4)  # at either end


@dataclass(frozen=True)
class Take:
    """One planned utterance: every choice is made, nothing has sounded yet."""

    utterance_id: str
    text: str
    split: str
    voice: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    word_gap_ms: int
    vocal_tract: float
    tilt: float
    level_db: float
    snr_db: float
    lead_s: float
    trail_s: float
    noise_seed: int

    @property
    def file_name(self) -> str:
        """Holds a hash of the whole take, so that a file is right exactly if it is there."""
        digest = hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()
        return f"{self.utterance_id}-{digest[:8]}.flac"


def synthesise(
    phrases: Sequence[Phrase],
    out: str | Path,
    *,
    language: str = "en-us",
    per_phrase: int = 10,
    seed: int = 0,
    style: Style | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Speak each phrase ``per_phrase`` times and return the manifest, ``out/manifest.tsv``.

    ``out`` gets 16 kHz mono 16-bit FLAC files in ``audio/``, ``corpus.json`` (settings,
    counts, hashes) and, last and atomically, the manifest. Speakers of dev and test are never
    training speakers, in any accent. Run again, it speaks only what is missing; the manifest
    of the same arguments is the same, byte for byte.

    ``workers`` is the number of processes (0: one a core; 1: this process alone), which start
    anew: guard a script's main part by ``if __name__ == "__main__":``. ``progress`` is called
    with (utterances done, utterances in all).

    Raises:
        UsageError: espeak-ng does not speak the language, or a number is out of range.
        AudioError: espeak-ng speaks nothing for a phrase.
        MissingExtra: the extra [synth] is not installed.
    """
    style = style or Style()
    takes = plan(phrases, cast(language), per_phrase=per_phrase, seed=seed, style=style)
    out = Path(out)
    audio = out / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    missing = [take for take in takes if not (audio / take.file_name).exists()]
    there = len(takes) - len(missing)
    for done, _ in enumerate(_perform(missing, audio, workers), start=there + 1):
        if progress:
            progress(done, len(takes))
    settings = {
        "language": language,
        "per_phrase": per_phrase,
        "seed": seed,
        "style": dataclasses.asdict(style),
        "phrases": len(phrases),
        "phrases_sha256": phrase_list.sha256(phrases),
    }
    write_atomically(out / "corpus.json", _describe(takes, audio, settings).encode())
    path = out / "manifest.tsv"
    manifest.write(
        path,
        [
            manifest.Utterance(t.utterance_id, audio / t.file_name, t.text, t.split, t.voice)
            for t in takes
        ],
    )
    return path


def cast(language: str) -> dict[str, list[str]]:
    """Split -> the voices that speak in it: every accent of the language, every speaker."""
    accents = espeak.voices(language)
    return {
        split: [f"{accent}+{name}" if name else accent for accent in accents for name in names]
        for split, names in SPEAKERS.items()
    }


def plan(
    phrases: Sequence[Phrase],
    voices: Mapping[str, Sequence[str]],
    *,
    per_phrase: int,
    seed: int,
    style: Style,
) -> list[Take]:
    """Who says what and how: ``len(phrases) * per_phrase`` takes, phrase by phrase.

    Phrases added at the end of the list change nothing before them. A split's voices are
    used equally often, in an order shuffled anew each time round. Of ten utterances of
    phrases that name no split, one is for dev and one for test.
    """
    if per_phrase < 1:
        raise UsageError(f"per_phrase is {per_phrase}; speak each phrase at least once")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must not be negative")
    queues = {split: _shuffled_forever(names, seed, split) for split, names in voices.items()}
    unpinned = 0
    takes = []
    for number in range(len(phrases) * per_phrase):
        phrase = phrases[number // per_phrase]
        split = phrase.split
        if not split:
            split = _HELD_OUT.get(unpinned % 10, "train")
            unpinned += 1
        takes.append(_draw(phrase, split, next(queues[split]), number, seed, style))
    return takes


def _shuffled_forever(names: Sequence[str], seed: int, split: str) -> Iterator[str]:
    rng = np.random.default_rng([seed, 0, *split.encode()])
    while True:
        yield from (names[i] for i in rng.permutation(len(names)))


def _draw(phrase: Phrase, split: str, voice: str, number: int, seed: int, style: Style) -> Take:
    rng = np.random.default_rng([seed, 1, number])

    def uniform(limits: Range) -> float:
        return round(float(rng.uniform(*limits)), 4)

    return Take(
        utterance_id=f"{phrase.group or 'phrase'}-{number:05d}-{voice}",
        text=phrase.text,
        split=split,
        voice=voice,
        rate_wpm=round(uniform(style.rate_wpm)),
        pitch=round(uniform(style.pitch)),
        pitch_range=round(uniform(style.pitch_range)),
        word_gap_ms=round(uniform(style.word_gap_ms)),
        vocal_tract=uniform(style.vocal_tract),
        tilt=uniform(style.tilt),
        level_db=uniform(style.level_db),
        snr_db=uniform(style.snr_db),
        lead_s=uniform(style.silence_s),
        trail_s=uniform(style.silence_s),
        noise_seed=int(rng.integers(2**32)),
    )


def render(take: Take) -> np.ndarray:
    """A take -> (samples,) float32 in [-1, 1] at ``SAMPLE_RATE``.

    Raises:
        AudioError: espeak-ng speaks nothing for the text.
    """
    return render_with_times(take)[0]


def render_with_times(take: Take) -> tuple[np.ndarray, list[tuple[str, float | None]]]:
    """``render``, and each word with the second in which it begins, as ``espeak.speak_with_times``
    knows it."""
    speech, rate, spoken = espeak.speak_with_times(
        take.text,
        take.voice,
        rate_wpm=take.rate_wpm,
        pitch=take.pitch,
        pitch_range=take.pitch_range,
        word_gap_ms=take.word_gap_ms,
    )
    if not speech.any():
        raise AudioError(
            f"{take.utterance_id}: espeak-ng speaks nothing for {take.text!r} with the voice "
            f"{take.voice}; correct the phrase or the language",
            reason="silent",
        )
    # Played at another rate, a voice has a longer or shorter vocal tract.
    speech = soxr.resample(speech, rate * take.vocal_tract, SAMPLE_RATE)
    speech[1:] += take.tilt * speech[:-1].copy()
    level = 10 ** (take.level_db / 20)
    speech *= min(level / np.sqrt(np.mean(speech**2)), 0.9 / np.abs(speech).max())
    lead, trail = (round(s * SAMPLE_RATE) for s in (take.lead_s, take.trail_s))
    rng = np.random.default_rng(take.noise_seed)
    noise = rng.standard_normal(lead + len(speech) + trail, np.float32)
    wave = noise * np.float32(level * 10 ** (-take.snr_db / 20))
    wave[lead : lead + len(speech)] += speech
    times = [
        (word, None if start is None else lead / SAMPLE_RATE + start / take.vocal_tract)
        for word, start in spoken
    ]
    return np.clip(wave, -1, 1), times


def _perform(takes: Sequence[Take], folder: Path, workers: int) -> Iterator[None]:
    """Make the takes' files; one item as each is done."""
    workers = min(workers or os.cpu_count() or 1, len(takes))
    make = functools.partial(_make, folder=folder)
    if workers <= 1:
        yield from map(make, takes)
        return
    # Started anew, not forked: a fork of a process that runs TensorFlow's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(make, takes, chunksize=16)


def _make(take: Take, folder: Path) -> None:
    path = folder / take.file_name
    partial = path.with_suffix(".part")
    soundfile.write(partial, to_pcm16(render(take)), SAMPLE_RATE, format="FLAC")
    os.replace(partial, path)


def _describe(takes: Iterable[Take], audio: Path, settings: dict[str, Any]) -> str:
    """corpus.json: where the corpus comes from, how large it is, and its hash."""
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    speakers: dict[str, set[str]] = {}
    digest = hashlib.sha256()
    for take in takes:
        path = audio / take.file_name
        line = (take.utterance_id, take.text, take.split, take.voice, sha256_of(path))
        digest.update(("\t".join(line) + "\n").encode())
        counts[take.split] += 1
        seconds[take.split] += soundfile.info(path).duration
        speakers.setdefault(take.split, set()).add(take.voice)
    description = {
        "kind": "synthetic speech",
        "synthesiser": f"eSpeak NG {espeak.version()}",
        "licence": "made with eSpeak NG, a program under GPL-3.0-or-later; the phrases keep "
        "their own licence",
        **settings,
        "utterances": counts,
        "seconds": {split: round(total, 1) for split, total in seconds.items()},
        "speakers": {split: sorted(names) for split, names in speakers.items()},
        "corpus_sha256": digest.hexdigest(),
    }
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"
