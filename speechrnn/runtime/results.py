"""What a recogniser answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speechrnn.decoding.greedy import Hypothesis
from speechrnn.specs import RecogniserSpec


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said, in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording.

    Invariant: ``" ".join(word.text for word in words) == text``.
    """

    text: str
    words: tuple[TimedWord, ...]
    confidence: float  # mean probability of the symbols, 0 to 1
    duration_s: float
    log_probs: np.ndarray  # (frames, alphabet size), what other decoders start from
    rejected: int = 0  # stretches taken for noise: in log_probs, not in text and words


def timed_words(
    heard: Hypothesis, spec: RecogniserSpec, duration_s: float, first_frame: int = 0
) -> tuple[TimedWord, ...]:
    """The words of a hypothesis that begins at ``first_frame``; none ends after the recording."""

    def seconds(frame: int) -> float:
        return min((first_frame + frame) * spec.seconds_per_output_frame, duration_s)

    # From a list, as in ``greedy``, so that no memory is kept.
    return tuple(
        [
            TimedWord(w.text, seconds(w.start_frame), seconds(w.end_frame), w.confidence)
            for w in heard.words
        ]
    )
