"""A list of what may have been said, put into another order by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextScorer(Protocol):
    """A language model of whole texts, such as ``neural.CharacterLM``."""

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """ln P of each text, (texts,)."""


def rescore(
    n_best: Sequence[tuple[str, float]],
    language_model: TextScorer,
    weight: float,
    length_bonus: float = 0.0,
) -> list[tuple[str, float]]:
    """Texts with their scores, natural logarithms, from a beam search -> the best first, by

        score + weight * ln P(text) + length_bonus * characters

    with these sums as the new scores. Equal ones stay in their order, so that a weight and a bonus
    of 0 change nothing in a sorted list. What the search's own language model gave stays in its
    score.

    Args:
        length_bonus: a language model takes something off for every character, and so prefers
            short texts; this gives some of it back.

    Raises:
        TranscriptError: a text has a character that the language model does not know.
    """
    if not n_best:
        return []
    texts = [text for text, _ in n_best]
    log_probs = language_model.scores(texts)
    total = [
        score + weight * float(log_prob) + length_bonus * len(text)
        for (text, score), log_prob in zip(n_best, log_probs, strict=True)
    ]
    order = sorted(range(len(texts)), key=lambda i: -total[i])
    return [(texts[i], total[i]) for i in order]
