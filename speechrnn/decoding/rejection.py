"""Whether a stretch of what was heard is speech at all. NumPy only.

A recogniser writes its letters under anything that sounds. What gives noise and music away is how
unsure it is of each symbol it writes; see ``doubt``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.decoding.greedy import Hypothesis, Token
from speechrnn.errors import ModelError
from speechrnn.text import BLANK

_FRAMES = 4096  # at a time: a stretch may be an hour long


@dataclass(frozen=True)
class Rejection:
    """What is taken for noise, and what that was tuned on; travels in a model's card.

    A stretch of more than ``most_doubt`` nats a symbol is dropped. The figures after ``pause_s``
    are those of the tuning: the development set's words that were right, those of them that are
    dropped, and words written in an hour of generated non-speech, without rejection and with it.
    """

    most_doubt: float
    pause_s: float = 1.0  # between two stretches: that of ``runtime.Endpoint``
    dev_words_right: int = 0
    dev_words_lost: int = 0
    noise_hours: float = 0.0
    false_words_per_hour_before: float = 0.0
    false_words_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if not (self.most_doubt >= 0 and self.pause_s > 0):
            raise ValueError(f"{self}: most_doubt must not be negative, and pause_s positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Rejection:
        """Raises ModelError where a field is missing, unknown or out of range."""
        try:
            return Rejection(**data)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the model's rejection is not one this version reads ({error!r}); export it "
                "again with this version"
            ) from error


def stretches(tokens: Sequence[Token], pause_frames: float) -> list[list[Token]]:
    """Symbols between which there are fewer frames without one than a pause has.

    A space is silence: none begins or ends a stretch, and none is in two.
    """
    found: list[list[Token]] = []
    spaces: list[Token] = []
    for token in tokens:
        if token.symbol.isspace():
            spaces.append(token)
            continue
        if found and token.start_frame - found[-1][-1].end_frame < pause_frames:
            found[-1] += [*spaces, token]
        else:
            found.append([token])
        spaces = []
    return found


def doubt(log_probs: np.ndarray, stretch: Sequence[Token]) -> float:
    """How unsure the model is of a stretch of (frames, labels): nats a symbol, 0 or more.

    The entropy of the posteriors, summed from the first symbol's first frame to the last one's
    end, by the number of symbols. Speech has short symbols with sure blanks between them. Noise
    has long ones, or is in doubt at every frame of them. Of the measures tried on two models of
    AN4 (mean, median and smallest posterior, mean logarithm and log odds of the symbols, mean
    entropy of all frames or those of symbols, symbols a second) none let less noise through that
    lost as few words, and it favours neither long stretches nor short ones.
    """
    nats = 0.0
    for start in range(stretch[0].start_frame, stretch[-1].end_frame, _FRAMES):
        stop = min(start + _FRAMES, stretch[-1].end_frame)
        logs = log_probs[start:stop].astype(np.float64)
        logs = np.maximum(logs, -100)  # a posterior of 0 has no doubt in it, and no logarithm
        nats -= float((np.exp(logs) * logs).sum())
    return nats / len(stretch)


def word_doubts(
    heard: Hypothesis, log_probs: np.ndarray, pause_s: float, seconds_per_frame: float
) -> list[float]:
    """Of each word of ``greedy(log_probs)`` the doubt of the stretch in which it begins."""
    parts = stretches(heard.tokens, pause_s / seconds_per_frame)
    found = {token.start_frame: doubt(log_probs, part) for part in parts for token in part[:1]}
    starts = sorted(found)
    words = [word.start_frame for word in heard.words]
    return [found[starts[i - 1]] for i in np.searchsorted(starts, words, side="right")]


def without_noise(
    heard: Hypothesis, log_probs: np.ndarray, rejection: Rejection, seconds_per_frame: float
) -> tuple[Hypothesis, int]:
    """What is left of ``greedy(log_probs)``, and how many stretches were taken for noise.

    Where nothing is left the confidence is that of silence, as ``greedy`` has it.
    """
    parts = stretches(heard.tokens, rejection.pause_s / seconds_per_frame)
    noise = [part for part in parts if doubt(log_probs, part) > rejection.most_doubt]
    if not noise:
        return heard, 0
    gone = {token.start_frame for part in noise for token in part}
    tokens = tuple(token for token in heard.tokens if token.start_frame not in gone)
    if all(token.symbol.isspace() for token in tokens):
        return Hypothesis("", (), float(np.exp(log_probs[:, BLANK].min()))), len(noise)
    confidence = sum(token.probability for token in tokens) / len(tokens)
    left = Hypothesis("", tokens, confidence)
    text = " ".join(word.text for word in left.words)
    return dataclasses.replace(left, text=text), len(noise)


def silenced(
    heard: Hypothesis, log_probs: np.ndarray, rejection: Rejection, seconds_per_frame: float
) -> tuple[np.ndarray, int]:
    """(frames, labels) log_probs in which nothing but the blank can be heard where ``greedy`` of
    them is taken for noise, and how many stretches that is."""
    parts = stretches(heard.tokens, rejection.pause_s / seconds_per_frame)
    spans = [(part[0].start_frame, part[-1].end_frame) for part in parts]
    # Up to the middle of the pause on either side: noise goes on where no symbol is best.
    inner = [(before[1] + after[0]) // 2 for before, after in itertools.pairwise(spans)]
    edges = [0, *inner, len(log_probs)]
    noise = [
        slice(edges[number], edges[number + 1])
        for number, part in enumerate(parts)
        if doubt(log_probs, part) > rejection.most_doubt
    ]
    if noise:
        log_probs = log_probs.copy()
    for frames in noise:
        log_probs[frames] = -np.inf
        log_probs[frames, BLANK] = 0
    return log_probs, len(noise)
