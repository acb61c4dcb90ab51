"""Where errors are: rows against scoring the part alone, confusions against errors put there."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.evaluation import breakdown
from speechrnn.evaluation.alignment import Edit, align_characters, align_words
from speechrnn.evaluation.error_rates import score

texts = st.lists(st.sampled_from(["one", "two", "to", "öl"]), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def corpus():
    """Forty utterances of four speakers, a tenth of the words wrong."""
    rng = random.Random(3)
    words = ["one", "two", "three", "four"]
    references = {f"u{i:02d}": " ".join(rng.choices(words, k=1 + i % 7)) for i in range(40)}
    hypotheses = {
        i: " ".join(rng.choice(words) if rng.random() < 0.1 else word for word in text.split())
        for i, text in references.items()
    }
    return references, hypotheses, {i: f"s{int(i[1:]) % 4}" for i in references}


def test_a_row_is_what_scoring_its_utterances_alone_gives(corpus):
    references, hypotheses, speakers = corpus
    colour = {i: "red" if i < "u20" else "blue" for i in references}
    rows = breakdown.by_value(score(references, hypotheses, speakers).scores, colour)
    assert [row.name for row in rows] == ["blue", "red"]
    for row in rows:
        part = [i for i in references if colour[i] == row.name]
        alone = score(*({i: side[i] for i in part} for side in corpus))
        errors = alone.substitutions + alone.deletions + alone.insertions
        assert (row.utterances, row.words, row.errors) == (len(part), alone.words, errors)
        assert (row.wer, row.wer_ci95) == (alone.wer, alone.wer_ci95)


def test_utterances_without_a_value_are_the_last_row(corpus):
    references, hypotheses, _ = corpus
    scores = score(references, hypotheses).scores
    rows = breakdown.by_value(scores, {"u00": "z", "u01": ""})
    assert [(row.name, row.utterances) for row in rows] == [("z", 1), ("unknown", 39)]


def test_durations_fall_into_the_stretch_that_their_lower_edge_opens():
    seconds = {"a": 0.5, "b": 1.0, "c": 1.99, "d": 2.0, "e": 40.0}
    scores = score(dict.fromkeys("abcdef", "x"), dict.fromkeys("abcdef", "x")).scores
    rows = breakdown.by_duration(scores, seconds, edges=(1, 2, 4))
    assert [(row.name, row.utterances) for row in rows] == [
        ("under 1 s", 1),
        ("1 to 2 s", 2),
        ("2 to 4 s", 1),
        ("4 s and more", 1),
        ("unknown", 1),
    ]


def test_rows_without_words_are_plain_json():
    scores = score({"a": "", "b": ""}, {"a": "noise", "b": ""}).scores
    rows = [row.to_dict() for row in breakdown.by_value(scores, {"a": "x", "b": "y"})]
    first, second = json.loads(json.dumps(rows, allow_nan=False))
    assert (first["wer"], first["wer_ci95"], first["errors"]) == (None, [None, None], 1)
    assert (second["wer"], second["wer_ci95"], second["words"]) == (0.0, [0.0, 0.0], 0)


def test_no_scores_have_no_rows_and_no_confusions():
    assert breakdown.by_value([], {}) == breakdown.by_duration([], {}) == []
    assert breakdown.confusions([]) == breakdown.character_confusions([]) == []


def test_confusions_are_the_errors_that_were_made_most_frequent_first():
    references = {str(i): "left b middle" for i in range(5)}
    hypotheses = {
        **{"0": "left d middle", "1": "left d middle", "2": "left d middle"},
        **{"3": "left middle", "4": "left b the middle"},
    }
    scores = score(references, hypotheses).scores
    found = breakdown.confusions(scores)
    assert [(c.kind, c.reference, c.hypothesis, c.count) for c in found] == [
        ("substitution", "b", "d", 3),
        ("deletion", "b", "", 1),
        ("insertion", "", "the", 1),
    ]
    assert breakdown.confusions(scores, most=1) == found[:1]
    letters = breakdown.character_confusions(scores)
    assert (letters[0].reference, letters[0].hypothesis, letters[0].count) == ("b", "d", 3)


@given(texts, texts)
def test_an_alignment_spells_both_sides_and_has_the_edits_that_are_counted(reference, hypothesis):
    (item,) = score({"a": reference}, {"a": hypothesis}).scores
    kinds = Counter(edit.kind for edit in item.alignment)
    assert [e.reference for e in item.alignment if e.kind != "insert"] == reference.split()
    assert [e.hypothesis for e in item.alignment if e.kind != "delete"] == hypothesis.split()
    assert all((e.reference == e.hypothesis) == (e.kind == "equal") for e in item.alignment)
    counted = (item.substitutions, item.deletions, item.insertions)
    assert (kinds["substitute"], kinds["delete"], kinds["insert"]) == counted
    (letters,) = align_characters([reference], [hypothesis])
    assert "".join(edit.reference for edit in letters) == reference
    assert "".join(edit.hypothesis for edit in letters) == hypothesis
    assert sum(edit.kind != "equal" for edit in letters) == item.character_errors


def test_an_alignment_with_nothing_is_all_deleted_or_all_inserted():
    assert align_words(["a b", "", ""], ["", "c", ""]) == [
        (Edit("delete", "a", ""), Edit("delete", "b", "")),
        (Edit("insert", "", "c"),),
        (),
    ]
