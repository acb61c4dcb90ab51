"""Whether words are right as often as their confidences say, and how to make it so."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.decoding.confidence import Calibration, log_odds
from speechrnn.errors import MissingExtra, ScoringError
from speechrnn.files import write_atomically
from speechrnn.specs import TextRules
from speechrnn.text import normalise

try:
    import jiwer
except ImportError as error:  # the device side judges nothing
    raise MissingExtra("calibrating confidences", "train") from error

BINS = 15
FOLDS = 10  # at most
LEAST_WORDS, LEAST_WRONG = 100, 5  # of less, two numbers cannot be fitted
_RIDGE = 1e-3  # so that words told apart without an error have a slope, too
_STEPS = 50


def judge(words: Sequence[str], reference: str, rules: TextRules) -> list[bool]:
    """Of each word heard, whether it stands in the reference, by the alignment of fewest edits."""
    reference = normalise(reference, rules)
    right = [False] * len(words)
    if not reference or not words:
        return right
    (alignment,) = jiwer.process_words(reference, " ".join(words)).alignments
    for chunk in alignment:
        if chunk.type == "equal":
            for place in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                right[place] = True
    return right


@dataclass(frozen=True)
class Bin:
    """Words of neighbouring confidences."""

    words: int
    lowest: float  # confidence in it
    highest: float
    confidence: float  # mean
    right: float  # fraction of the words


@dataclass(frozen=True)
class Reliability:
    """Confidences beside what became of them, in bins of equally many words.

    ``ece``, the expected calibration error, is the mean over all words of the distance between
    their bin's mean confidence and its fraction of right words. It is not 0 for a perfect
    calibration: of 640 words of which 94 % are right, chance alone makes it about 0.01.
    """

    words: int
    ece: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """One line for people."""
        return (
            f"confidences are off by {100 * self.ece:.1f} points: expected calibration error over "
            f"{self.words} words in {len(self.bins)} bins"
        )


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> Reliability | None:
    """Confidences in [0, 1] of words, and whether each was right; None without any word.

    Words of equal confidence may be in two bins; the order in which they are given then decides.
    """
    if not len(confidences):
        return None
    certain, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    order = np.argsort(certain, kind="stable")
    bins = tuple(
        Bin(
            words=len(chosen),
            lowest=float(certain[chosen].min()),
            highest=float(certain[chosen].max()),
            confidence=float(certain[chosen].mean()),
            right=float(hit[chosen].mean()),
        )
        for chosen in np.array_split(order, min(BINS, len(order)))
    )
    ece = sum(one.words * abs(one.confidence - one.right) for one in bins) / len(order)
    return Reliability(len(order), float(ece), bins)


def fit(weakest: Sequence[float], right: Sequence[bool], groups: Sequence[str]) -> Calibration:
    """The smallest posterior of each word's symbols, whether it was right, and who spoke -> the
    map, with its error on speakers that it was not fitted on: each, or a tenth of them, in turn.

    Chosen on AN4's dev speakers, each left out in turn: the logistic map of the weakest symbol
    costs 0.125 nats a word, isotonic regression 0.132; of the mean posterior 0.132 and 0.149.

    Raises:
        ScoringError: too few words, or too few wrong ones, to fit two numbers.
    """
    wrong = len(right) - sum(right)
    if len(right) < LEAST_WORDS or wrong < LEAST_WRONG:
        raise ScoringError(
            f"{len(right)} words, {wrong} of them wrong; {LEAST_WORDS} and {LEAST_WRONG} are "
            "needed to tell how sure a model may be"
        )
    odds, hit = log_odds(weakest), np.asarray(right, np.float64)
    unseen = np.zeros(len(hit))
    names = sorted(set(groups))
    for fold in range(min(FOLDS, len(names))):
        out = np.isin(groups, names[fold::FOLDS])
        if not out.all():
            unseen[out] = Calibration(*_logistic(odds[~out], hit[~out]))(np.asarray(weakest)[out])
    before, after = reliability(weakest, right), reliability(unseen.tolist(), right)
    offset, slope = _logistic(odds, hit)
    return Calibration(
        offset=round(offset, 4),
        slope=round(slope, 4),
        words=len(hit),
        right=int(hit.sum()),
        ece_before=round(before.ece, 4) if before else 0.0,
        ece=round(after.ece, 4) if after and len(names) > 1 else None,
    )


def _logistic(odds: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    """Offset and slope by Newton's method; Platt's targets instead of 0 and 1."""
    many, few = hit.sum(), len(hit) - hit.sum()
    target = np.where(hit > 0, (many + 1) / (many + 2), 1 / (few + 2))
    inputs = np.stack([np.ones(len(odds)), odds], axis=1)

    def loss(weights: np.ndarray) -> float:
        logits = inputs @ weights
        return float(np.sum(np.logaddexp(0, logits) - target * logits) + _RIDGE * weights @ weights)

    weights = np.zeros(2)
    for _ in range(_STEPS):
        sure = 1 / (1 + np.exp(-np.clip(inputs @ weights, -50, 50)))
        slope = inputs.T @ (sure - target) + 2 * _RIDGE * weights
        curve = (inputs * (sure * (1 - sure))[:, None]).T @ inputs + 2 * _RIDGE * np.eye(2)
        step = np.linalg.solve(curve, slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
    if weights[1] < 0:  # surer where wrong: then the confidence says nothing
        return float(log_odds([target.mean()])[0]), 0.0
    return float(weights[0]), float(weights[1])


def plot(found: Reliability, path: Path) -> None:
    """Write the reliability as a PNG: bins with 95 % intervals beside the diagonal."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing the reliability", "train") from error
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    x = np.array([one.confidence for one in found.bins])
    y = np.array([one.right for one in found.bins])
    low, high = np.array([_wilson(one.right, one.words) for one in found.bins]).T
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, label="as often as it says")
    axes.errorbar(x, y, [y - low, high - y], fmt="o", ms=5, capsize=2, lw=1, label="words, 95 %")
    axes.set(
        xlabel="confidence",
        ylabel="fraction of words that are right",
        title=f"{found.words} words, {len(found.bins)} bins of equally many\n"
        f"expected calibration error {100 * found.ece:.1f} %",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="upper left", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, content.getvalue())


def _wilson(rate: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a fraction (Wilson 1927)."""
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count**2))
    return min(rate, float(middle - half)), max(rate, float(middle + half))
