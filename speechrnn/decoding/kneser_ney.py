"""Sentences -> an n-gram model, by interpolated modified Kneser-Ney smoothing. NumPy only.

Chen & Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98,
equations (23) to (26), in the reading of KenLM's ``lmplz`` (Heafield et al., "Scalable Modified
Kneser-Ney Language Model Estimation", ACL 2013), with which the result agrees number by number but
for what docs/language_models.md tells of.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from speechrnn.decoding.ngram import END, SPECIALS, START, NGramModel, NGrams, places
from speechrnn.errors import DataError, TranscriptError, UsageError

FALLBACK = (0.5, 1.0, 1.5)  # discounts where none can be estimated: those of lmplz

Discounts = tuple[float, float, float]  # of counts 1, 2, and 3 or more

_START, _FIRST = SPECIALS.index(START), len(SPECIALS)


@dataclass(frozen=True)
class _Counts:
    """All n-grams of one order, a row each, sorted by (context, word).

    ``context`` and ``suffix`` are the rows, one order below, of all words but the last and of all
    but the first. ``count`` is how often the n-gram occurs, ``adjusted`` the count that Kneser-Ney
    works with, ``kept`` whether the model lists it.
    """

    context: np.ndarray
    suffix: np.ndarray
    word: np.ndarray
    count: np.ndarray
    adjusted: np.ndarray
    kept: np.ndarray


def estimate(
    sentences: Iterable[Sequence[str]],
    order: int = 3,
    prune: Sequence[int] = (0,),
    min_count: int = 1,
    fallback: Discounts | None = FALLBACK,
) -> NGramModel:
    """Sentences of words -> a model of at most ``order`` words. Their order does not matter.

    Where no n-gram of ``order`` words occurs, or all are pruned, the model's order is lower.

    Args:
        prune: of each order the count up to which n-grams are left out, the last one for all
            higher orders, as in lmplz; the first is 0, for words have ``min_count``.
        min_count: words that occur less often are unknown (``--limit_vocab_file`` of lmplz): what
            they had is spread evenly over the vocabulary and <unk>.
        fallback: the discounts of an order whose own cannot be estimated, as in small or
            artificial texts (``fallback_orders`` of the model names it); None: that is an error.

    Raises:
        UsageError: an order, a threshold, a count or a fallback that means nothing.
        TranscriptError: no words at all or none often enough, or one that no ARPA file can hold.
        DataError: no discounts for an order, and no fallback.
    """
    thresholds = _thresholds(order, prune, min_count)
    if fallback is not None and not _in_range(fallback):
        raise UsageError(
            f"fallback discounts {fallback}: above 0 and at most 1, 2 and 3 are needed"
        )
    words, tokens = _tokens(sentences)
    levels = _counted(tokens, len(words), thresholds, min_count)
    discounts: list[Discounts] = []
    fallbacks = []
    for length, level in enumerate(levels, start=1):
        found = _discounts(level.adjusted)
        if found is None:
            fallbacks.append(length)
            found = fallback
        if found is None:
            raise DataError(
                f"the text has too few different {length}-grams, or too even ones, to estimate "
                "their discounts; give more text, a lower order, or fallback discounts"
            )
        discounts.append(found)
    kept = tuple(word for word, keep in zip(words, levels[0].kept, strict=True) if keep)
    if len(kept) == _FIRST:
        raise TranscriptError(
            f"no word of the text occurs {min_count} times; give more text or a lower count",
            reason="empty_transcript",
        )
    ngrams = _interpolated(levels, discounts)
    return NGramModel(kept, ngrams, tuple(discounts), tuple(fallbacks))


def _thresholds(order: int, prune: Sequence[int], min_count: int) -> list[int]:
    """Of each order the count up to which n-grams are left out."""
    if order < 1:
        raise UsageError(f"the order is {order}; at least 1 is needed")
    if min_count < 1:
        raise UsageError(f"the least count of a word is {min_count}; at least 1 is needed")
    given = [*prune] or [0]
    if given[0] != 0 or given != sorted(given) or len(given) > order:
        raise UsageError(
            f"pruning thresholds {','.join(map(str, given))} for order {order}: give at most one "
            "an order, 0 for single words and none smaller than the one before, such as 0,0,1"
        )
    return given + [given[-1]] * (order - len(given))


def _tokens(sentences: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """The vocabulary, ``SPECIALS`` first and the rest sorted, and the text as rows of it, each
    sentence between <s> and </s>."""
    numbers: dict[str, int] = {}
    found = array("i")
    for sentence in sentences:
        found.append(_START)
        found.extend([numbers.setdefault(word, len(numbers) + _FIRST) for word in sentence])
        found.append(SPECIALS.index(END))
    if not numbers:
        raise TranscriptError(
            "the text has no words to make a language model of", reason="empty_transcript"
        )
    for word in numbers:
        _check(word)
    words = (*SPECIALS, *sorted(numbers))
    rows = np.arange(len(words))
    rows[[numbers[word] for word in words[_FIRST:]]] = np.arange(_FIRST, len(words))
    return words, rows[np.frombuffer(found, np.intc)]


def _check(word: str) -> None:
    """Raise TranscriptError unless an ARPA file can hold the word."""
    if word in SPECIALS:
        raise TranscriptError(
            f"{word} stands in the text as a word; in a language model it means something else: "
            "remove it (the marks of sentences are put in here)",
            reason="reserved_word",
        )
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise TranscriptError(f"the word {word!r} is not valid Unicode: {error}") from error
    if word.split() != [word] or "\0" in word:
        raise TranscriptError(
            f"{word!r} is no word: it is empty or has white space in it; split the text at white "
            "space first"
        )


def _counted(
    tokens: np.ndarray, vocabulary: int, thresholds: Sequence[int], min_count: int
) -> list[_Counts]:
    """The n-grams of all orders up to the highest of which any are kept.

    A sentence's n-grams are the windows on <s> words </s>; <s> is never within one.
    """
    place = places(tokens)
    count = np.bincount(tokens, minlength=vocabulary)
    count[_START] = 0  # it is never foretold
    common = count >= min_count
    common[:_FIRST] = True
    none = np.zeros(vocabulary, np.int64)
    levels = [_Counts(none, none, np.arange(vocabulary), count, count, common)]
    from_start = np.arange(vocabulary) == _START
    shorter = tokens
    for length, threshold in enumerate(thresholds[1:], start=2):
        ends = np.flatnonzero(place >= length - 1)
        if not len(ends):
            break
        keys = shorter[ends - 1] * vocabulary + tokens[ends]
        _, first, row, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        last = ends[first]
        context, suffix, word = shorter[last - 1], shorter[last], tokens[last]
        below = levels[-1]
        # Kneser-Ney counts the different words before an n-gram; before <s> there are none.
        extensions = np.bincount(suffix, minlength=len(below.word))
        adjusted = np.where(from_start, below.count, extensions)
        levels[-1] = dataclasses.replace(below, adjusted=adjusted)
        from_start = from_start[context]
        kept = (count > threshold) & common[word] & below.kept[context]
        if not kept.any():
            break
        levels.append(_Counts(context, suffix, word, count, count, kept))
        shorter = np.full(len(tokens), -1)
        shorter[ends] = row
    return levels


def _discounts(adjusted: np.ndarray) -> Discounts | None:
    """What modified Kneser-Ney takes off counts of 1, 2, and 3 or more: equation (26).

    None where some count up to 4 never occurs, or a discount is not above 0 and at most its
    count. lmplz also takes one of 0, with which a context may have nothing for unseen words.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(adjusted == count)) for count in (1, 2, 3, 4))
    if 0 in (n1, n2, n3):
        return None
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if _in_range(found) else None


def _in_range(discounts: Discounts) -> bool:
    return all(0 < discount <= count for count, discount in enumerate(discounts, start=1))


def _interpolated(levels: Sequence[_Counts], discounts: Sequence[Discounts]) -> tuple[NGrams, ...]:
    """Probabilities from counts, each order's on top of that below it: equation (23).

        p(w | h) = (a(h w) - D(a(h w))) / a(h) + gamma(h) p(w | h without its first word)

    ``a`` are adjusted counts, gamma is what makes the sum 1: discounts, and what was pruned. Below
    the unigrams all words are alike, <unk> among them and <s> not.
    """
    vocabulary = levels[0].kept
    words = vocabulary.cumsum() - 1  # of each word, its row among those that are kept
    below = np.array([1 / (np.count_nonzero(vocabulary) - 1)])
    contexts, rows = np.ones(1, bool), np.zeros(1, np.int64)
    result: list[NGrams] = []
    for level, discount in zip(levels, discounts, strict=True):
        amount = np.array([0.0, *discount])[np.minimum(level.adjusted, 3)]
        total = np.bincount(level.context, level.adjusted, len(below))
        freed = np.bincount(level.context, np.where(level.kept, amount, level.adjusted), len(below))
        gamma = np.divide(freed, total, out=np.ones(len(below)), where=total > 0)
        share = (level.adjusted - amount) / total[level.context]
        below = share + gamma[level.context] * below[level.suffix]
        if result:
            result[-1] = dataclasses.replace(result[-1], backoff=_log10(gamma[contexts]))
        else:
            below[_START] = 1.0  # it is given, and costs nothing
        kept = level.kept
        context, word = rows[level.context[kept]], words[level.word[kept]]
        result.append(NGrams(context, word, _log10(below[kept]), np.zeros(len(word), np.float32)))
        contexts, rows = kept, kept.cumsum() - 1
    return tuple(result)


def _log10(probability: np.ndarray) -> np.ndarray:
    """float32, at most 0 however sums were rounded."""
    return np.minimum(np.log10(probability), 0).astype(np.float32) + np.float32(0)  # never -0
