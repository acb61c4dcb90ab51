"""MAPSSWE against NIST's sctk: its answers are in data/mapsswe, with the script that asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.evaluation.mapsswe import errors_by_place, matched_pairs, segments

FOLDER = Path(__file__).parent / "data/mapsswe"
SCTK = json.loads((FOLDER / "sctk.json").read_text())
texts = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)


def sentences(name):
    """The words of a trn file, whose lines end in an id between brackets."""
    lines = (FOLDER / name).read_text().splitlines()
    return [line[: line.rindex("(")].strip() for line in lines]


def of_fixture(name, first="a", second="b"):
    sides = (sentences(f"{name}.{side}.trn") for side in (first, second))
    return matched_pairs(zip(sentences("ref.trn"), *sides, strict=True))


@pytest.mark.parametrize("name", SCTK)
def test_segments_z_and_p_are_those_of_sctk(name):
    found, sctk = of_fixture(name), SCTK[name]
    assert found.segments == sctk["segments"]
    assert found.errors == (sctk["errors_a"], sctk["errors_b"])
    # printed with three decimals
    assert found.mean == pytest.approx(sctk["mean"], abs=5.1e-4)
    assert found.deviation == pytest.approx(sctk["deviation"], abs=5.1e-4)
    assert found.z == pytest.approx(sctk["z"], abs=5.1e-4)
    if sctk["p"] == "<0.001":
        assert found.p < 0.001
    else:
        # sctk looks p up in a table with steps of 0.01 in z: up to 0.008 too high
        assert found.p == pytest.approx(float(sctk["p"]), abs=0.01)


def test_the_five_pairs_are_of_every_kind():
    answers = [pair["p"] for pair in SCTK.values()]
    small = [p for p in answers if p == "<0.001" or float(p) < 0.05]
    assert len(answers) == 5
    assert 0 < len(small) < 5


def test_a_systems_place_changes_the_sign_alone():
    there, back = of_fixture("clear"), of_fixture("clear", "b", "a")
    assert (back.z, back.mean, back.p) == (-there.z, -there.mean, there.p)
    assert (back.segments, back.errors) == (there.segments, there.errors[::-1])


@pytest.mark.parametrize(
    ("reference", "first", "second", "expected"),
    [
        ("a b c d e f", "a b c d e f", "a b c d e f", []),
        ("a b c d e f", "x b c d e f", "a b c d e y", [(1, 0), (0, 1)]),
        ("a b c d e f", "a x c y e f", "a b c d e f", [(2, 0)]),  # one right word is no boundary
        ("a b c d e f", "a x c d y f", "a b c d e f", [(1, 0), (1, 0)]),  # two are
        ("a b c d", "a x c d", "a b c z d", [(1, 1)]),  # an insertion breaks the two
        ("a b", "a b c d", "a b", [(2, 0)]),  # words after the last
        ("a b", "a b", "a b c", [(0, 1)]),
        ("a b", "c a b", "a b", [(1, 0)]),
        ("", "a", "", [(1, 0)]),
        ("a b c", "", "a b c", [(3, 0)]),
        ("", "", "", []),
    ],
)
def test_segments_end_at_two_words_that_both_have_right(reference, first, second, expected):
    assert segments(reference, first, second) == expected


def test_of_alignments_that_cost_the_same_sclites_is_taken():
    # REF:  a a b *
    # HYP:  * a b a      as sclite -o pra prints it; b missed and a inserted before it costs as much
    assert errors_by_place(["a", "a", "b"], ["a", "b", "a"]) == [0, 1, 0, 0, 0, 0, 1]


def least_cost(reference, hypothesis):
    """By the recursion itself, without a table."""
    if not reference or not hypothesis:
        return 3 * (len(reference) + len(hypothesis))
    replace = 4 * (reference[0] != hypothesis[0]) + least_cost(reference[1:], hypothesis[1:])
    if reference[0] == hypothesis[0]:
        return replace  # a match is never dearer
    delete = 3 + least_cost(reference[1:], hypothesis)
    return min(replace, delete, 3 + least_cost(reference, hypothesis[1:]))


@given(texts, texts)
def test_the_alignment_has_the_least_cost(reference, hypothesis):
    reference, hypothesis = reference.split(), hypothesis.split()
    places = errors_by_place(reference, hypothesis)
    insertions, wrong = sum(places[::2]), sum(places[1::2])
    deletions = len(reference) + insertions - len(hypothesis)
    cost = 3 * (insertions + deletions) + 4 * (wrong - deletions)
    assert cost == least_cost(reference, hypothesis)


def test_systems_that_write_the_same_do_not_differ():
    found = matched_pairs([("a b c", "a x c", "a x c"), ("a b", "a", "a")])
    assert (found.segments, found.z, found.p) == (2, 0.0, 1.0)
    assert matched_pairs([("a", "a", "a")]).p == matched_pairs([]).p == 1.0


@pytest.mark.parametrize(("times", "p"), [(1, 1.0), (2, 0.5), (10, 2**-9)])
def test_a_difference_without_spread_is_as_likely_as_coins_that_fall_alike(times, p):
    found = matched_pairs([("a b c", "a x c", "a b c")] * times)
    assert (found.segments, found.z, found.p) == (times, 0.0, p)
