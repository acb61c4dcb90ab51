"""A confidence of 90 % means nine of ten."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from speechrnn.corpora.manifest import Utterance
from speechrnn.decoding.confidence import Calibration
from speechrnn.decoding.greedy import Hypothesis, Token
from speechrnn.errors import ModelError, ScoringError
from speechrnn.evaluation.calibration import BINS, fit, judge, plot, reliability
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.runtime import Recognizer, default_model
from speechrnn.runtime.results import Habits, confidence_of, timed_words
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, TextRules
from speechrnn.text import Alphabet


def words(count, seed, offset=-0.5, slope=0.6, speakers=10):
    """Posteriors, whether each word was right with the probability that the map gives, speakers."""
    rng = np.random.default_rng(seed)
    weakest = 1 / (1 + np.exp(-rng.normal(4, 2.5, count)))
    right = rng.uniform(size=count) < Calibration(offset, slope)(weakest)
    return weakest.tolist(), right.tolist(), [f"s{i}" for i in rng.integers(speakers, size=count)]


@pytest.mark.parametrize(
    ("heard", "reference", "expected"),
    [
        ("one two three", "One, two three", [True, True, True]),
        ("one too three", "one two three", [True, False, True]),
        ("one and two", "one two", [True, False, True]),
        ("two", "one two three", [True]),
        ("one", "", [False]),
        ("", "one", []),
    ],
)
def test_a_word_is_right_if_it_stands_in_the_reference(heard, reference, expected):
    assert judge(heard.split(), reference, TextRules()) == expected


def test_the_expected_calibration_error_of_bins_by_hand():
    # 30 words in 15 bins of two: the first of confidence 0.5, one of them right; the others sure,
    # of which one word is wrong.
    confidences = [0.5, 0.5] + [1.0] * 28
    right = [True, False] + [True] * 27 + [False]
    found = reliability(confidences, right)
    assert [one.words for one in found.bins] == [2] * BINS
    assert (found.bins[0].confidence, found.bins[0].right) == (0.5, 0.5)
    assert found.bins[-1].right == 0.5
    assert found.ece == pytest.approx(2 * 0.5 / 30)
    assert found.to_dict()["bins"][0] == {
        "words": 2, "lowest": 0.5, "highest": 0.5, "confidence": 0.5, "right": 0.5
    }  # fmt: skip


def test_few_words_have_few_bins_and_none_have_none():
    assert reliability([], []) is None
    found = reliability([0.2, 0.9, 0.4], [False, True, True])
    assert [one.words for one in found.bins] == [1, 1, 1]
    assert found.ece == pytest.approx((0.2 + 0.1 + 0.6) / 3)


@given(st.floats(-5, 5), st.floats(0, 5), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_calibration_never_falls(offset, slope, weakest):
    mapped = Calibration(offset, slope)(sorted(weakest))
    assert mapped == sorted(mapped)
    assert all(0 <= confidence <= 1 for confidence in mapped)


def test_the_map_that_words_were_drawn_with_is_found_again():
    found = fit(*words(20_000, seed=1))
    # Standard errors of this many words: 0.06 and 0.02.
    assert found.offset == pytest.approx(-0.5, abs=0.15)
    assert found.slope == pytest.approx(0.6, abs=0.05)
    assert found.ece < 0.015 < found.ece_before
    weakest, right, _ = words(20_000, seed=2)
    assert reliability(found(weakest), right).ece < 0.015 < reliability(weakest, right).ece


def test_posteriors_that_say_nothing_give_the_mean():
    rng = np.random.default_rng(0)
    weakest = rng.uniform(0.5, 1, 2000).tolist()
    right = (rng.uniform(size=2000) < 0.8).tolist()
    mapped = fit(weakest, right, ["a", "b"] * 1000)(weakest)
    assert np.mean(mapped) == pytest.approx(np.mean(right), abs=0.005)
    assert np.ptp(mapped) < 0.1
    backwards = fit(weakest, [p < 0.9 for p in weakest], ["a"] * 2000)
    assert backwards.slope == 0  # surest where wrong: the map may not fall
    assert backwards.ece is None  # nobody but the speaker it was fitted on


def test_words_told_apart_without_an_error_still_have_a_map():
    weakest = [0.2] * 20 + [0.999] * 200
    found = fit(weakest, [False] * 20 + [True] * 200, ["a", "b"] * 110)
    low, high = found([0.2, 0.999])
    assert low < 0.1 and high > 0.95 and np.isfinite(found.slope)


@pytest.mark.parametrize(("count", "wrong"), [(0, 0), (50, 25), (1000, 0), (1000, 4)])
def test_too_few_words_are_not_fitted(count, wrong):
    right = [True] * (count - wrong) + [False] * wrong
    with pytest.raises(ScoringError, match=f"{count} words, {wrong} of them wrong"):
        fit([0.9] * count, right, ["a"] * count)


@pytest.mark.parametrize(
    "entry", [{"offset": 1}, {"offset": 0, "slope": -1}, {"offset": "x", "slope": 1}, [], "sure"]
)
def test_a_calibration_of_another_kind_is_refused(entry):
    with pytest.raises(ModelError, match="calibration is not one this version reads"):
        Habits.of({"calibration": entry})
    calibration = Calibration(0.1, 0.2, 30, 20, 0.1, None)
    assert Calibration.from_dict(calibration.to_dict()) == calibration


def test_a_reliability_is_drawn(tmp_path):
    weakest, right, _ = words(500, seed=3)
    plot(reliability(weakest, right), tmp_path / "r.png")
    picture = image.imread(tmp_path / "r.png")[..., :3]
    assert picture.shape == (750, 750, 3)
    # Points and bars are the only blue: fifteen of them, at the right, and none below the axes.
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.3)
    assert 200 < blue.sum() < 20_000
    assert not blue[690:].any()


# --- evaluate ---


class Parrot:
    """Hears what stands beside each recording, and is as sure as that says."""

    alphabet = Alphabet(AlphabetSpec(tuple(" abcdefghijklmnopqrstuvwxyz")))

    def __init__(self, heard, gives_words=True):
        self.heard, self.gives_words = heard, gives_words

    def transcribe(self, path):
        said = self.heard[path.stem]
        found = SimpleNamespace(text=" ".join(word for word, _ in said), duration_s=1.0)
        if self.gives_words:
            found.words = [SimpleNamespace(text=word, confidence=sure) for word, sure in said]
        return found


def utterances(tmp_path, **texts):
    return [
        Utterance(name, tmp_path / f"{name}.wav", text, "dev", name) for name, text in texts.items()
    ]


def test_evaluate_tells_how_far_confidences_are_off(tmp_path):
    listed = utterances(tmp_path, u="yes no", v="stop")
    parrot = Parrot({"u": [("yes", 0.9), ("know", 0.4)], "v": [("stop", 0.8)]})
    found = evaluate(parrot, listed, progress=False)
    assert found.confidence.ece == pytest.approx((0.1 + 0.4 + 0.2) / 3)
    told = json.loads(json.dumps(found.to_dict()))["confidence"]
    assert (told["words"], len(told["bins"])) == (3, 3)
    assert "off by 23.3 points" in found.table()


def test_evaluate_does_without_confidences(tmp_path):
    parrot = Parrot({"u": [("yes", 0.9)]}, gives_words=False)
    found = evaluate(parrot, utterances(tmp_path, u="yes"), progress=False)
    assert (found.confidence, found.to_dict()["confidence"]) == (None, None)
    assert "confidences" not in found.table()


def test_evaluate_draws_the_reliability(tmp_path, speechrnn, monkeypatch):
    parrot = Parrot({"u": [("yes", 0.9), ("no", 0.2)]})
    parrot.card, parrot.decoder, parrot.decode_with = {}, None, lambda decoder: None
    monkeypatch.setattr("speechrnn.runtime.open_model", lambda *_, **__: parrot)
    (tmp_path / "m.tsv").write_text("utterance_id\tpath\ttext\nu\tu.wav\tyes\n")
    picture = tmp_path / "r.png"
    call = ("evaluate", "model", tmp_path / "m.tsv", "--json", "--reliability", picture)
    code, out, err = speechrnn(*call)
    assert code == 0, err
    assert json.loads(out)["confidence"]["ece"] == pytest.approx(0.15)
    assert image.imread(picture).shape[:2] == (750, 750)


def test_the_shipped_models_confidences_are_calibrated():
    calibration = Recognizer(default_model()).habits.calibration
    assert calibration.ece < 0.02 < calibration.ece_before


# Where the map is applied


HEARD = Hypothesis(
    "ab c",
    (
        Token("a", 2, 0, 1, 0.9),
        Token("b", 3, 1, 2, 0.6),
        Token(" ", 1, 2, 3, 0.99),
        Token("c", 4, 3, 4, 0.8),
    ),
    0.82,
)


def test_a_words_confidence_is_its_weakest_symbol_mapped():
    """1 / (1 + exp(-(0.5 + 2 log odds))), worked by hand for 0.6 and 0.8."""
    spec = RecogniserSpec(FeatureSpec(), AlphabetSpec((" ", "a", "b", "c")), ModelSpec())
    habits = Habits(calibration=Calibration(offset=0.5, slope=2.0))
    found = timed_words(HEARD, spec, 1.0, habits=habits)
    by_hand = [1 / (1 + math.exp(-0.5) * (0.4 / 0.6) ** 2), 1 / (1 + math.exp(-0.5) * 0.25**2)]
    assert [word.confidence for word in found] == pytest.approx(by_hand)
    assert confidence_of(HEARD, found, habits) == pytest.approx(sum(by_hand) / 2)
    raw = timed_words(HEARD, spec, 1.0)
    assert [word.confidence for word in raw] == pytest.approx([0.75, 0.8])  # means of the symbols
    assert confidence_of(HEARD, raw, Habits()) == 0.82
    assert confidence_of(Hypothesis("", (), 0.3), (), habits) == 0.3
