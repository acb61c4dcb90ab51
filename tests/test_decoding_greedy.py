"""Greedy decoding against a path collapsed by the standard library."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speechrnn.decoding.greedy import greedy
from speechrnn.errors import ModelError
from speechrnn.specs import AlphabetSpec
from speechrnn.text import BLANK, Alphabet

ALPHABET = Alphabet(AlphabetSpec(symbols=(" ", "a", "b", "é")))
few = settings(max_examples=60, deadline=None)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def from_path(path, probability=0.9):
    """Posteriors whose best label is ``path``, each with ``probability``."""
    rest = (1 - probability) / (ALPHABET.spec.size - 1)
    posteriors = np.full((len(path), ALPHABET.spec.size), rest)
    posteriors[np.arange(len(path)), path] = probability
    return np.log(posteriors).astype(np.float32)


paths = st.lists(st.integers(0, ALPHABET.spec.size - 1), max_size=40)
posteriors = st.integers(1, 30).flatmap(
    lambda frames: arrays.arrays(
        np.float32, (frames, ALPHABET.spec.size), elements=st.floats(-20, 20, width=32)
    ).map(log_softmax)
)


@given(paths)
@few
def test_text_is_the_path_without_repeats_and_blanks(path):
    labels = [label for label, _ in itertools.groupby(path) if label != BLANK]
    symbols = ["", *ALPHABET.spec.symbols]
    expected = " ".join("".join(symbols[label] for label in labels).split())
    hypothesis = greedy(from_path(path), ALPHABET)
    assert hypothesis.text == expected
    assert [token.label for token in hypothesis.tokens] == labels


@given(posteriors)
@few
def test_a_token_covers_exactly_its_frames_and_has_their_largest_posterior(log_probs):
    covered = np.full(len(log_probs), BLANK)
    for token in greedy(log_probs, ALPHABET).tokens:
        frames = slice(token.start_frame, token.end_frame)
        assert (covered[frames] == BLANK).all()  # tokens do not overlap
        covered[frames] = token.label
        # float32 exponentials of equal logarithms: equal but for the last bits
        assert token.probability == pytest.approx(
            np.exp(log_probs[frames, token.label].max()), rel=1e-6
        )
        assert token.symbol == ALPHABET.spec.symbols[token.label - 1]
    np.testing.assert_array_equal(covered, log_probs.argmax(axis=1))


@given(posteriors)
@few
def test_words_joined_are_the_text_and_lie_in_order(log_probs):
    hypothesis = greedy(log_probs, ALPHABET)
    assert " ".join(word.text for word in hypothesis.words) == hypothesis.text
    bounds = [bound for word in hypothesis.words for bound in (word.start_frame, word.end_frame)]
    assert bounds == sorted(bounds)


@given(posteriors)
@few
def test_confidences_are_probabilities(log_probs):
    hypothesis = greedy(log_probs, ALPHABET)
    confidences = [hypothesis.confidence, *(word.confidence for word in hypothesis.words)]
    # at most one, but for the rounding of a float32 logarithm
    assert all(0 < confidence <= 1 + 1e-6 for confidence in confidences)


def test_words_carry_their_frames_and_confidence():
    #          0  1  2  3  4  5  6  7  8
    path = [0, 2, 2, 3, 1, 1, 0, 4, 0]
    log_probs = from_path(path)
    log_probs[3] = from_path([3], probability=0.5)[0]
    first, second = greedy(log_probs, ALPHABET).words
    assert (first.text, first.start_frame, first.end_frame) == ("ab", 1, 4)
    assert first.confidence == pytest.approx((0.9 + 0.5) / 2, rel=1e-6)  # float32
    assert (second.text, second.start_frame, second.end_frame) == ("é", 7, 8)


def test_a_repeat_needs_a_blank_between():
    assert greedy(from_path([2, 2]), ALPHABET).text == "a"
    assert greedy(from_path([2, BLANK, 2]), ALPHABET).text == "aa"


def test_no_frames_give_empty_text():
    hypothesis = greedy(np.zeros((0, ALPHABET.spec.size), np.float32), ALPHABET)
    assert (hypothesis.text, hypothesis.words, hypothesis.confidence) == ("", (), 1.0)


def test_silence_is_as_sure_as_its_least_sure_frame():
    log_probs = np.concatenate([from_path([BLANK]), from_path([BLANK], probability=0.6)])
    hypothesis = greedy(log_probs, ALPHABET)
    assert hypothesis.text == ""
    assert hypothesis.confidence == pytest.approx(0.6, rel=1e-6)  # float32


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 6), (1, 5, 5)])
def test_posteriors_of_another_alphabet_are_refused(shape):
    with pytest.raises(ModelError, match=r"\(frames, 5\)"):
        greedy(np.full(shape, -1.0, np.float32), ALPHABET)


@pytest.mark.parametrize("value", [np.nan, 2.5])
def test_what_is_no_log_posterior_is_refused_by_frame(value):
    log_probs = from_path([0, 1, 2])
    log_probs[1, 3] = value
    with pytest.raises(ModelError, match="frame 1"):
        greedy(log_probs, ALPHABET)
