"""N-gram models as ARPA files, which KenLM and most decoders read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    words, unigrams = _unigrams(lines, counts[0], len(counts))
    vocabulary = {word: row for row, word in enumerate(words)}
    rows, ngrams = vocabulary, [unigrams]
    for length, count in enumerate(counts[1:], start=2):
        section = _section(lines, length, count, len(counts))
        grams, rows = _higher(lines, section, rows, vocabulary)
        ngrams.append(grams)
    lines.expect("\\end\\")
    return NGramModel(words, tuple(ngrams))


@dataclass
class _Section:
    """The lines of one order as they stand in the file."""

    length: int
    words: list[list[str]] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    backoff: list[float] = field(default_factory=list)


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


def _section(lines: _Lines, length: int, count: int, order: int) -> _Section:
    if length > 1:
        lines.expect(f"\\{length}-grams:")
    section = _Section(length)
    for _ in range(count):
        line = lines.take()
        fields = _SPACES.split(line)
        try:
            numbers = [float(number) for number in (fields[0], *fields[length + 1 :])]
        except ValueError:
            numbers = []
        words = fields[1 : length + 1]
        backoff = numbers[1] if len(numbers) == 2 else 0.0
        if (
            len(words) < length
            or len(numbers) not in (1, 2)
            or not all(map(math.isfinite, numbers))
        ):
            raise lines.error(
                f"{line[:80]!r} is no n-gram of order {length}: a logarithm, as many words, and a "
                "backoff are due"
            )
        if numbers[0] > 0:
            raise lines.error(f"{line[:80]!r} has a probability above 1")
        section.words.append(words)
        section.log_prob.append(numbers[0])
        section.backoff.append(backoff if length < order else 0.0)
    return section


def _unigrams(lines: _Lines, count: int, order: int) -> tuple[tuple[str, ...], NGrams]:
    """The vocabulary, ``SPECIALS`` first, and its unigrams."""
    section = _section(lines, 1, count, order)
    names = [UNKNOWN if word == "<UNK>" else word for (word,) in section.words]
    numbers = dict(zip(names, zip(section.log_prob, section.backoff, strict=True), strict=True))
    if len(numbers) < len(names):
        raise lines.error("a word stands twice among the unigrams")
    numbers.setdefault(UNKNOWN, (_NO_UNKNOWN, 0.0))
    missing = [word for word in SPECIALS if word not in numbers]
    if missing:
        raise lines.error(f"there is no unigram {missing[0]}")
    words = (*SPECIALS, *(word for word in numbers if word not in SPECIALS))
    log_prob, backoff = np.array([numbers[word] for word in words], np.float32).T
    rows = np.arange(len(words))
    return words, NGrams(np.zeros(len(words), np.int64), rows, log_prob, backoff)


def _higher(
    lines: _Lines, section: _Section, below: dict[str, int], vocabulary: dict[str, int]
) -> tuple[NGrams, dict[str, int]]:
    """The n-grams of one order, sorted, and their rows by their text."""
    contexts = [" ".join(words[:-1]) for words in section.words]
    for before, words in zip(contexts, section.words, strict=True):
        if before not in below or words[-1] not in vocabulary:
            needed = before if before not in below else words[-1]
            raise lines.error(f"{' '.join(words)!r} is listed without {needed!r}")
    context = np.array([below[before] for before in contexts], np.int64)
    word = np.array([vocabulary[words[-1]] for words in section.words], np.int64)
    order = np.lexsort((word, context))
    context, word = context[order], word[order]
    if np.any((np.diff(context) == 0) & (np.diff(word) == 0)):
        raise lines.error(f"an n-gram of order {section.length} stands twice")
    log_prob = np.array(section.log_prob, np.float32)[order]
    backoff = np.array(section.backoff, np.float32)[order]
    texts = [" ".join(section.words[row]) for row in order]
    rows = {text: row for row, text in enumerate(texts)}
    return NGrams(context, word, log_prob, backoff), rows
