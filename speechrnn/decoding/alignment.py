"""Posteriors and a known transcript -> when each symbol was said, and how well it fits. NumPy only.

The Viterbi path of CTC (Graves et al. 2006) through one given text: its labels with a blank before,
between and behind them are the states; a path stays in its state, goes on to the next, or passes
over a blank between two different labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechrnn.decoding.greedy import Hypothesis, Token
from speechrnn.errors import TranscriptError
from speechrnn.text import BLANK, Alphabet, frames_needed

# Frames whose steps are kept at once. Scores are kept at each block's beginning, and a block's
# steps found anew, among the states it can have been in, on the way back: an hour at 30 ms a frame
# with 50,000 characters takes 90 MB and 23 s, where all its steps would be 12 GB.
BLOCK = 1024
# The logarithm of a posterior of zero: one frame of it spoils a path, and paths still compare.
LEAST = -100.0


@dataclass(frozen=True)
class Symbol:
    """One label of the transcript and the frames [start_frame, end_frame) that it is given."""

    label: int
    start_frame: int
    end_frame: int
    log_prob: float  # the largest natural-log posterior within these frames


@dataclass(frozen=True)
class Alignment:
    """The best path of a transcript through (frames, labels) posteriors.

    Invariants: symbols are in order, each has a frame or more, and none shares a frame with
    another; ``log_prob <= free_log_prob <= 0``, up to rounding.
    """

    symbols: tuple[Symbol, ...]
    log_prob: float  # nats, of the whole path
    free_log_prob: float  # nats, of the best path of any text: the greedy one
    frames: int

    @property
    def mismatch(self) -> float:
        """Nats a symbol by which this transcript is less likely than the best path; 0 or more."""
        return max(0.0, self.free_log_prob - self.log_prob) / max(1, len(self.symbols))

    def hypothesis(self, alphabet: Alphabet) -> Hypothesis:
        """The same as ``greedy`` would give it: text, tokens and words with frames.

        Raises:
            TranscriptError: a label is not the alphabet's.
        """
        _check_labels([symbol.label for symbol in self.symbols], alphabet.spec.size)
        tokens = tuple(
            [
                Token(
                    alphabet.spec.symbols[symbol.label - 1],
                    symbol.label,
                    symbol.start_frame,
                    symbol.end_frame,
                    float(np.exp(symbol.log_prob)),
                )
                for symbol in self.symbols
            ]
        )
        return Hypothesis(
            text=alphabet.decode([symbol.label for symbol in self.symbols]),
            tokens=tokens,
            confidence=float(np.mean([t.probability for t in tokens])) if tokens else 1.0,
        )


def mismatch(log_probs: np.ndarray, labels: Sequence[int]) -> float:
    """(frames, labels) natural-log posteriors and a transcript's labels -> how badly it fits.

    Nats a symbol by which the transcript is less likely than the best path: 0 for what ``greedy``
    reads, the more the more of the transcript is wrong. Raises as ``align`` does.
    """
    return align(log_probs, labels).mismatch


def align(log_probs: np.ndarray, labels: Sequence[int]) -> Alignment:
    """(frames, labels) natural-log posteriors and a transcript's labels -> their best path.

    Time is in proportion to frames times labels, memory to that by ``BLOCK``. Posteriors below
    e**LEAST count as that. No labels: the path of blanks.

    Raises:
        TranscriptError: the labels need more frames than there are, or one is no column's.
    """
    frames, size = log_probs.shape
    _check_labels(labels, size)
    need = frames_needed(labels)
    if need > frames:
        raise TranscriptError(
            f"the transcript has {len(labels)} symbols and needs {need} frames, one for each and "
            f"one between two that are equal; the recording gives {frames}. Is it this "
            "recording's transcript?",
            reason="transcript_too_long",
        )
    free = float(np.maximum(log_probs.max(axis=1), LEAST).sum(dtype=np.float64)) if frames else 0.0
    if frames == 0:
        return Alignment((), 0.0, free, 0)
    states, log_prob = _Lattice(log_probs, labels).best_path()
    return Alignment(_symbols(states, log_probs, labels), log_prob, free, frames)


def _check_labels(labels: Sequence[int], size: int) -> None:
    foreign = sorted({label for label in labels if not BLANK < label < size})
    if foreign:
        raise TranscriptError(
            f"labels {foreign} in a transcript; 1 to {size - 1} are the alphabet's",
            reason="unknown_character",
        )


def _symbols(
    states: np.ndarray, log_probs: np.ndarray, labels: Sequence[int]
) -> tuple[Symbol, ...]:
    """The path's (frames,) states -> frames of each label, whose state is 2 i + 1."""
    wanted = 2 * np.arange(len(labels)) + 1
    starts = np.searchsorted(states, wanted, side="left")
    ends = np.searchsorted(states, wanted, side="right")
    return tuple(
        [
            Symbol(int(label), int(start), int(end), float(log_probs[start:end, label].max()))
            for label, start, end in zip(labels, starts, ends, strict=True)
        ]
    )


class _Lattice:
    """The states of one transcript at the frames of one recording."""

    def __init__(self, log_probs: np.ndarray, labels: Sequence[int]):
        self._log_probs = log_probs
        self._states = np.zeros(2 * len(labels) + 1, np.int64)  # the label of each, blanks between
        self._states[1::2] = labels
        self._passable = np.zeros(len(self._states), bool)  # whether two states before leads here
        self._passable[3::2] = self._states[3::2] != self._states[1:-2:2]

    def best_path(self) -> tuple[np.ndarray, float]:
        """(frames,) the state at each, and the path's log probability."""
        frames, last = len(self._log_probs), len(self._states) - 1
        scores = np.full(last + 1, -np.inf)
        scores[:2] = self._emitted(0, slice(0, 2))
        kept = []
        for start in range(0, frames - 1, BLOCK):
            kept.append(scores)
            scores = self._advance(scores, 0, range(start + 1, min(start + BLOCK, frames - 1) + 1))
        state = last if last == 0 or scores[last] >= scores[last - 1] else last - 1
        path = np.empty(frames, np.int64)
        path[-1] = state
        for number in reversed(range(len(kept))):
            block = range(number * BLOCK + 1, min((number + 1) * BLOCK, frames - 1) + 1)
            # A frame goes back two states at most; those that lack a predecessor here are not met.
            low = max(0, path[block[-1]] - 2 * len(block))
            steps = np.zeros([len(block), path[block[-1]] - low + 1], np.int8)
            self._advance(kept[number][low : path[block[-1]] + 1], low, block, steps)
            for frame, row in zip(reversed(block), reversed(steps), strict=True):
                path[frame - 1] = path[frame] - row[path[frame] - low]
        return path, float(scores[state])

    def _advance(
        self, scores: np.ndarray, low: int, frames: range, steps: np.ndarray | None = None
    ) -> np.ndarray:
        """Scores of the states from ``low`` on after these frames; ``steps`` gets how many states
        each was reached by, (frames, states)."""
        reached = slice(low, low + len(scores))
        padded = np.concatenate([[-np.inf] * 2, scores])  # in front, so that all have predecessors
        stay, one, two = padded[2:], padded[1:-1], padded[:-2]
        barred = np.where(self._passable[reached], 0.0, -np.inf)
        best, passed = np.empty(len(scores)), np.empty(len(scores))
        for number, frame in enumerate(frames):
            np.maximum(stay, one, out=best)
            np.add(two, barred, out=passed)
            if steps is not None:
                steps[number] = np.where(passed > best, 2, one > stay)
            np.maximum(best, passed, out=best)
            np.add(best, self._emitted(frame, reached), out=stay)
        return stay.copy()

    def _emitted(self, frame: int, states: slice) -> np.ndarray:
        row = np.maximum(self._log_probs[frame].astype(np.float64), LEAST)
        return row[self._states[states]]
