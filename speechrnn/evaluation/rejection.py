"""How much doubt a model may have before what it writes is taken for noise, from examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from speechrnn.corpora import noise
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.rejection import Rejection, word_doubts
from speechrnn.errors import MissingExtra, ScoringError
from speechrnn.evaluation.recogniser import Recogniser
from speechrnn.text import normalise

try:
    import jiwer
except ImportError as error:
    raise MissingExtra("tuning the rejection of noise", "train") from error

NOISE_MINUTES = 30.0
PAUSE_S = 1.0  # as long as ``runtime.Endpoint`` waits behind words
MOST_LOST = 0.005  # of the words that are right on the development set


def tune(
    recogniser: Recogniser,
    utterances: Iterable[tuple[np.ndarray, str]],
    noise_minutes: float = NOISE_MINUTES,
    most_lost: float = MOST_LOST,
    seed: int = 0,
) -> Rejection:
    """Waveforms that ``log_probs`` takes with their transcripts, of a development set -> what to
    reject.

    The limit is the lowest that drops at most ``most_lost`` of the words that were right: one of
    two hundred. No limit keeps speech and lets no noise through. Speakers differ: with limits
    tuned on one half of AN4's nine dev speakers, two models lost 12 of 601 and 8 of 589 right
    words of the other half.

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
    found = false_words(recogniser, most_doubt, noise.clips(noise_minutes, seed, rate))
    hours = sum(kind.hours for kind in found.values())
    return Rejection(
        most_doubt=most_doubt,
        pause_s=PAUSE_S,
        dev_words_right=len(right),
        dev_words_lost=int(np.sum(right > most_doubt)),
        noise_hours=round(hours, 3),
        false_words_per_hour_before=round(sum(kind.words for kind in found.values()) / hours, 1),
        false_words_per_hour=round(sum(kind.passed for kind in found.values()) / hours, 1),
    )


@dataclass
class FalseWords:
    """What was written where nobody spoke."""

    hours: float = 0.0
    words: int = 0
    passed: int = 0  # of them those that are not rejected


def false_words(
    recogniser: Recogniser, most_doubt: float, clips: Iterable[tuple[str, np.ndarray]]
) -> dict[str, FalseWords]:
    """Kinds and waveforms without speech -> by kind, what a model writes of them."""
    found: dict[str, FalseWords] = {}
    for name, clip in clips:
        kind = found.setdefault(name, FalseWords())
        doubts = [doubt for _, doubt in _heard(recogniser, clip)]
        kind.hours += len(clip) / recogniser.spec.features.sample_rate / 3600
        kind.words += len(doubts)
        kind.passed += sum(doubt <= most_doubt for doubt in doubts)
    return found


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
