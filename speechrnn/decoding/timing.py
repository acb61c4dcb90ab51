"""Symbols in frames -> words in seconds. NumPy only.

A CTC network writes a symbol anywhere near its sound, some long before it: how far off is a habit
of each model, which ``evaluation.timing`` measures and its card keeps.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.decoding.greedy import Token
from speechrnn.errors import ModelError

NEAR_S = 0.25  # a pause no farther than this from where a word should end is where it ends
FAR_S = 0.5  # the same before the first word and behind the last; no word sounds longer than this
# before its first symbol or after its last
EARLY_S = 0.4  # a symbol is written at most so long before its sound begins, or after it ended


@dataclass(frozen=True)
class Timing:
    """How a model's symbols lie in time; travels in its card. Seconds, from the symbols' middles.

    ``inner_s``: from where one word ends and the next begins to the middle between the last symbol
    of the one and the first of the other. ``lead_s``: from a beginning after silence to the first
    symbol. ``trail_s``: from the last symbol to an end before silence. ``junctions`` and
    ``recordings`` are how many each was measured on.
    """

    inner_s: float
    lead_s: float
    trail_s: float
    junctions: int = 0
    recordings: int = 0

    def __post_init__(self) -> None:
        if not all(abs(value) < 2 for value in (self.inner_s, self.lead_s, self.trail_s)):
            raise ValueError(f"{self}: no symbol is 2 s from its sound")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Timing:
        """Raises ModelError where a field is missing, unknown or out of range."""
        try:
            return Timing(**data)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the model's timing is not one this version reads ({error!r}); export it again "
                "with this version"
            ) from error


def by_word(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens between spaces."""
    runs = itertools.groupby(tokens, key=lambda token: token.symbol.isspace())
    return [list(run) for is_space, run in runs if not is_space]


def word_spans(
    words: Sequence[Sequence[Token]], seconds_per_frame: float, timing: Timing, pauses: np.ndarray
) -> np.ndarray:
    """Each word's tokens -> (words, 2) seconds in which they were said.

    ``pauses`` is ``Loudness.pauses()`` of the recording, which ends with the last. A word begins
    where the one before it ends, unless there is a pause between them. Spans are in order, within
    the recording, and do not overlap.
    """
    if not words:
        return np.zeros([0, 2])
    first = np.array([word[0].start_frame + 0.5 for word in words]) * seconds_per_frame
    last = np.array([word[-1].end_frame - 0.5 for word in words]) * seconds_per_frame
    between = (last[:-1] + first[1:]) / 2 - timing.inner_s
    starts = np.maximum(np.append(first[0] - timing.lead_s, between), first - FAR_S)
    ends = np.minimum(np.append(between, last[-1] + timing.trail_s), last + FAR_S)
    for cut, (begin, end) in _nearest(np.concatenate([first[:1], between, last[-1:]]), pauses):
        if cut < len(words) and end <= first[cut] + EARLY_S:
            starts[cut] = end
        if cut > 0 and begin >= last[cut - 1] - EARLY_S:
            ends[cut - 1] = begin
    spans = np.stack([starts, ends], axis=1)
    in_order = np.maximum.accumulate(spans.reshape(-1)).reshape(-1, 2)
    return np.clip(in_order, 0.0, pauses[-1, 1])


def _nearest(cuts: np.ndarray, pauses: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Pauses near a cut, each with the number of the nearest one."""
    right = np.clip(np.searchsorted(cuts, pauses[:, 0]), 0, len(cuts) - 1)
    found = []
    for pause, behind in zip(pauses, right, strict=True):
        nearby = [cut for cut in (behind - 1, behind, behind + 1) if 0 <= cut < len(cuts)]
        distances = [max(pause[0] - cuts[cut], cuts[cut] - pause[1], 0.0) for cut in nearby]
        middles = [abs(cuts[cut] - pause.mean()) for cut in nearby]
        distance, _, cut = min(zip(distances, middles, nearby, strict=True))
        if distance <= (FAR_S if cut in (0, len(cuts) - 1) else NEAR_S):
            found.append((cut, pause))
    return found


def symbol_spans(
    tokens: Sequence[Token], seconds_per_frame: float, span: Sequence[float]
) -> np.ndarray:
    """A word's tokens and its span -> (tokens, 2) seconds, one behind the other.

    They are parted in the middle between two symbols, and stretched as the word was.
    """
    middles = np.array([(t.start_frame + t.end_frame) / 2 for t in tokens]) * seconds_per_frame
    half = seconds_per_frame / 2
    cuts = np.concatenate(
        [[middles[0] - half], (middles[:-1] + middles[1:]) / 2, [middles[-1] + half]]
    )
    start, end = span
    stretched = start + (cuts - cuts[0]) * ((end - start) / (cuts[-1] - cuts[0]))
    return np.stack([stretched[:-1], stretched[1:]], axis=1)
