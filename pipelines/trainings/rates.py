"""Word errors by speaker, of one training or of several seeds: what is held against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from speechrnn.evaluation import bootstrap
from speechrnn.evaluation.error_rates import ErrorRates


def by_speaker(rates: ErrorRates) -> dict[str, list[int]]:
    """Speaker -> word errors, words; an utterance whose speaker is not known stands for one."""
    sums: dict[str, list[int]] = {}
    for each in rates.scores:
        total = sums.setdefault(each.group or each.utterance_id, [0, 0])
        total[0] += each.errors
        total[1] += each.words
    return sums


def over_seeds(trainings: Sequence[Mapping[str, Sequence[int]]]) -> np.ndarray:
    """What ``by_speaker`` gave for each seed -> (speakers, 2): a speaker who is drawn brings the
    errors of every seed."""
    speakers = sorted(trainings[0])
    return np.sum([[each[speaker] for speaker in speakers] for each in trainings], axis=0)


def rate(units: np.ndarray) -> float:
    """(speakers, 2), word errors and words summed over seeds -> the error rate, which is the mean
    of the seeds': each hears the same words."""
    errors, words = units.sum(axis=0)
    return float(errors / words)


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Error rate of ``one`` minus that of ``other``, both (speakers, 2) of the same speakers, and
    its 95 % interval, paired: a resample has the same speakers on both sides."""
    sums = np.concatenate([*bootstrap.resampled_sums(np.hstack([one, other]))])
    apart = bootstrap.rates(sums[:, :2]) - bootstrap.rates(sums[:, 2:])
    return rate(one) - rate(other), *bootstrap.percentiles(apart)
