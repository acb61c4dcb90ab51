"""A report to look at: whistled recordings, a recogniser that mishears some, and its evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from conftest import RATE, whistle

from speechrnn import audio
from speechrnn.corpora.manifest import Utterance
from speechrnn.decoding.alignment import align
from speechrnn.decoding.greedy import greedy
from speechrnn.evaluation.evaluate import Evaluation, evaluate
from speechrnn.runtime.results import Aligned, Transcript, timed_words
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, TextRules
from speechrnn.text import Alphabet

SYMBOLS = " abcdx"


class Mishearing:
    """Hears the text that it is told for a path, at two output frames a symbol."""

    spec = RecogniserSpec(
        FeatureSpec(), AlphabetSpec(tuple(SYMBOLS), TextRules(punctuation="keep")), ModelSpec()
    )
    alphabet = Alphabet(spec.alphabet)

    def __init__(self, heard: dict[Path, str]):
        self.heard = heard

    def align(self, recording: Path, text: str) -> Aligned:
        heard = self.transcribe(recording)
        found = align(heard.log_probs, self.alphabet.encode(text))
        words = timed_words(found.hypothesis(self.alphabet), self.spec, heard.duration_s)
        return Aligned(text, words, found.mismatch, heard.duration_s)

    def transcribe(self, recording: Path) -> Transcript:
        seconds = len(waveform := audio.load(recording)) / RATE
        log_probs = spikes(self.alphabet, self.heard[recording], len(waveform), self.spec)
        found = greedy(log_probs, self.alphabet)
        words = timed_words(found, self.spec, seconds)
        return Transcript(found.text, words, found.confidence, seconds, log_probs)


def spikes(alphabet, text, samples, spec):
    """(frames, labels) posteriors that say ``text``, a symbol every second frame."""
    posteriors = np.full([spec.output_frames(samples), alphabet.spec.size], 1e-6)
    posteriors[:, 0] = 1
    for place, label in enumerate(alphabet.encode(text) if text else []):
        posteriors[2 * place] = 1e-6
        posteriors[2 * place, label] = 1
    return np.log(posteriors / posteriors.sum(axis=1, keepdims=True)).astype(np.float32)


def corpus(folder: Path, count: int, wrong: int) -> tuple[list[Utterance], Mishearing]:
    """``count`` utterances over few recordings; utterance i < ``wrong`` has 1 + i % 3 errors."""
    recordings = []
    for number in range(min(count, 40)):
        recordings.append(folder / f"r{number}.wav")
        soundfile.write(recordings[-1], whistle("ab cd bc", number), RATE)
    # A recogniser tells recordings by their path: one link an utterance.
    utterances, heard = [], {}
    for number in range(count):
        path = folder / f"u{number:04d}.wav"
        path.symlink_to(recordings[number % len(recordings)])
        words = ["ab", "cd", "bc"]
        heard[path] = " ".join(
            "x" if number < wrong and place <= number % 3 else word
            for place, word in enumerate(words)
        )
        speaker = f"speaker{number % 12:02d}"
        utterances.append(Utterance(path.stem, path, " ".join(words), "dev", speaker))
    return utterances, Mishearing(heard)


def evaluated(utterances, recogniser) -> Evaluation:
    return evaluate(recogniser, utterances, progress=False)


def renamed(evaluation: Evaluation, utterances, change) -> tuple[Evaluation, list[Utterance]]:
    """The same evaluation of utterances whose texts a ``change`` has made strange."""
    scores = tuple(
        replace(
            s,
            utterance_id=change(s.utterance_id),
            group=change(s.group),
            reference=change(s.reference),
            hypothesis=change(s.hypothesis),
        )
        for s in evaluation.rates.scores
    )
    named = [
        replace(u, utterance_id=change(u.utterance_id), speaker=change(u.speaker))
        for u in utterances
    ]
    by = {change(name): rows for name, rows in evaluation.by.items()}
    rates = replace(evaluation.rates, scores=scores)
    seconds = {change(name): length for name, length in evaluation.seconds.items()}
    return replace(evaluation, rates=rates, by=by, seconds=seconds), named
