"""Posteriors to text by the most probable label of each frame. NumPy only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from speechrnn.errors import ModelError
from speechrnn.text import BLANK, Alphabet


@dataclass(frozen=True)
class Token:
    """One symbol and the frames [start_frame, end_frame) in which it was the best label."""

    symbol: str
    label: int
    start_frame: int
    end_frame: int
    probability: float  # the largest posterior within these frames


@dataclass(frozen=True)
class Word:
    """One word, from its first symbol's first frame to its last symbol's end."""

    text: str
    start_frame: int
    end_frame: int
    confidence: float  # mean probability of its tokens


@dataclass(frozen=True)
class Hypothesis:
    """What was heard, and how sure that is.

    Invariant: ``" ".join(word.text for word in words) == text``.
    """

    text: str
    tokens: tuple[Token, ...]
    confidence: float  # mean probability of the tokens, spaces included

    @property
    def words(self) -> tuple[Word, ...]:
        """The tokens between spaces, put together."""
        runs = itertools.groupby(self.tokens, key=lambda token: token.symbol.isspace())
        return tuple([_word(list(tokens)) for is_space, tokens in runs if not is_space])


def greedy(log_probs: np.ndarray, alphabet: Alphabet) -> Hypothesis:
    """(frames, labels) natural-log posteriors -> the best path: repeats collapsed, blanks dropped.

    Of labels that tie, the lowest wins, so the blank before any symbol. Where nothing was
    heard, the confidence is that of the silence: the smallest blank posterior over the frames,
    1.0 without frames.

    Raises:
        ModelError: the columns are not the alphabet's labels, or a value is NaN or positive.
    """
    check(log_probs, alphabet)
    return along(log_probs.argmax(axis=1), log_probs, alphabet)


def along(path: np.ndarray, log_probs: np.ndarray, alphabet: Alphabet) -> Hypothesis:
    """A label for each frame, (frames,) integers -> what they write: repeats collapsed, blanks
    dropped. The confidence is as in ``greedy``."""
    if len(path) == 0:
        return Hypothesis(text="", tokens=(), confidence=1.0)
    edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))  # where runs start, and the end
    logs = log_probs[np.arange(len(path)), path]
    peaks = np.exp(np.maximum.reduceat(logs, edges[:-1]))
    # From a list: CPython makes a generator's tuple too large, and when the shrunk one is freed
    # keeps its memory, call after call, until 2,000 of its length are kept.
    tokens = tuple(
        [
            Token(alphabet.spec.symbols[label - 1], int(label), int(start), int(end), float(peak))
            for start, end, peak, label in zip(
                edges[:-1], edges[1:], peaks, path[edges[:-1]], strict=True
            )
            if label != BLANK
        ]
    )
    return Hypothesis(
        text=alphabet.decode([token.label for token in tokens]),
        tokens=tokens,
        confidence=_mean(tokens) if tokens else float(np.exp(log_probs[:, BLANK].min())),
    )


def _word(tokens: list[Token]) -> Word:
    return Word(
        text="".join(token.symbol for token in tokens),
        start_frame=tokens[0].start_frame,
        end_frame=tokens[-1].end_frame,
        confidence=_mean(tokens),
    )


def _mean(tokens: tuple[Token, ...] | list[Token]) -> float:
    return sum(token.probability for token in tokens) / len(tokens)


def check(log_probs: np.ndarray, alphabet: Alphabet) -> None:
    """Raise ModelError unless these are (frames, alphabet size) natural-log posteriors."""
    labels = alphabet.spec.size
    if log_probs.ndim != 2 or log_probs.shape[1] != labels:
        raise ModelError(
            f"the model gave an array of shape {log_probs.shape}; (frames, {labels}) is needed, "
            f"a column for the blank and each of {labels - 1} symbols. Is it this model's alphabet?"
        )
    # Zero is the largest logarithm of a probability; rounding may pass it by a hair.
    if not np.all(log_probs <= 1e-3):
        frame = int(np.flatnonzero(~(log_probs <= 1e-3).all(axis=1))[0])
        raise ModelError(
            f"the model's frame {frame} holds {log_probs[frame].max()}; log posteriors are at most "
            "0. Pass the output of log-softmax, not logits, and check the model for damage."
        )
