"""Decoder settings -> flashlight-text's decoder: dictionaries, trie, language model, options."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechrnn.decoding import lexicon as lexicons
from speechrnn.decoding.hotwords import HotwordLM, Hotwords
from speechrnn.decoding.lexicon import Lexicon
from speechrnn.decoding.ngram import CHARACTER_SPACE as SEPARATOR
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import DataError, MissingExtra, ModelError, UsageError
from speechrnn.text import BLANK, Alphabet, normalise

try:
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary
except ImportError as error:
    raise MissingExtra("beam search", "decode") from error

_UNKNOWN = "<unk>"  # the decoder wants it in every dictionary of words
_FEW = 10  # symbols of a frame, where each costs a call of Python
_NATS = math.log(10)  # KenLM's logarithms are to the base of 10


@dataclass
class Search:
    """A decoder, and what must live as long as it: it holds no references of its own.

    ``separator`` is the label that ends a word of the lexicon; None without a lexicon. ``make``
    gives a decoder with other numbers, over the same files.
    """

    make: Callable[[DecoderSettings], Any]
    settings: DecoderSettings
    lm: Any
    separator: int | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.decoder = self.make(self.settings)

    def reset(self) -> None:
        """Before each recording: a language model in Python forgets its states."""
        if hasattr(self.lm, "reset"):
            self.lm.reset()

    def again(self, settings: DecoderSettings) -> Search | None:
        """A search with other settings that shares the files, None where these differ too."""
        numbers = ("beam", "threshold", "symbols", "lm_weight", "word_score", "rescore_weight")
        same = replace(self.settings, **{name: getattr(settings, name) for name in numbers})
        # With hotwords the weight is in the scores that the trie was made with.
        if same != settings or settings.hotwords:
            return None
        return replace(self, settings=settings)


def build(alphabet: Alphabet, settings: DecoderSettings) -> Search:
    """What ``settings`` ask for, over the labels of ``alphabet``.

    Raises:
        DataError, ModelError: as ``beam.BeamDecoder`` does.
    """
    lm = _load(settings, alphabet)
    words = _lexicon(settings, alphabet, lm)
    if words is None:
        return _without_lexicon(alphabet, settings, lm)
    return _with_lexicon(alphabet, settings, lm, words)


@dataclass(frozen=True)
class _Loaded:
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


def _load(settings: DecoderSettings, alphabet: Alphabet) -> _Loaded:
    if settings.neural_lm is not None:
        from speechrnn.decoding.fusion import NeuralLM

        return _Loaded(settings.neural_lm, True, NeuralLM(settings.neural_lm, alphabet))
    if settings.lm is None:
        return _Loaded(None)
    words: list[str] = []
    if lexicons.is_arpa(settings.lm):
        words = lexicons.arpa_words(settings.lm)
        of_characters = SEPARATOR in words
    else:
        probe = _dictionary([SEPARATOR, _UNKNOWN])
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
    return _Loaded(settings.lm, of_characters, words=tuple(words))


def _lexicon(settings: DecoderSettings, alphabet: Alphabet, lm: _Loaded) -> Lexicon | None:
    """The words that may be written; None: any symbols."""
    if settings.lexicon is None and (lm.path is None or lm.of_characters):
        return None
    if " " not in alphabet.spec.symbols:
        raise DataError(
            "the model writes no space, so that nothing tells where a word of the lexicon ends; "
            "search without one, with a language model of characters"
        )
    if settings.lexicon is not None:
        words = lexicons.read(settings.lexicon, alphabet)
    elif lm.words:
        words = lexicons.make(lm.words, alphabet, str(lm.path))
    else:
        raise DataError(
            f"{lm.path} is a language model of words in KenLM's binary form, which does not list "
            "them; name a lexicon, or give the ARPA file"
        )
    spoken = {word for phrase in _phrases(settings, alphabet) for word in phrase}
    return Lexicon(tuple(sorted({*words.words, *spoken})), words.skipped)


def _phrases(settings: DecoderSettings, alphabet: Alphabet) -> dict[tuple[str, ...], float]:
    """Hotwords as the model would write them."""
    found: dict[tuple[str, ...], float] = {}
    for phrase, boost in settings.hotwords.items():
        words = tuple(normalise(phrase, alphabet.spec.rules).split())
        missing = set("".join(words)) - set(alphabet.spec.symbols)
        if missing or not words:
            raise DataError(
                f"hotword {phrase!r} is {' '.join(words)!r} to the model, whose symbols are "
                f"{''.join(alphabet.spec.symbols)!r}; write it in these"
            )
        found[words] = found.get(words, 0.0) + boost
    return found


def _without_lexicon(alphabet: Alphabet, settings: DecoderSettings, loaded: _Loaded) -> Search:
    if settings.word_score:
        raise UsageError(
            f"word_score is {settings.word_score}, and there is no lexicon that says what a word "
            "is; name one, or leave word_score at 0"
        )
    labels = _labels(alphabet)
    lm, nats = loaded.over(labels)
    separator = labels.get_index(SEPARATOR) if " " in alphabet.spec.symbols else None
    phrases = _phrases(settings, alphabet)
    if phrases:
        tokens = {_spelled(words, labels): boost for words, boost in phrases.items()}
        lm = HotwordLM(lm, settings.lm_weight * nats, Hotwords(tokens), separator)
    # The search begins behind a separator; without one, behind a blank.
    first = BLANK if separator is None else separator

    def make(settings: DecoderSettings) -> Any:
        options = fl.LexiconFreeDecoderOptions(
            beam_size=settings.beam,
            beam_size_token=_symbols(settings, alphabet, lm),
            beam_threshold=settings.threshold,
            lm_weight=1.0 if phrases else settings.lm_weight * nats,
            sil_score=0.0,  # it would count each frame of a space, not each word
            log_add=False,
            criterion_type=fl.CriterionType.CTC,
        )
        return fl.LexiconFreeDecoder(options, lm, first, BLANK, [])

    return Search(make, settings, lm)


def _with_lexicon(
    alphabet: Alphabet, settings: DecoderSettings, loaded: _Loaded, lexicon: Lexicon
) -> Search:
    labels, words = _labels(alphabet), _dictionary([*lexicon.words, _UNKNOWN])
    lm, nats = loaded.over(labels if loaded.of_characters else words)
    separator = labels.get_index(SEPARATOR)
    phrases = _phrases(settings, alphabet)
    if phrases:
        if loaded.of_characters:
            tokens = {_spelled(phrase, labels): boost for phrase, boost in phrases.items()}
        else:
            tokens = {tuple(map(words.get_index, p)): boost for p, boost in phrases.items()}
        ending = separator if loaded.of_characters else None
        lm = HotwordLM(lm, settings.lm_weight * nats, Hotwords(tokens), ending)
    trie = fl.Trie(alphabet.spec.size, separator)
    start = lm.start(False)
    for word in lexicon.words:
        index = words.get_index(word)
        score = 0.0 if loaded.of_characters else lm.score(start, index)[1]
        trie.insert([*map(labels.get_index, word), separator], index, score)
    trie.smear(fl.SmearingMode.MAX)

    def make(settings: DecoderSettings) -> Any:
        options = fl.LexiconDecoderOptions(
            beam_size=settings.beam,
            beam_size_token=_symbols(settings, alphabet, lm if loaded.of_characters else None),
            beam_threshold=settings.threshold,
            lm_weight=1.0 if phrases else settings.lm_weight * nats,
            word_score=settings.word_score,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=False,
            criterion_type=fl.CriterionType.CTC,
        )
        unknown = words.get_index(_UNKNOWN)
        return fl.LexiconDecoder(
            options, trie, lm, separator, BLANK, unknown, [], loaded.of_characters
        )

    remarks = tuple(remark for remark in (lexicon.remark(), _strangers(lexicon, loaded)) if remark)
    return Search(make, settings, lm, separator, remarks)


def _symbols(settings: DecoderSettings, alphabet: Alphabet, lm_of_labels: Any) -> int:
    """How many symbols of a frame are tried."""
    is_python = isinstance(lm_of_labels, fl.LM) and hasattr(lm_of_labels, "reset")
    return settings.symbols or (_FEW if is_python else alphabet.spec.size)


def _strangers(lexicon: Lexicon, loaded: _Loaded) -> str:
    """What to say of words that the language model does not know."""
    if loaded.of_characters or not loaded.words:
        return ""
    unknown = sorted(set(lexicon.words) - set(loaded.words))
    if len(unknown) == len(lexicon.words):
        raise ModelError(
            f"{loaded.path} knows none of the {len(lexicon.words)} words of the lexicon, such as "
            f"{unknown[0]!r}; make it from text that is written as the model writes, with "
            "`speechrnn lm --model MODEL`"
        )
    if not unknown:
        return ""
    return (
        f"{len(unknown)} of {len(lexicon.words)} words of the lexicon are unknown to "
        f"{loaded.path}: {lexicons.named(unknown)}"
    )


def _labels(alphabet: Alphabet) -> Dictionary:
    """The model's labels under the names that language models of characters give them."""
    names = [SEPARATOR if symbol == " " else symbol for symbol in alphabet.spec.symbols]
    return _dictionary(["<blank>", *names])


def _dictionary(entries: Sequence[str]) -> Dictionary:
    dictionary = Dictionary()
    for entry in entries:
        dictionary.add_entry(entry)
    return dictionary


def _spelled(words: Sequence[str], labels: Dictionary) -> tuple[int, ...]:
    """A phrase as labels, a separator on either side if the alphabet has one."""
    if not labels.contains(SEPARATOR):
        return tuple(map(labels.get_index, "".join(words)))
    return tuple(map(labels.get_index, [SEPARATOR, *SEPARATOR.join(words), SEPARATOR]))


def _kenlm(path: Path, entries: Dictionary) -> KenLM:
    """Raises ModelError where KenLM cannot read the file."""
    try:
        with _quiet():
            return KenLM(str(path), entries)
    except RuntimeError as error:
        lines = str(error).splitlines()  # where in KenLM, what is wrong, and at times more
        reason = lines[min(1, len(lines) - 1)]
        raise ModelError(
            f"{path} is no language model that KenLM reads ({reason}); make one with `speechrnn lm`"
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
