"""Bootstrap intervals of error rates: what other speakers, or utterances, would have given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000  # a bound of the interval then moves by 0.06 standard errors with the seed
SEED = 0
BLOCK = 1 << 20  # numbers drawn at a time: memory stays below 50 MB


def interval(units: np.ndarray) -> tuple[float, float]:
    """(units, 2) integers, the errors and the words of each -> 95 % interval of errors / words.

    Percentile bootstrap (Bisani and Ney, ICASSP 2004), the same numbers every time. A single unit
    gives a point; resamples without a word count as infinite, or as 0.0 where they have no error.
    """
    return percentiles(rates(np.concatenate([*resampled_sums(units)])))


def resampled_sums(units: np.ndarray) -> Iterator[np.ndarray]:
    """(units, columns) -> blocks of (resamples, columns): sums over units drawn with replacement,
    ``RESAMPLES`` rows in all."""
    rng = np.random.default_rng(SEED)
    rows = max(1, BLOCK // len(units))
    for start in range(0, RESAMPLES, rows):
        drawn = rng.integers(len(units), size=(min(rows, RESAMPLES - start), len(units)))
        # Column by column: gathering rows of two takes twice the time.
        yield np.stack([column[drawn].sum(axis=1) for column in units.T], axis=1)


def rates(sums: np.ndarray) -> np.ndarray:
    """(rows, 2) errors and words -> (rows,) their ratios."""
    errors, words = sums[:, 0], sums[:, 1]
    empty = np.where(errors > 0, np.inf, 0.0)
    return np.divide(errors, words, out=empty, where=words > 0)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The bounds that leave 2.5 % of the values on either side."""
    # "nearest" never interpolates: between infinities that would give NaN
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(low), float(high)
