"""N-gram language models: what one is, and what it scores. NumPy only.

``kneser_ney`` estimates them, ``arpa`` reads and writes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from speechrnn.errors import TranscriptError

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
SPECIALS = (UNKNOWN, START, END)  # rows 0, 1 and 2 of every vocabulary here
CHARACTER_SPACE = "|"  # the space between words, in models of characters


@dataclass(frozen=True)
class NGrams:
    """All n-grams of one order, a row each, sorted by (context, word).

    ``context`` is the row, one order below, of all words but the last; ``word`` is the last one's
    row in the vocabulary. ``log_prob`` and ``backoff`` are float32 log10, as KenLM holds them; of
    the highest order every backoff is 0.
    """

    context: np.ndarray
    word: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class Perplexity:
    """How well a model foretells sentences; the counts are those of KenLM's ``query``.

    ``tokens`` are the words and one end of each sentence, ``unknown`` the words not in the
    vocabulary. Perplexity is 10 ** (-log10 probability / tokens): over all tokens, and over
    those that are known.
    """

    perplexity: float
    perplexity_without_unknown: float
    tokens: int
    unknown: int
    sentences: int

    @property
    def unknown_rate(self) -> float:
        """Unknown words by words, sentence ends left out."""
        return self.unknown / max(1, self.tokens - self.sentences)


@dataclass(frozen=True)
class NGramModel:
    """A backing-off model: p(w | h) is that of the longest n-gram of ``h w`` that is listed, times
    the backoffs of the contexts that are longer than its own.

    ``words`` is the vocabulary and begins with ``SPECIALS``; ``ngrams[k]`` are those of order
    k + 1, at least one of each. Of models that were estimated here, ``discounts`` are those of
    each order for counts of 1, 2, and 3 or more, and ``fallback_orders`` the orders whose discounts
    could not be estimated.
    """

    words: tuple[str, ...]
    ngrams: tuple[NGrams, ...]
    discounts: tuple[tuple[float, float, float], ...] = ()
    fallback_orders: tuple[int, ...] = ()

    @property
    def order(self) -> int:
        return len(self.ngrams)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words without <unk>, <s> and </s>."""
        return self.words[len(SPECIALS) :]

    def score(self, words: Sequence[str]) -> float:
        """log10 probability of a sentence, from its start to its end. A word that is not in the
        vocabulary scores as <unk>.

        Raises:
            TranscriptError: a word is <s> or </s>, which are put around the sentence here.
        """
        return float(self.word_scores(words).sum())

    def word_scores(self, words: Sequence[str]) -> np.ndarray:
        """(len(words) + 1,) log10 probabilities of each word after those before it, and the end."""
        return self._scores([words])[1]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> Perplexity:
        """Over sentences that the model was, one hopes, not estimated on.

        Raises:
            TranscriptError: no sentence at all, or a word is <s> or </s>.
        """
        tokens, scores, count = self._scores_of_all(sentences)
        if not count:
            raise TranscriptError(
                "there is no sentence to compute a perplexity of; check the held-out text",
                reason="empty_transcript",
            )
        known = tokens != SPECIALS.index(UNKNOWN)
        unknown = int((~known).sum())
        return Perplexity(
            perplexity=10.0 ** -float(scores.mean()),
            perplexity_without_unknown=10.0 ** -float(scores[known].mean()),
            tokens=len(tokens),
            unknown=unknown,
            sentences=count,
        )

    def _scores_of_all(
        self, sentences: Iterable[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Tokens and scores of any number of sentences, some thousand at a time."""
        tokens, scores, count = [np.zeros(0, np.int64)], [np.zeros(0)], 0
        left = iter(sentences)
        while batch := list(itertools.islice(left, 10_000)):
            rows, found = self._scores(batch)
            tokens.append(rows)
            scores.append(found)
            count += len(batch)
        return np.concatenate(tokens), np.concatenate(scores), count

    def _scores(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows in the vocabulary and log10 probabilities of all words and ends, in order."""
        tokens = np.fromiter(self._rows(sentences), np.int64)
        place = places(tokens)
        unigrams = self.ngrams[0]
        scores = unigrams.log_prob[tokens].astype(np.float64)
        shorter = tokens
        for length in range(2, self.order + 1):
            below, grams = self.ngrams[length - 2], self.ngrams[length - 1]
            ends = np.flatnonzero(place >= length - 1)
            context = shorter[ends - 1]
            row = self._find(length, context, tokens[ends])
            backoff = np.where(context >= 0, below.backoff[context], 0.0)
            found = np.where(row >= 0, grams.log_prob[row], scores[ends] + backoff)
            scores[ends] = found
            shorter = np.full(len(tokens), -1)
            shorter[ends] = row
        return tokens[place > 0], scores[place > 0]

    def _rows(self, sentences: Sequence[Sequence[str]]) -> Iterator[int]:
        for sentence in sentences:
            yield SPECIALS.index(START)
            for word in sentence:
                if word in (START, END):
                    raise TranscriptError(
                        f"{word} stands in the sentence {' '.join(sentence)[:80]!r}; sentences get "
                        "their marks here, remove it",
                        reason="reserved_word",
                    )
                yield self._row.get(word, 0)
            yield SPECIALS.index(END)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def _keys(self) -> list[np.ndarray]:
        return [grams.context * len(self.words) + grams.word for grams in self.ngrams]

    def _find(self, length: int, context: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Rows of n-grams by their contexts' rows and last words; -1 where there is none."""
        keys, wanted = self._keys[length - 1], context * len(self.words) + word
        row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((context >= 0) & (keys[row] == wanted), row, -1)


def places(tokens: np.ndarray) -> np.ndarray:
    """Of each token how many stand before it in its sentence: 0 for every <s>."""
    position = np.arange(len(tokens))
    begins = np.where(tokens == SPECIALS.index(START), position, 0)
    return position - np.maximum.accumulate(begins)


def characters(text: str) -> list[str]:
    """A text -> the tokens of a model of characters: each is one, a space ``CHARACTER_SPACE``.

    >>> characters("ab c")
    ['a', 'b', '|', 'c']

    Raises:
        TranscriptError: the text has the character that stands for the space.
    """
    if CHARACTER_SPACE in text:
        raise TranscriptError(
            f"{text[:80]!r} has the character {CHARACTER_SPACE!r}, which stands for the space in a "
            "model of characters; remove it from the text",
            reason="reserved_word",
        )
    return [CHARACTER_SPACE if char == " " else char for char in text]
