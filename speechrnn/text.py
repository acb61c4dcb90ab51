"""Transcripts to labels and back, for any Unicode script."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

from speechrnn.errors import TranscriptError
from speechrnn.specs import AlphabetSpec, TextRules

BLANK = 0  # the CTC blank's label

# What ``normalise`` makes of a text under given rules. Raise it with any change of that: error
# rates under different versions are not to be compared, and results carry it.
NORMALISATION = 1

_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ＇`´"), "'")  # typographic variants of one character
_JOINERS = "\u200c\u200d"  # zero-width (non-)joiner: spelling in Persian, Hindi, Bengali


def normalise(text: str, rules: TextRules) -> str:
    """Any text -> the form that labels are made of: one space between words, none around.

    Idempotent: normalising twice changes nothing. Combining marks that have no composed form
    stay as characters of their own, and order is logical order, so right-to-left scripts
    need nothing special.

    >>> normalise("  Don’t STOP—now! ", TextRules())
    "don't stop now"
    """
    if rules.unicode_form != "none":
        text = unicodedata.normalize(rules.unicode_form, text)
    text = {"lower": text.lower, "fold": text.casefold, "keep": lambda: text}[rules.case]()
    text = text.translate(_APOSTROPHES)
    text = "".join(_apply_rule(char, rules) for char in text)
    if rules.unicode_form != "none":  # folding and removal can bring a composable pair together
        text = unicodedata.normalize(rules.unicode_form, text)
    return " ".join(text.split())


def _apply_rule(char: str, rules: TextRules) -> str:
    if char in rules.keep or char in _JOINERS:
        return char
    category = unicodedata.category(char)
    if category in ("Cf", "Cc") and not char.isspace():  # direction marks, soft hyphens, controls
        return ""
    if category[0] in "PS":
        return {"space": " ", "remove": "", "keep": char}[rules.punctuation]
    return char


class Alphabet:
    """Text <-> labels. Label 0 is the blank, label i + 1 is ``spec.symbols[i]``.

    Invariant: ``decode(encode(text)) == normalise(text)`` for every text in the alphabet.
    """

    def __init__(self, spec: AlphabetSpec):
        self.spec = spec
        self._label = {symbol: i + 1 for i, symbol in enumerate(spec.symbols)}

    @staticmethod
    def derive(transcripts: Iterable[str], rules: TextRules) -> Alphabet:
        """The alphabet of the characters in ``transcripts``, in code point order.

        Raises:
            TranscriptError: the transcripts hold no character at all.
        """
        symbols = sorted({char for text in transcripts for char in normalise(text, rules)})
        if not symbols:
            raise TranscriptError(
                "no training transcript has any text; check the manifest's text column",
                reason="empty_transcript",
            )
        return Alphabet(AlphabetSpec(symbols=tuple(symbols), rules=rules))

    def encode(self, text: str) -> list[int]:
        """Text -> labels, normalised first.

        Raises:
            TranscriptError: nothing is left after normalisation, or a character is unknown.
        """
        text = normalise(text, self.spec.rules)
        if not text:
            raise TranscriptError(
                "the transcript is empty after normalisation; write what is said",
                reason="empty_transcript",
            )
        unknown = sorted(set(text) - self._label.keys())
        if unknown:
            named = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in unknown)
            raise TranscriptError(
                f"{named} not in the alphabet {''.join(self.spec.symbols)!r}; correct the "
                "transcript, or name the alphabet in the recipe (data.alphabet)",
                reason="unknown_character",
            )
        return [self._label[char] for char in text]

    def decode(self, labels: Sequence[int]) -> str:
        """Labels without blanks -> text. Spaces at the ends and doubled ones are dropped."""
        symbols = self.spec.symbols
        return " ".join("".join(symbols[label - 1] for label in labels).split())


def frames_needed(labels: Iterable[int]) -> int:
    """Fewest frames in which CTC can write ``labels``: one each, and a blank in every repeat."""
    labels = list(labels)
    return len(labels) + sum(a == b for a, b in pairwise(labels))
