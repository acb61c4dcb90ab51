"""Two systems' words for the same references -> whether their errors differ: NIST's MAPSSWE.

The matched-pairs sentence-segment word error test (Gillick and Cox, ICASSP 1989; Pallett et al.,
ICASSP 1990), with the alignment and the segments of NIST's ``sclite`` and ``sc_stats``. Utterances
are cut where both systems are right for a while, so that what remains, segments of errors, can
be taken as independent; the difference of the two systems' errors in a segment is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

GOOD_WORDS = 2  # this many words in a row, right in both systems, end a segment
SUBSTITUTION, GAP = 4, 3  # sclite's costs, of a gap for a deletion and for an insertion


@dataclass(frozen=True)
class MatchedPairs:
    """``mean`` and ``z`` are positive where the first system has more errors.

    ``p`` is two-tailed. Without a segment it is 1. Where all segments differ alike, there is no
    spread to compare with and ``z`` is 0, as ``sc_stats`` has it; but ``p``, which is 1 there, is
    here that of n fair coins falling alike, 2 / 2**n.
    """

    segments: int
    errors: tuple[int, int]  # of each system, by the alignment below
    mean: float  # errors more in a segment
    deviation: float  # of the difference, between segments
    z: float
    p: float


def matched_pairs(utterances: Iterable[tuple[str, str, str]]) -> MatchedPairs:
    """(reference, first hypothesis, second hypothesis) of normalised texts -> the test.

    The normal distribution that it relies on takes some 50 segments to be near.
    """
    pairs = [pair for texts in utterances for pair in segments(*texts)]
    if not pairs:
        return MatchedPairs(0, (0, 0), 0.0, 0.0, 0.0, 1.0)
    first, second = np.array(pairs).T
    difference, n = first - second, len(pairs)
    mean, deviation = float(difference.mean()), 0.0
    if difference.min() < difference.max():
        deviation = float(difference.std(ddof=1))
        z = mean / (deviation / math.sqrt(n))
        p = math.erfc(abs(z) / math.sqrt(2))
    else:
        z, p = 0.0, 2.0 ** (1 - n) if mean else 1.0
    return MatchedPairs(n, (int(first.sum()), int(second.sum())), mean, deviation, z, p)


def segments(reference: str, first: str, second: str) -> list[tuple[int, int]]:
    """The errors of both systems in each segment of an utterance; every segment has some.

    A segment goes from one error to the last before ``GOOD_WORDS`` or more words that both have
    right, with nothing inserted between them, or before the utterance's end.
    """
    words = reference.split()
    wrong = [errors_by_place(words, hypothesis.split()) for hypothesis in (first, second)]
    found: list[tuple[int, int]] = []
    errors, good = [0, 0], 0
    for place in range(2 * len(words) + 1):
        here = [side[place] for side in wrong]
        if any(here):
            good = 0
            errors = [a + b for a, b in zip(errors, here, strict=True)]
        elif place % 2:  # a word, and right in both
            good += 1
            if good == GOOD_WORDS and any(errors):
                found.append((errors[0], errors[1]))
                errors = [0, 0]
    return [*found, (errors[0], errors[1])] if any(errors) else found


def errors_by_place(reference: Sequence[str], hypothesis: Sequence[str]) -> list[int]:
    """(2 * words + 1): the words inserted before the first word, whether it is wrong, those
    inserted before the second, ..., and those inserted after the last.

    By the alignment of least cost, which is not always that of fewest errors; of several the one
    that ``sclite`` takes: from the end, a substitution or a match before an insertion before a
    deletion.
    """
    wrong = [0] * (2 * len(reference) + 1)
    if reference == hypothesis:
        return wrong
    costs = _costs(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    while i or j:
        cost = costs[i][j]
        differ = i > 0 and j > 0 and reference[i - 1] != hypothesis[j - 1]
        if i and j and cost == costs[i - 1][j - 1] + SUBSTITUTION * differ:
            i, j = i - 1, j - 1
            wrong[2 * i + 1] = int(differ)
        elif j and cost == costs[i][j - 1] + GAP:
            j -= 1
            wrong[2 * i] += 1
        else:
            i -= 1
            wrong[2 * i + 1] = 1
    return wrong


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[list[int]]:
    """[i][j]: the least cost of turning i words of the reference into j of the hypothesis."""
    rows = [[GAP * j for j in range(len(hypothesis) + 1)]]
    for i, word in enumerate(reference, 1):
        above, row = rows[-1], [GAP * i]
        for j, heard in enumerate(hypothesis):
            replaced = above[j] if word == heard else above[j] + SUBSTITUTION
            row.append(min(replaced, above[j + 1] + GAP, row[j] + GAP))
        rows.append(row)
    return rows
