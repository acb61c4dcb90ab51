"""Two evaluations of the same utterances -> whether one system is better, and how sure that is."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from speechrnn.errors import ScoringError
from speechrnn.evaluation import bootstrap
from speechrnn.evaluation.error_rates import UtteranceScore, finite, rate
from speechrnn.evaluation.mapsswe import MatchedPairs, matched_pairs

SIGNIFICANT = 0.05  # two-tailed
POWER = 0.8
_NAMED = 5  # examples in a message


@dataclass(frozen=True)
class Result:
    """What ``evaluate --json`` wrote: the utterances by id, and how texts were normalised."""

    name: str
    normalisation: Mapping[str, Any]
    scores: Mapping[str, UtteranceScore]


@dataclass(frozen=True)
class Comparison:
    """``improvement`` is A's word error rate less B's: positive where B is better.

    ``improvement_ci95`` and ``b_better``, the share of resamples in which B has fewer errors, are
    of a paired bootstrap over ``units`` groups or utterances (Bisani and Ney, ICASSP 2004).
    ``better`` says "a" or "b" where that interval is on one side of zero and the matched-pairs
    test finds a difference as well, and otherwise None: for a single utterance too, or where the
    references have no word, which makes rates infinite. ``utterances_to_tell`` is how many like
    these would show a difference of this size in both tests with a probability of ``POWER``, or
    None where there is no difference or nothing to estimate its spread from.
    """

    utterances: int
    words: int
    errors_a: int
    errors_b: int
    wer_a: float
    wer_b: float
    improvement: float
    improvement_ci95: tuple[float, float]
    resampled: Literal["groups", "utterances"]
    units: int
    b_better: float
    alike: int  # utterances of which both systems write the same
    matched_pairs: MatchedPairs
    better: Literal["a", "b"] | None
    utterances_to_tell: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the ``sentence``; infinity becomes None."""
        data = dataclasses.asdict(self)
        for name in ("wer_a", "wer_b", "improvement"):
            data[name] = finite(data[name])
        data["improvement_ci95"] = [finite(bound) for bound in self.improvement_ci95]
        return {"sentence": self.sentence(), **data}

    def sentence(self) -> str:
        """Whether B is better."""
        if self.alike == self.utterances:
            return "No difference: A and B write the same words in every utterance."
        if self.words == 0:
            return "Cannot tell: the references have no words, and error rates no meaning."
        sign = -1 if self.improvement < 0 else 1  # the interval of what the sentence speaks of
        low, high = (f"{sign * 100 * bound:z.1f}" for bound in self.improvement_ci95[::sign])
        tests = f"(95 % interval {low} to {high}; matched pairs {_p(self.matched_pairs.p)})"
        if self.units == 1:
            tests = f"({_p(self.matched_pairs.p)}, and a single utterance has no interval)"
        less = "fewer" if self.improvement > 0 else "more"
        found = f"B makes {_points(self.improvement)} points {less} errors than A {tests}"
        if self.improvement == 0:
            found = f"B makes as many errors as A {tests}"
        if self.better:
            return f"{self.better.upper()} is better: {found}."
        if self.utterances_to_tell is None:
            return f"Cannot tell: {found}."
        return (
            f"Cannot tell: {found}; it would take about {self.utterances_to_tell} utterances like "
            f"these to tell a difference of this size with {100 * POWER:.0f} % power."
        )

    def table(self) -> str:
        """A few lines for people; rates in percent."""
        low, high = (f"{100 * bound:z.2f}" for bound in self.improvement_ci95)
        test = self.matched_pairs
        return "\n".join(
            [
                f"A   WER {100 * self.wer_a:6.2f} %   {self.errors_a} errors",
                f"B   WER {100 * self.wer_b:6.2f} %   {self.errors_b} errors",
                f"{self.utterances} utterances, {self.words} words; both write the same in "
                f"{self.alike}",
                f"A - B {100 * self.improvement:.2f} points, 95 % interval {low} to {high} "
                f"(bootstrap over {self.units} {self.resampled}); B has fewer errors in "
                f"{100 * self.b_better:.1f} % of resamples",
                f"matched pairs: {test.segments} segments, z {test.z:.2f}, {_p(test.p)}",
                self.sentence(),
            ]
        )


def load(path: str | os.PathLike[str]) -> Result:
    """Read what ``speechrnn evaluate --json`` printed.

    Raises:
        ScoringError: no such file, or not that.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())  # UTF-8 or, from PowerShell, UTF-16
        scores = {row["utterance_id"]: _score(row) for row in data["scores"]}
        if len(scores) < len(data["scores"]):
            raise ValueError("an utterance_id stands twice")
        return Result(str(path), dict(data["normalisation"]), scores)
    except OSError as error:
        raise ScoringError(
            f"cannot read {path}: {error.strerror}; write it with speechrnn evaluate --json"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ScoringError(
            f"{path} is not what speechrnn evaluate --json prints ({type(error).__name__}: "
            f"{error}); evaluate again and keep its output"
        ) from error


def compare(a: Result, b: Result, common: bool = False) -> Comparison:
    """Both systems on the same utterances; with ``common``, on those that are in both.

    Raises:
        ScoringError: nothing in common, or ids, references or normalisation that differ.
    """
    ids = _joined(a, b, common)
    pairs = [(a.scores[i], b.scores[i]) for i in ids]
    words = sum(one.words for one, _ in pairs)
    errors_a, errors_b = (sum(pair[side].errors for pair in pairs) for side in (0, 1))
    units, resampled = _units(pairs)
    sums = np.concatenate([*bootstrap.resampled_sums(units)])
    differences = _differences(sums)
    interval = bootstrap.percentiles(differences)
    test = matched_pairs((one.reference, one.hypothesis, other.hypothesis) for one, other in pairs)
    improvement = float(_differences(units.sum(axis=0, keepdims=True))[0])
    return Comparison(
        utterances=len(pairs),
        words=words,
        errors_a=errors_a,
        errors_b=errors_b,
        wer_a=rate(errors_a, words),
        wer_b=rate(errors_b, words),
        improvement=improvement,
        improvement_ci95=interval,
        resampled=resampled,
        units=len(units),
        b_better=float((sums[:, 1] < sums[:, 0]).mean()),
        alike=sum(one.hypothesis == other.hypothesis for one, other in pairs),
        matched_pairs=test,
        better=_better(improvement, interval, test.p) if words and len(units) > 1 else None,
        utterances_to_tell=_utterances_to_tell(len(pairs), improvement, differences, test.p),
    )


def _score(row: Mapping[str, Any]) -> UtteranceScore:
    values = {field.name: row[field.name] for field in dataclasses.fields(UtteranceScore)}
    texts = ("utterance_id", "group", "reference", "hypothesis")
    for name, value in values.items():
        if not isinstance(value, str if name in texts else int):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, int) and not 0 <= value < 2**31:
            raise ValueError(f"{name} is {value}")
    return UtteranceScore(**values)


def _joined(a: Result, b: Result, common: bool) -> list[str]:
    """The ids to compare, in their order."""
    if a.normalisation != b.normalisation:
        keys = sorted(a.normalisation.keys() | b.normalisation.keys())
        told = [(key, a.normalisation.get(key), b.normalisation.get(key)) for key in keys]
        differ = [f"{key} is {one!r} and {other!r}" for key, one, other in told if one != other]
        raise ScoringError(
            f"{a.name} and {b.name} are normalised differently: {'; '.join(differ)}. Evaluate "
            "both with models of the same text rules and the same version of speechrnn"
        )
    both = sorted(a.scores.keys() & b.scores.keys())
    if not both:
        raise ScoringError(f"{a.name} and {b.name} have no utterance in common; compare others")
    alone = [
        f"{len(ids)} only in {name}: {_some(ids)}"
        for name, ids in (
            (a.name, sorted(a.scores.keys() - b.scores.keys())),
            (b.name, sorted(b.scores.keys() - a.scores.keys())),
        )
        if ids
    ]
    if alone and not common:
        raise ScoringError(
            f"the utterances differ: {'; '.join(alone)}. Evaluate the same on both sides, or "
            f"compare the {len(both)} in both with --common"
        )
    changed = [i for i in both if a.scores[i].reference != b.scores[i].reference]
    if changed:
        one, other = (side.scores[changed[0]].reference for side in (a, b))
        raise ScoringError(
            f"{len(changed)} utterances have different references: {_some(changed)}; the first "
            f"is {one!r} in {a.name} and {other!r} in {b.name}. Evaluate both against the same "
            "manifest"
        )
    return both


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")


def _units(
    pairs: Sequence[tuple[UtteranceScore, UtteranceScore]],
) -> tuple[np.ndarray, Literal["groups", "utterances"]]:
    """What is resampled: (units, 3) integers, A's errors, B's errors and the words of each."""
    sums: dict[str, np.ndarray] = {}
    rows = [np.array([one.errors, other.errors, one.words]) for one, other in pairs]
    groups = [one.group or other.group for one, other in pairs]
    for (one, _), group, row in zip(pairs, groups, rows, strict=True):
        key = f"group {group}" if group else f"utterance {one.utterance_id}"
        sums[key] = sums.get(key, 0) + row
    if len(sums) > 1 and any(groups):
        return np.array([sums[key] for key in sorted(sums)]), "groups"
    return np.array(rows), "utterances"


def _differences(sums: np.ndarray) -> np.ndarray:
    """(rows, 3) errors of A, errors of B and words -> (rows,) A's rate less B's."""
    more, words = sums[:, 0] - sums[:, 1], sums[:, 2]
    without_words = np.where(more == 0, 0.0, np.copysign(np.inf, more))
    return np.divide(more, words, out=without_words, where=words > 0)


def _better(
    improvement: float, interval: tuple[float, float], p: float
) -> Literal["a", "b"] | None:
    one_side = interval[0] > 0 or interval[1] < 0
    if not one_side or p >= SIGNIFICANT:
        return None
    return "b" if improvement > 0 else "a"


def _utterances_to_tell(
    utterances: int, improvement: float, differences: np.ndarray, p: float
) -> int | None:
    """By the weaker of both tests: their z grow with the root of the number of utterances."""
    spread = float(differences.std()) if np.isfinite(differences).all() else 0.0
    if improvement == 0 or spread == 0 or p == 1:
        return None
    normal = NormalDist()
    z = min(abs(improvement) / spread, normal.inv_cdf(1 - max(p, 1e-15) / 2))
    needed = normal.inv_cdf(1 - SIGNIFICANT / 2) + normal.inv_cdf(POWER)
    exact = utterances * (needed / z) ** 2
    # Two digits are more than the estimate is worth.
    unit = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return max(1, math.ceil(exact / unit) * unit)


def _points(difference: float) -> str:
    points = 100 * abs(difference)
    return f"{points:.1f}" if points >= 0.95 else f"{points:.2f}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
