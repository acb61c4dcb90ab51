"""Normalisation and the alphabet, for any Unicode script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.errors import TranscriptError
from speechrnn.specs import AlphabetSpec, TextRules
from speechrnn.text import NORMALISATION, Alphabet, frames_needed, normalise

RULES = st.builds(
    TextRules,
    unicode_form=st.sampled_from(["NFC", "NFKC", "none"]),
    case=st.sampled_from(["lower", "fold", "keep"]),
    punctuation=st.sampled_from(["space", "remove", "keep"]),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("it’s  a\ttest\n", "it's a test"),
        ("mother-in-law", "mother in law"),
        ("cafe\u0301", "caf\u00e9"),  # composed
        ("ΟΔΟΣ Αθηνών", "οδος αθηνών"),  # a final sigma stays one
        ("नमस्ते", "नमस्ते"),  # vowel signs and virama are spelling
        ("\u200fשָׁלוֹם\u200f, עולם", "שָׁלוֹם עולם"),  # right to left: direction marks go, points stay
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that is spelling
        ("soft\u00adhyphen", "softhyphen"),
        ("你好。", "你好"),
    ],
)
def test_scripts_of_the_world(text, expected):
    assert normalise(text, TextRules()) == unicodedata.normalize("NFC", expected)


@given(text=st.text(), rules=RULES)
def test_normalising_twice_changes_nothing(text, rules):
    once = normalise(text, rules)
    assert normalise(once, rules) == once


@given(text=st.text(min_size=1), rules=RULES)
def test_decoding_what_was_encoded_gives_the_normalised_text(text, rules):
    expected = normalise(text, rules)
    if not expected:
        with pytest.raises(TranscriptError, match=r"empty|no training"):
            Alphabet.derive([text], rules)
        return
    alphabet = Alphabet.derive([text], rules)
    labels = alphabet.encode(text)
    assert alphabet.decode(labels) == expected
    assert all(0 < label < alphabet.spec.size for label in labels)


def test_combining_marks_without_a_composed_form_are_symbols_of_their_own():
    alphabet = Alphabet.derive(["q\u0303 a\u0303"], TextRules())
    assert "\u0303" in alphabet.spec.symbols
    assert "\u00e3" in alphabet.spec.symbols


def test_an_unknown_character_is_named_with_its_code_point():
    alphabet = Alphabet(AlphabetSpec(tuple("abc ")))
    with pytest.raises(TranscriptError, match=r"'é' \(U\+00E9\)") as caught:
        alphabet.encode("abé")
    assert caught.value.reason == "unknown_character"


def test_an_empty_transcript_is_refused():
    with pytest.raises(TranscriptError) as caught:
        Alphabet(AlphabetSpec(("a",))).encode(" ... ")
    assert caught.value.reason == "empty_transcript"


@pytest.mark.parametrize(("text", "frames"), [("", 0), ("abc", 3), ("aab", 4), ("aaa", 5)])
def test_a_repeat_needs_a_frame_for_the_blank_between(text, frames):
    assert frames_needed([ord(char) for char in text]) == frames


ODDITIES = "  Don’t STOP—now! Straße ﬁ e\u0301 x\u00ad\u200fy 3½€ «A»\tma\u200dn\nİ "
GOLDEN = {  # version -> rules -> what is made of ODDITIES
    1: {
        ("NFC", "lower", "space"): "don't stop now straße \ufb01 \u00e9 xy 3½ a ma\u200dn i\u0307",
        ("NFKC", "fold", "remove"): "don't stopnow strasse fi \u00e9 xy 312 a ma\u200dn i\u0307",
        ("none", "keep", "keep"): "Don't STOP—now! Straße \ufb01 e\u0301 xy 3½€ «A» ma\u200dn İ",
    }
}


def test_what_normalisation_gives_changes_with_its_version_alone():
    found = {rules: normalise(ODDITIES, TextRules(*rules)) for rules in GOLDEN[1]}
    assert found == GOLDEN.get(NORMALISATION), (
        "normalise gives something else: raise text.NORMALISATION and add what it gives here"
    )
