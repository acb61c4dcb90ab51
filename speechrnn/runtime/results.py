"""What a recogniser answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.decoding.confidence import Calibration
from speechrnn.decoding.greedy import Hypothesis, Token
from speechrnn.decoding.timing import Timing, by_word, symbol_spans, word_spans
from speechrnn.specs import RecogniserSpec


@dataclass(frozen=True)
class TimedSymbol:
    """A symbol within its word; the times are rougher than the word's."""

    text: str
    start_s: float
    end_s: float
    probability: float  # the largest posterior, as the network gave it


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said, in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float
    confidence: float  # the probability that it is right, where the model's card has a calibration
    symbols: tuple[TimedSymbol, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """Another text that a beam search has left, and the score that it goes by."""

    text: str
    score: float


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording.

    Invariant: ``" ".join(word.text for word in words) == text``.
    """

    text: str
    words: tuple[TimedWord, ...]
    # Mean of the words' confidences where these are calibrated, else of the symbols' probabilities.
    confidence: float
    duration_s: float
    log_probs: np.ndarray  # (frames, alphabet size), what other decoders start from
    rejected: int = 0  # stretches taken for noise: in log_probs, not in text and words
    alternatives: tuple[Alternative, ...] = ()  # the n best, the text itself among them


@dataclass(frozen=True)
class Aligned:
    """A transcript and when it was said.

    Invariant: ``" ".join(word.text for word in words) == text``.
    """

    text: str  # normalised as the model's alphabet wants it
    words: tuple[TimedWord, ...]
    # Nats a symbol by which it is less likely than what the model hears: 0 where it is just that.
    mismatch: float
    duration_s: float


@dataclass(frozen=True)
class Habits:
    """What a model's card knows of its times and confidences; without an entry they are raw."""

    timing: Timing | None = None
    calibration: Calibration | None = None

    @staticmethod
    def of(card: dict[str, Any]) -> Habits:
        """Raises ModelError where an entry is not one this version reads."""
        timing, calibration = card.get("timing"), card.get("calibration")
        return Habits(
            timing=None if timing is None else Timing.from_dict(timing),
            calibration=None if calibration is None else Calibration.from_dict(calibration),
        )


RAW = Habits()


def timed_words(
    heard: Hypothesis,
    spec: RecogniserSpec,
    duration_s: float,
    first_frame: int = 0,
    habits: Habits = RAW,
    pauses: np.ndarray | None = None,
) -> tuple[TimedWord, ...]:
    """The words of a hypothesis that begins at ``first_frame``; none ends after the recording.

    With a timing and the recording's ``pauses``, in seconds from its start, words begin and end
    where they were said; otherwise with their first and last symbol.
    """
    words = by_word(heard.tokens)
    frame_s = spec.seconds_per_output_frame
    begin_s = first_frame * frame_s
    if habits.timing and pauses is not None:
        spans = begin_s + word_spans(words, frame_s, habits.timing, pauses - begin_s)
    else:
        edges = [(word[0].start_frame, word[-1].end_frame) for word in words]
        spans = (first_frame + np.array(edges).reshape(-1, 2)) * frame_s
    spans = np.minimum(spans, duration_s)
    confidences = [word.confidence for word in heard.words]
    if habits.calibration:
        weakest = [min(token.probability for token in word) for word in words]
        confidences = habits.calibration(weakest)
    # From a list, as in ``greedy``, so that no memory is kept.
    return tuple(
        [
            TimedWord(
                "".join(token.symbol for token in word),
                float(start),
                float(end),
                confidence,
                _timed_symbols(word, frame_s, (start, end)),
            )
            for word, (start, end), confidence in zip(words, spans, confidences, strict=True)
        ]
    )


def _timed_symbols(
    word: list[Token], frame_s: float, span: tuple[float, float]
) -> tuple[TimedSymbol, ...]:
    return tuple(
        [
            TimedSymbol(token.symbol, float(start), float(end), token.probability)
            for token, (start, end) in zip(word, symbol_spans(word, frame_s, span), strict=True)
        ]
    )


def confidence_of(heard: Hypothesis, words: tuple[TimedWord, ...], habits: Habits) -> float:
    """A whole hypothesis's confidence, see ``Transcript``."""
    if habits.calibration and words:
        return sum(word.confidence for word in words) / len(words)
    return heard.confidence
