"""Error rates against a textbook edit distance, and intervals against closed forms."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import jiwer
import kaldialign
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.errors import ScoringError
from speechrnn.evaluation.error_rates import score
from speechrnn.specs import TextRules
from speechrnn.text import NORMALISATION

few = settings(max_examples=60, deadline=None)
texts = st.lists(st.sampled_from(["one", "two", "to", "öl"]), max_size=8).map(" ".join)
corpora = st.dictionaries(
    st.integers(0, 99).map(str), st.tuples(texts, texts), min_size=1, max_size=8
)


def edit_distance(a, b):
    """Wagner and Fischer's table, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def both_sides(corpus):
    return {i: pair[0] for i, pair in corpus.items()}, {i: pair[1] for i, pair in corpus.items()}


@given(corpora)
@few
def test_rates_are_edit_distances_over_reference_lengths(corpus):
    rates = score(*both_sides(corpus))
    errors = sum(edit_distance(a.split(), b.split()) for a, b in corpus.values())
    words = sum(len(a.split()) for a, _ in corpus.values())
    characters = sum(len(a) for a, _ in corpus.values())
    assert rates.substitutions + rates.deletions + rates.insertions == errors
    assert (rates.words, rates.characters, rates.utterances) == (words, characters, len(corpus))
    assert rates.character_errors == sum(edit_distance(a, b) for a, b in corpus.values())
    if words:
        assert rates.wer == errors / words
        assert rates.cer == rates.character_errors / characters


def test_ten_thousand_random_pairs_have_the_brute_force_edit_distance():
    rng = random.Random(7)

    def draw():
        return {str(i): " ".join(rng.choices("abcd", k=rng.randrange(9))) for i in range(10_000)}

    references, hypotheses = draw(), draw()
    rates = score(references, hypotheses)
    expected = {i: edit_distance(references[i].split(), hypotheses[i].split()) for i in references}
    assert {item.utterance_id: item.errors for item in rates.scores} == expected
    words = sum(len(text.split()) for text in references.values())
    assert (rates.words, rates.wer) == (words, sum(expected.values()) / words)


@given(corpora)
@few
def test_mer_and_wil_are_jiwers(corpus):
    references, hypotheses = both_sides(corpus)
    rates = score(references, hypotheses)
    if rates.words:
        theirs = jiwer.process_words([*references.values()], [*hypotheses.values()])
        # another order of the same products and quotients
        assert rates.mer == pytest.approx(theirs.mer, abs=1e-12)
        assert rates.wil == pytest.approx(theirs.wil, abs=1e-12)
    assert 0 <= rates.mer <= 1
    assert 0 <= rates.wil <= 1


@pytest.mark.parametrize(
    ("reference", "hypothesis", "mer", "wil"),
    [
        ("a b c d", "a b c d", 0.0, 0.0),
        # Morris et al.: MER = 1 - H / (H + S + D + I), WIL = 1 - H^2 / (N P)
        ("a b c d", "a x c", 2 / 4, 1 - 2 / 4 * 2 / 3),
        ("a b", "a b c d", 2 / 4, 1 - 2 / 2 * 2 / 4),
        ("a b", "", 1.0, 1.0),
        ("", "a b", 1.0, 1.0),
        ("", "", 0.0, 0.0),
    ],
)
def test_mer_and_wil_stay_within_one(reference, hypothesis, mer, wil):
    rates = score({"u": reference}, {"u": hypothesis})
    assert (rates.mer, rates.wil) == (mer, pytest.approx(wil, abs=1e-15))


@given(corpora)
@few
def test_counts_add_up_in_each_utterance_and_in_the_total(corpus):
    rates = score(*both_sides(corpus))
    assert rates.hits + rates.substitutions + rates.deletions == rates.words
    for item in rates.scores:
        reference, hypothesis = corpus[item.utterance_id]
        assert item.errors == edit_distance(reference.split(), hypothesis.split())
        assert item.words - item.deletions + item.insertions == len(hypothesis.split())


@given(corpora, st.randoms(use_true_random=False))
@few
def test_the_order_of_utterances_changes_nothing(corpus, rng):
    shuffled = list(corpus.items())
    rng.shuffle(shuffled)
    groups = {i: f"speaker {int(i) % 3}" for i in corpus}
    assert score(*both_sides(corpus), groups) == score(*both_sides(dict(shuffled)), groups)


@given(corpora)
@few
def test_the_interval_lies_within_the_utterances_extremes(corpus):
    rates = score(*both_sides(corpus))
    own = [item.errors / item.words if item.words else math.inf for item in rates.scores]
    low, high = rates.wer_ci95
    if rates.words and rates.insertions == 0:
        assert 0 <= low <= high <= 1
    if all(item.words for item in rates.scores):
        # a ratio of sums is a weighted mean of the ratios; 1e-12 for its rounding
        assert min(own) - 1e-12 <= low <= high <= max(own) + 1e-12


def coin_corpus(utterances, wrong, group_size=1):
    """One-word utterances of which a share is wrong, in groups right or wrong together."""
    references = {f"{i:04d}": "yes" for i in range(utterances)}
    bad = set(random.Random(1).sample(range(utterances // group_size), wrong))
    hypotheses = {i: "no" if int(i) // group_size in bad else "yes" for i in references}
    return references, hypotheses, {i: f"s{int(i) // group_size}" for i in references}


@pytest.mark.parametrize(
    ("group_size", "units", "resampled"), [(1, 400, "utterances"), (10, 40, "groups")]
)
def test_the_interval_is_the_binomials_where_words_are_coins(group_size, units, resampled):
    references, hypotheses, groups = coin_corpus(400, units // 4, group_size)
    rates = score(references, hypotheses, groups if group_size > 1 else None)
    assert (rates.wer, rates.units, rates.resampled) == (0.25, units, resampled)
    deviation = math.sqrt(0.25 * 0.75 / units)
    # A 2.5 % quantile of 2,000 resamples has 0.06 standard deviations of noise, and the rate
    # moves in steps of 1 / units, up to 0.37 of them.
    expected = [0.25 - 1.96 * deviation, 0.25 + 1.96 * deviation]
    np.testing.assert_allclose(rates.wer_ci95, expected, atol=0.4 * deviation)


def test_the_interval_is_kaldialigns():
    rng = random.Random(5)
    references = {
        f"{i:03d}": " ".join(rng.choices("abcd", k=rng.randint(2, 9))) for i in range(300)
    }
    hypotheses = {
        i: " ".join(rng.choice("abcd") if rng.random() < 0.2 else word for word in text.split())
        for i, text in references.items()
    }
    rates = score(references, hypotheses)
    texts = [[text.split() for text in side.values()] for side in (references, hypotheses)]
    theirs = kaldialign.bootstrap_wer_ci(*texts, replications=10_000)
    deviation = theirs["ci95"] / 1.96
    # A quantile of 2,000 resamples has 0.06 deviations of noise; theirs are of a normal
    # distribution with the resamples' mean and deviation, from which the skew is 0.05 away.
    bounds = [theirs["ci95min"], theirs["ci95max"]]
    np.testing.assert_allclose(rates.wer_ci95, bounds, atol=0.2 * deviation)


def test_utterances_of_one_group_alone_are_resampled_themselves():
    references, hypotheses, _ = coin_corpus(40, 10)
    alone = score(references, hypotheses)
    assert score(references, hypotheses, dict.fromkeys(references, "s")).wer_ci95 == alone.wer_ci95


def test_an_utterance_without_a_group_is_a_group_of_its_own():
    references, hypotheses, _ = coin_corpus(10, 3)
    rates = score(references, hypotheses, {"0000": "s", "0001": "s", "0002": ""})
    assert (rates.units, rates.resampled) == (9, "groups")


def test_both_sides_are_normalised_by_the_same_rules():
    lower = score({"a": "Don’t STOP!"}, {"a": "don't, stop"})
    assert (lower.wer, lower.cer) == (0.0, 0.0)
    kept = score({"a": "Don't STOP"}, {"a": "don't stop"}, rules=TextRules(case="keep"))
    assert kept.wer == 1.0


def test_an_empty_reference_counts_its_insertions():
    rates = score({"a": "", "b": "one two"}, {"a": "noise", "b": "one two"})
    assert (rates.insertions, rates.words, rates.wer) == (1, 2, 0.5)


def test_nothing_said_and_nothing_heard_is_no_error():
    rates = score({"a": ""}, {"a": " "})
    assert (rates.wer, rates.cer, rates.wer_ci95) == (0.0, 0.0, (0.0, 0.0))


def test_insertions_into_nothing_are_infinite_and_none_in_json():
    rates = score({"a": "", "b": ""}, {"a": "x", "b": "y"})
    assert math.isinf(rates.wer)
    data = json.loads(json.dumps(rates.to_dict(), allow_nan=False))
    assert (data["wer"], data["wer_ci95"], data["insertions"]) == (None, [None, None], 2)


def test_the_plain_data_survive_json():
    rates = score({"a": "one two", "b": "three"}, {"a": "one", "b": "three"}, {"a": "s", "b": "t"})
    data = json.loads(json.dumps(rates.to_dict()))
    assert data["wer"] == pytest.approx(1 / 3, rel=1e-15)
    assert (data["words"], data["utterances"], data["deletions"]) == (3, 2, 1)
    assert data["normalisation"] == {"version": NORMALISATION, **dataclasses.asdict(TextRules())}
    assert (data["mer"], data["wil"]) == (rates.mer, rates.wil)
    assert [row["utterance_id"] for row in data["scores"]] == ["a", "b"]


def test_the_table_gives_percentages_and_what_was_resampled():
    table = score(*coin_corpus(40, 10, group_size=1)).table()
    assert "WER  25.00 %" in table
    assert "over 40 groups" in table
    assert "no interval" in score({"a": "one"}, {"a": "two"}).table()


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ({"a": "x", "b": "x"}, {"a": "x"}, "1 without a hypothesis: b"),
        ({"a": "x"}, {"a": "x", "c": "x"}, "1 without a reference: c"),
        ({}, {}, "nothing to score"),
        ({str(i): "x" for i in range(9)}, {"0": "x"}, "8 without a hypothesis: 1, 2, 3, 4, 5, ..."),
    ],
)
def test_ids_that_do_not_match_are_named(references, hypotheses, message):
    with pytest.raises(ScoringError) as caught:
        score(references, hypotheses)
    assert message in str(caught.value)
    assert caught.value.exit_code == 3
