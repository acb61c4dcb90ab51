"""The language model that decoder settings name, as flashlight-text takes it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechrnn.decoding import lexicon as lexicons
from speechrnn.decoding.ngram import CHARACTER_SPACE as SEPARATOR
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import MissingExtra, ModelError
from speechrnn.text import Alphabet

try:
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary
except ImportError as error:
    raise MissingExtra("beam search", "decode") from error

UNKNOWN = "<unk>"  # the decoder wants it in every dictionary of words
_NATS = math.log(10)  # KenLM's logarithms are to the base of 10


@dataclass(frozen=True)
class LoadedLM:
    """A language model's file, or none: its tokens are words or characters."""

    path: Path | None
    of_characters: bool = False
    neural: Any = None
    words: tuple[str, ...] = ()  # of an ARPA file

    def over(self, entries: Dictionary) -> tuple[Any, float]:
        """The model with its tokens numbered as ``entries`` has them, and what makes nats of its
        scores."""
        if self.neural is not None:
            return self.neural, 1.0
        if self.path is None:
            return fl.ZeroLM(), 1.0
        return _kenlm(self.path, entries), _NATS


def load(settings: DecoderSettings, alphabet: Alphabet) -> LoadedLM:
    """What ``settings`` name.

    Raises:
        ModelError: it cannot be read, or is of other characters than the alphabet's.
    """
    if settings.neural_lm is not None:
        from speechrnn.decoding.fusion import NeuralLM

        return LoadedLM(settings.neural_lm, True, NeuralLM(settings.neural_lm, alphabet))
    if settings.lm is None:
        return LoadedLM(None)
    words: list[str] = []
    if lexicons.is_arpa(settings.lm):
        words = lexicons.arpa_words(settings.lm)
        of_characters = SEPARATOR in words
    else:
        probe = dictionary([SEPARATOR, UNKNOWN])
        lm = _kenlm(settings.lm, probe)
        start = lm.start(False)
        of_characters = lm.score(start, 0)[1] != lm.score(start, 1)[1]
    if of_characters and words:
        missing = set(alphabet.spec.symbols) - {" "} - set(words)
        if len(missing) == len(set(alphabet.spec.symbols) - {" "}):
            raise ModelError(
                f"{settings.lm} is of other characters ({''.join(sorted(words))!r}) than the "
                f"recogniser writes ({''.join(alphabet.spec.symbols)!r}); make it from text in "
                "these with `speechrnn lm --units characters`"
            )
    return LoadedLM(settings.lm, of_characters, words=tuple(words))


def labels_of(alphabet: Alphabet) -> Dictionary:
    """The model's labels under the names that language models of characters give them."""
    other = {" ": SEPARATOR, SEPARATOR: "<bar>"}  # an alphabet may have that character as well
    names = [other.get(symbol, symbol) for symbol in alphabet.spec.symbols]
    return dictionary(["<blank>", *names])


def dictionary(entries: Sequence[str]) -> Dictionary:
    """Entries, numbered from 0."""
    dictionary = Dictionary()
    for entry in entries:
        dictionary.add_entry(entry)
    return dictionary


def ending_of(lm: KenLM, labels: Dictionary) -> Callable[[str], float]:
    """Of an n-gram of characters: ln P of a text's end less that of a separator and the end."""

    def ending(text: str) -> float:
        if not text:
            return 0.0  # the search has written none
        state = lm.start(False)
        for char in text:
            state, _ = lm.score(state, labels.get_index(SEPARATOR if char == " " else char))
        separated, score = lm.score(state, labels.get_index(SEPARATOR))
        return _NATS * (lm.finish(state)[1] - score - lm.finish(separated)[1])

    return ending


def _kenlm(path: Path, entries: Dictionary) -> KenLM:
    """Raises ModelError where KenLM cannot read the file."""
    try:
        with _quiet():
            return KenLM(str(path), entries)
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter of what KenLM quotes
        lines = str(error).splitlines()  # where in KenLM, what is wrong, and at times more
        reason = lines[min(1, len(lines) - 1)]
        raise ModelError(
            f"{path} is no language model that KenLM reads ({reason}); make one of order 2 to 6 "
            "with `speechrnn lm`"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """KenLM draws a bar of its own on stderr, whatever the caller does with it."""
    with open(os.devnull, "wb") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
