"""How much doubt a model may have before what it writes is taken for noise, from examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from speechrnn.corpora import noise
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.rejection import Rejection, word_doubts
from speechrnn.errors import MissingExtra, ScoringError
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet, normalise

try:
    import jiwer
except ImportError as error:
    raise MissingExtra("tuning the rejection of noise", "train") from error

NOISE_MINUTES = 30.0
PAUSE_S = 1.0  # as long as ``runtime.Endpoint`` waits behind words
MOST_LOST = 0.005  # of the words that are right on the development set


class Recogniser(Protocol):
    """What the doubts are of: a run, a SavedModel, a ``.tflite``."""

    @property
    def alphabet(self) -> Alphabet: ...

    @property
    def spec(self) -> RecogniserSpec: ...

    def log_probs(self, waveform: np.ndarray, /) -> np.ndarray: ...


def tune(
    recogniser: Recogniser,
    utterances: Iterable[tuple[np.ndarray, str]],
    noise_minutes: float = NOISE_MINUTES,
    most_lost: float = MOST_LOST,
    seed: int = 0,
) -> Rejection:
    """Waveforms that ``log_probs`` takes with their transcripts, of a development set -> what to
    reject.

    The limit is the lowest that drops at most ``most_lost`` of the words that were right, so one
    of two hundred. To let no noise through at all would cost too many: of two models of AN4 a
    third and all. The record says how much of ``corpora.noise`` still passes.

    Raises:
        ScoringError: no word was right, so that nothing can be kept.
        AudioError: a waveform cannot be used.
    """
    right = np.sort([doubt for pair in utterances for doubt in _right(recogniser, *pair)])
    if len(right) == 0:
        raise ScoringError(
            "not one word of the development set was recognised, so that speech and noise cannot "
            "be told apart; train the model first"
        )
    most_doubt = float(right[len(right) - 1 - int(most_lost * len(right))])
    rate = recogniser.spec.features.sample_rate
    seconds, false = 0.0, []
    for _, clip in noise.clips(noise_minutes, seed, rate):
        seconds += len(clip) / rate
        false += [doubt for _, doubt in _heard(recogniser, clip)]
    hours = seconds / 3600
    return Rejection(
        most_doubt=most_doubt,
        pause_s=PAUSE_S,
        dev_words_right=len(right),
        dev_words_lost=int(np.sum(right > most_doubt)),
        noise_hours=hours,
        false_words_per_hour_before=len(false) / hours,
        false_words_per_hour=float(np.sum(np.array(false) <= most_doubt)) / hours,
    )


def _heard(recogniser: Recogniser, waveform: np.ndarray) -> list[tuple[str, float]]:
    """Each word, and its stretch's doubt."""
    log_probs = recogniser.log_probs(waveform)
    heard = greedy(log_probs, recogniser.alphabet)
    frame = recogniser.spec.seconds_per_output_frame
    doubts = word_doubts(heard, log_probs, PAUSE_S, frame)
    return [(word.text, doubt) for word, doubt in zip(heard.words, doubts, strict=True)]


def _right(recogniser: Recogniser, waveform: np.ndarray, reference: str) -> list[float]:
    """The doubts of the words that stand in the reference, by the alignment of fewest edits."""
    reference = normalise(reference, recogniser.alphabet.spec.rules)
    heard = _heard(recogniser, waveform)
    if not reference or not heard:
        return []
    (alignment,) = jiwer.process_words(reference, " ".join(word for word, _ in heard)).alignments
    return [
        doubt
        for chunk in alignment
        if chunk.type == "equal"
        for _, doubt in heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
    ]
