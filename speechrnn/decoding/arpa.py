"""N-gram models as ARPA files, which KenLM and most decoders read."""

from __future__ import annotations

import dataclasses
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from speechrnn.decoding.ngram import SPECIALS, UNKNOWN, NGramModel, NGrams
from speechrnn.errors import ModelError
from speechrnn.files import write_atomically

KENLM_BINARY = b"mmap lm http://kheafield.com/code"  # how KenLM's own format begins

# No other character ends a word, as in KenLM: words of other tools may hold a no-break space.
_SPACES = re.compile(r"[ \t]+")
_NO_UNKNOWN = -100.0  # log10 of <unk> in a file without it, as KenLM has it


def write_arpa(model: NGramModel, path: str | Path) -> None:
    """Write a model, atomically; ``read_arpa`` gives the same numbers back."""
    parts = ["\\data\\\n"]
    parts += [f"ngram {n}={len(grams)}\n" for n, grams in enumerate(model.ngrams, start=1)]
    texts: Sequence[str] = model.words
    for length, grams in enumerate(model.ngrams, start=1):
        if length > 1:
            pairs = zip(grams.context.tolist(), grams.word.tolist(), strict=True)
            texts = [f"{texts[context]} {model.words[word]}" for context, word in pairs]
        parts.append(f"\n\\{length}-grams:\n")
        if length < model.order:
            rows = zip(grams.log_prob, texts, grams.backoff, strict=True)
            parts += [f"{log_prob!s}\t{text}\t{backoff!s}\n" for log_prob, text, backoff in rows]
        else:
            last = zip(grams.log_prob, texts, strict=True)
            parts += [f"{log_prob!s}\t{text}\n" for log_prob, text in last]
    parts.append("\n\\end\\\n")
    write_atomically(Path(path), "".join(parts).encode())


def read_arpa(path: str | Path) -> NGramModel:
    """An ARPA file in UTF-8, of any tool -> its model.

    A file without <unk> gets one of log10 probability -100, as KenLM gives it.

    Raises:
        ModelError: no such file, no ARPA file, or a damaged one.
    """
    path = Path(path)
    lines = _Lines(path, _content(path))
    counts = _header(lines)
    words, unigrams = _unigrams(lines, counts[0])
    vocabulary = {word: row for row, word in enumerate(words)}
    rows, ngrams = vocabulary, [unigrams]
    for length, count in enumerate(counts[1:], start=2):
        lines.expect(f"\\{length}-grams:")
        grams, rows = _higher(lines, length, count, rows, vocabulary)
        ngrams += [grams] if len(grams) else []
    lines.expect("\\end\\")
    ngrams[-1] = dataclasses.replace(ngrams[-1], backoff=np.zeros(len(ngrams[-1]), np.float32))
    return NGramModel(words, tuple(ngrams))


class _Lines:
    """The lines of a file that are not blank, and where one stands."""

    def __init__(self, path: Path, content: str):
        self.path, self.number = path, 0
        self._lines = self._stripped(content)

    def _stripped(self, content: str) -> Iterator[str]:
        for self.number, line in enumerate(content.split("\n"), start=1):
            line = line.strip(" \t\r")
            if line:
                yield line

    def take(self) -> str:
        line = next(self._lines, None)
        if line is None:
            raise ModelError(f"{self.path} ends before \\end\\: it was cut off; make it again")
        return line

    def expect(self, wanted: str) -> None:
        line = self.take()
        if line != wanted:
            raise self.error(f"{line[:80]!r} stands where {wanted} is due")

    def error(self, found: str) -> ModelError:
        return ModelError(
            f"{self.path}, line {self.number}: {found}; the file is damaged or no ARPA file: make "
            "it again"
        )


def _content(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the language model {path}: {error.strerror}") from error
    if content.startswith(KENLM_BINARY):
        raise ModelError(
            f"{path} is a binary file of KenLM; decoding reads it, but here its ARPA file is needed"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path} is no ARPA file in UTF-8 ({error}); unpack or convert it"
        ) from error


def _header(lines: _Lines) -> list[int]:
    """The number of n-grams of each order."""
    while lines.take() != "\\data\\":
        pass
    counts: list[int] = []
    while True:
        line = lines.take()
        if line == "\\1-grams:" and counts:
            return counts
        match = re.fullmatch(r"ngram +(\d+) *= *(\d+)", line)
        if match is None or int(match[1]) != len(counts) + 1:
            raise lines.error(f"{line[:80]!r} stands where ngram {len(counts) + 1}=... is due")
        counts.append(int(match[2]))


def _section(lines: _Lines, length: int, count: int) -> Iterator[tuple[str, float, float]]:
    """The n-grams of one order: words with a space between, log10 probability, backoff."""
    for _ in range(count):
        line = lines.take()
        fields = line.split("\t")
        if len(fields) not in (2, 3) or fields[1].count(" ") != length - 1:
            parts = _SPACES.split(line)  # some tools write spaces alone
            fields = [parts[0], " ".join(parts[1 : length + 1]), *parts[length + 1 :]]
        text = fields.pop(1) if len(fields) in (2, 3) else ""
        try:
            numbers = [float(number) for number in fields]
        except ValueError:
            numbers = [math.nan]
        if not text or text.count(" ") != length - 1 or not all(map(math.isfinite, numbers)):
            raise lines.error(
                f"{line[:80]!r} is no n-gram of order {length}: a logarithm, as many words, and a "
                "backoff are due"
            )
        if numbers[0] > 0:
            raise lines.error(f"{line[:80]!r} has a probability above 1")
        yield text, numbers[0], numbers[1] if len(numbers) == 2 else 0.0


def _unigrams(lines: _Lines, count: int) -> tuple[tuple[str, ...], NGrams]:
    """The vocabulary, ``SPECIALS`` first, and its unigrams."""
    numbers = {}
    for word, log_prob, backoff in _section(lines, 1, count):
        name = UNKNOWN if word == "<UNK>" else word
        if name in numbers:
            raise lines.error(f"{word!r} stands twice among the unigrams")
        numbers[name] = log_prob, backoff
    numbers.setdefault(UNKNOWN, (_NO_UNKNOWN, 0.0))
    missing = [word for word in SPECIALS if word not in numbers]
    if missing:
        raise lines.error(f"there is no unigram {missing[0]}")
    words = (*SPECIALS, *(word for word in numbers if word not in SPECIALS))
    log_probs, backoffs = np.array([numbers[word] for word in words], np.float32).T
    rows = np.arange(len(words))
    return words, NGrams(np.zeros(len(words), np.int64), rows, log_probs, backoffs)


def _higher(
    lines: _Lines, length: int, count: int, below: dict[str, int], vocabulary: dict[str, int]
) -> tuple[NGrams, dict[str, int]]:
    """The n-grams of one order, sorted, and their rows by their text."""
    texts, contexts, words = [], array("q"), array("q")
    log_probs, backoffs = array("f"), array("f")
    for text, log_prob, backoff in _section(lines, length, count):
        context, _, word = text.rpartition(" ")
        if context not in below or word not in vocabulary:
            needed = word if context in below else context
            raise lines.error(f"{text!r} is listed without {needed!r}")
        texts.append(text)
        contexts.append(below[context])
        words.append(vocabulary[word])
        log_probs.append(log_prob)
        backoffs.append(backoff)
    order = np.lexsort((words, contexts))
    columns = [np.array(column)[order] for column in (contexts, words, log_probs, backoffs)]
    if np.any((np.diff(columns[0]) == 0) & (np.diff(columns[1]) == 0)):
        raise lines.error(f"an n-gram of order {length} stands twice")
    rows = {texts[number]: row for row, number in enumerate(order.tolist())}
    return NGrams(*columns), rows
