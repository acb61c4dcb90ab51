"""Scored utterances -> where the errors are: by speaker, duration or any column, and by word."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from speechrnn.evaluation import bootstrap
from speechrnn.evaluation.alignment import Edit, align_characters, align_words
from speechrnn.evaluation.error_rates import UtteranceScore, finite, rate, resampling_units

EDGES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
UNKNOWN = "unknown"  # the row of utterances of which the value is not known

_KINDS: dict[str, Literal["substitution", "deletion", "insertion"]] = {
    "substitute": "substitution",
    "delete": "deletion",
    "insert": "insertion",
}


@dataclass(frozen=True)
class Row:
    """The word error rate of a part of the utterances.

    ``wer_ci95`` is as in ``ErrorRates``: over groups, or over utterances where the part has one
    group or none.
    """

    name: str
    utterances: int
    words: int  # of the references
    errors: int
    wer: float
    wer_ci95: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; infinity becomes None."""
        bounds = [finite(bound) for bound in self.wer_ci95]
        return {**dataclasses.asdict(self), "wer": finite(self.wer), "wer_ci95": bounds}


def table(title: str, rows: Sequence[Row]) -> str:
    """Rows for people; rates in percent."""
    wide = max(16, len(title), *(len(row.name) + 2 for row in rows))
    lines = [f"{title:{wide}}  utterances   words  errors   WER %   95 % interval"]
    for row in rows:
        low, high = (f"{100 * bound:.1f}" for bound in row.wer_ci95)
        lines.append(
            f"  {row.name:{wide - 2}}  {row.utterances:10}  {row.words:6}  {row.errors:6}  "
            f"{100 * row.wer:6.2f}   {low} to {high}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Confusion:
    """What was taken for what, and how often; "" where one side has nothing."""

    kind: Literal["substitution", "deletion", "insertion"]
    reference: str
    hypothesis: str
    count: int

    def __str__(self) -> str:
        what = {
            "substitution": f"{self.reference!r} heard as {self.hypothesis!r}",
            "deletion": f"{self.reference!r} missed",
            "insertion": f"{self.hypothesis!r} added",
        }[self.kind]
        return f"{what} ({self.count})"


def by_value(scores: Iterable[UtteranceScore], values: Mapping[str, str]) -> list[Row]:
    """Values by utterance id -> a row for each value, in their order; utterances with no value,
    or an empty one, are in the last row, ``UNKNOWN``."""
    parts: dict[str, list[UtteranceScore]] = defaultdict(list)
    for score in scores:
        parts[values.get(score.utterance_id) or UNKNOWN].append(score)
    names = sorted(parts, key=lambda name: (name == UNKNOWN, name))
    return [_row(name, parts[name]) for name in names]


def by_duration(
    scores: Iterable[UtteranceScore],
    seconds: Mapping[str, float],
    edges: Sequence[float] = EDGES_S,
) -> list[Row]:
    """Seconds by utterance id -> a row for each stretch between rising ``edges`` in which there
    are utterances, shortest first; a lower edge belongs to its stretch."""
    names = [f"under {edges[0]:g} s"]
    names += [f"{low:g} to {high:g} s" for low, high in pairwise(edges)]
    names += [f"{edges[-1]:g} s and more", UNKNOWN]
    parts: dict[int, list[UtteranceScore]] = defaultdict(list)
    for score in scores:
        length = seconds.get(score.utterance_id)
        place = len(edges) + 1 if length is None else sum(edge <= length for edge in edges)
        parts[place].append(score)
    return [_row(names[place], parts[place]) for place in sorted(parts)]


def confusions(scores: Sequence[UtteranceScore], most: int = 20) -> list[Confusion]:
    """The ``most`` frequent word errors, most frequent first."""
    return _most_frequent(scores, align_words, most)


def character_confusions(scores: Sequence[UtteranceScore], most: int = 20) -> list[Confusion]:
    """The ``most`` frequent character errors; a space that is lost joins two words."""
    return _most_frequent(scores, align_characters, most)


def _row(name: str, part: Sequence[UtteranceScore]) -> Row:
    errors = sum(score.errors for score in part)
    words = sum(score.words for score in part)
    units, _ = resampling_units(part)
    interval = bootstrap.interval(units)
    return Row(name, len(part), words, errors, rate(errors, words), interval)


def _most_frequent(
    scores: Sequence[UtteranceScore],
    align: Callable[[Sequence[str], Sequence[str]], list[tuple[Edit, ...]]],
    most: int,
) -> list[Confusion]:
    wrong = [score for score in scores if score.reference != score.hypothesis]
    alignments = align([s.reference for s in wrong], [s.hypothesis for s in wrong])
    counts = Counter(edit for edits in alignments for edit in edits if edit.kind != "equal")

    def rank(found: tuple[Edit, int]) -> tuple[int, str, str, str]:
        edit, count = found
        return -count, edit.kind, edit.reference, edit.hypothesis

    ranked = sorted(counts.items(), key=rank)[:most]
    return [Confusion(_KINDS[e.kind], e.reference, e.hypothesis, count) for e, count in ranked]
