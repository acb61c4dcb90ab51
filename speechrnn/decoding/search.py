"""Decoder settings -> flashlight-text's decoder: dictionaries, trie, language model, options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speechrnn.decoding import lexicon as lexicons
from speechrnn.decoding.hotwords import HotwordLM, Hotwords
from speechrnn.decoding.language_models import (
    UNKNOWN,
    LoadedLM,
    dictionary,
    ending_of,
    labels_of,
    load,
)
from speechrnn.decoding.lexicon import Lexicon
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import DataError, MissingExtra, ModelError, UsageError
from speechrnn.text import BLANK, Alphabet, normalise

try:
    from flashlight.lib.text import decoder as fl
except ImportError as error:
    raise MissingExtra("beam search", "decode") from error

_FEW = 10  # symbols of a frame, where each costs a call of Python


@dataclass
class Search:
    """A decoder, and what must live as long as it: it holds no references of its own.

    ``separator`` is the label that ends a word of the lexicon; None without a lexicon. ``make``
    gives a decoder with other numbers, over the same files. ``ending`` says how many nats the
    language model has given too much to a text, because the search ends it in a separator.
    """

    make: Callable[[DecoderSettings], Any]
    settings: DecoderSettings
    lm: Any
    separator: int | None = None
    remarks: tuple[str, ...] = ()
    ending: Callable[[str], float] | None = None

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
    lm = load(settings, alphabet)
    words = _lexicon(settings, alphabet, lm)
    if words is None:
        return _without_lexicon(alphabet, settings, lm)
    return _with_lexicon(alphabet, settings, lm, words)


def _lexicon(settings: DecoderSettings, alphabet: Alphabet, lm: LoadedLM) -> Lexicon | None:
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


def _without_lexicon(alphabet: Alphabet, settings: DecoderSettings, loaded: LoadedLM) -> Search:
    if settings.word_score:
        raise UsageError(
            f"word_score is {settings.word_score}, and there is no lexicon that says what a word "
            "is; name one, or leave word_score at 0"
        )
    labels = labels_of(alphabet)
    lm, nats = loaded.over(labels)
    separator = _numbers(alphabet).get(" ")
    phrases = _phrases(settings, alphabet)
    if phrases:
        tokens = {_spelled(words, alphabet): boost for words, boost in phrases.items()}
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
    alphabet: Alphabet, settings: DecoderSettings, loaded: LoadedLM, lexicon: Lexicon
) -> Search:
    labels, words = labels_of(alphabet), dictionary([*lexicon.words, UNKNOWN])
    number = _numbers(alphabet)
    lm, nats = loaded.over(labels if loaded.of_characters else words)
    separator = number[" "]
    phrases = _phrases(settings, alphabet)
    ending = ending_of(lm, labels) if loaded.of_characters and loaded.neural is None else None
    if phrases:
        if loaded.of_characters:
            tokens = {_spelled(phrase, alphabet): boost for phrase, boost in phrases.items()}
        else:
            tokens = {tuple(map(words.get_index, p)): boost for p, boost in phrases.items()}
        around = separator if loaded.of_characters else None
        lm = HotwordLM(lm, settings.lm_weight * nats, Hotwords(tokens), around)
    trie = fl.Trie(alphabet.spec.size, separator)
    start = lm.start(False)
    for word in lexicon.words:
        index = words.get_index(word)
        score = 0.0 if loaded.of_characters else lm.score(start, index)[1]
        trie.insert([*(number[symbol] for symbol in word), separator], index, score)
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
        unknown = words.get_index(UNKNOWN)
        return fl.LexiconDecoder(
            options, trie, lm, separator, BLANK, unknown, [], loaded.of_characters
        )

    remarks = tuple(remark for remark in (lexicon.remark(), _strangers(lexicon, loaded)) if remark)
    return Search(make, settings, lm, separator, remarks, ending)


def _symbols(settings: DecoderSettings, alphabet: Alphabet, lm_of_labels: Any) -> int:
    """How many symbols of a frame are tried."""
    is_python = isinstance(lm_of_labels, fl.LM) and hasattr(lm_of_labels, "reset")
    return settings.symbols or (_FEW if is_python else alphabet.spec.size)


def _strangers(lexicon: Lexicon, loaded: LoadedLM) -> str:
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


def _numbers(alphabet: Alphabet) -> dict[str, int]:
    """The label of each symbol."""
    return {symbol: label for label, symbol in enumerate(alphabet.spec.symbols, start=1)}


def _spelled(words: Sequence[str], alphabet: Alphabet) -> tuple[int, ...]:
    """A phrase as labels, a space on either side if the alphabet has one."""
    number = _numbers(alphabet)
    text = f" {' '.join(words)} " if " " in number else "".join(words)
    return tuple(number[symbol] for symbol in text)
