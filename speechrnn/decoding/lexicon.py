"""The words that a beam search may write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speechrnn.decoding.ngram import CHARACTER_SPACE
from speechrnn.errors import DataError, ModelError
from speechrnn.text import Alphabet, normalise

_SHOWN = 5  # words that a message names


@dataclass(frozen=True)
class Lexicon:
    """Words in the alphabet of a model, sorted, each spelled as it is written.

    ``skipped`` are those of the source that have a symbol which the alphabet lacks: the model
    cannot write them.
    """

    words: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def remark(self) -> str:
        """What a user should know; empty where there is nothing to tell."""
        if not self.skipped:
            return ""
        return (
            f"{len(self.skipped)} of {len(self.words) + len(self.skipped)} words have symbols that "
            f"the model does not write, and are left out: {named(self.skipped)}"
        )


def make(words: Iterable[str], alphabet: Alphabet, source: str) -> Lexicon:
    """Words in any form -> a lexicon; each is normalised by the alphabet's rules.

    Raises:
        DataError: no word is left; ``source`` is named.
    """
    symbols = set(alphabet.spec.symbols)
    usable: set[str] = set()
    skipped: set[str] = set()
    for written in words:
        for word in normalise(written, alphabet.spec.rules).split():
            (usable if symbols.issuperset(word) else skipped).add(word)
    if skipped and not usable:
        raise DataError(
            f"{source}: each of its {len(skipped)} words has a symbol that the model does not "
            f"write: {named(skipped)}. Its symbols are {''.join(alphabet.spec.symbols)!r}; take "
            "words in these."
        )
    if not usable:
        raise DataError(f"{source} holds no words; write one a line")
    return Lexicon(tuple(sorted(usable)), tuple(sorted(skipped)))


def read(path: str | Path, alphabet: Alphabet) -> Lexicon:
    """A file with a word a line, UTF-8 -> its lexicon.

    A line may go on, behind a tab or a space, with the word's symbols one by one, as the lexicons
    of other CTC decoders do (``one o n e |``). A spelling other than the word itself is refused: a
    model writes what it was trained to write.

    Raises:
        DataError: no such file, not UTF-8, a line that is no such entry, no usable word.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read the lexicon {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    return make(_entries(lines, path), alphabet, str(path))


def _entries(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, *symbols = line.split()
        if symbols and "".join(symbols).rstrip(CHARACTER_SPACE) != word:
            raise DataError(
                f"{path}, line {number} spells {word!r} as {' '.join(symbols)!r}; write one word a "
                "line. A word is spelled as it is written."
            )
        yield word


def arpa_words(path: str | Path) -> list[str]:
    """The unigrams of an ARPA file, in its order, without <s>, </s> and <unk>.

    Raises:
        ModelError: no such file, or it has no unigrams where an ARPA file has them.
    """
    words: list[str] = []
    within = False
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if within and (not line.strip() or line.startswith("\\")):
                    break
                if within:
                    words.append(line.split()[1])
                elif line.startswith("\\1-grams:"):
                    within = True
    except OSError as error:
        raise ModelError(f"cannot read the language model {path}: {error.strerror}") from error
    except (UnicodeDecodeError, IndexError) as error:
        raise ModelError(f"{path} is no ARPA file, or a damaged one ({error!r})") from error
    if not within:
        raise ModelError(
            f"{path} has no unigrams: it is no ARPA file. Make one with `speechrnn lm`."
        )
    return [word for word in words if word.lower() not in ("<s>", "</s>", "<unk>")]


def is_arpa(path: str | Path) -> bool:
    """Whether a file begins as ARPA files do; KenLM's binary form does not.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(4096).lstrip().startswith(b"\\data\\")
    except OSError as error:
        raise ModelError(f"cannot read the language model {path}: {error.strerror}") from error


def named(words: Iterable[str]) -> str:
    """The first few of some words, for a message."""
    words = sorted(words)
    return ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")
