"""Tuning a decoder on utterances of which the answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_beam import ALPHABET, CHARACTER_LM, WORD_LM, posteriors, spoken

from speechrnn.decoding import settings as settings_file
from speechrnn.decoding.beam import BeamDecoder
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import ModelError, ScoringError, UsageError
from speechrnn.evaluation.tune import (
    LM_WEIGHT,
    WORD_SCORE,
    Example,
    Trial,
    _choice,
    _held_out_errors,
    tune,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A search with the model of words of test_beam, at its default weights."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "words.arpa").write_text(WORD_LM)
    (folder / "characters.arpa").write_text(CHARACTER_LM)
    return DecoderSettings(lm=folder / "words.arpa", beam=16)


@pytest.fixture(scope="module")
def examples():
    """Twelve utterances of four speakers, half of them under noise."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(12):
        words = list(rng.choice(["a", "ab", "ba"], 4, p=[0.5, 0.4, 0.1]))
        logits = spoken(words)
        logits = logits + rng.normal(0, 2.5 * (number % 2), logits.shape)
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        found.append(
            Example(
                f"u{number:02d}", log_probs.astype(np.float32), " ".join(words), f"s{number % 4}"
            )
        )
    return found


@pytest.fixture(scope="module")
def tuned(base, examples):
    return tune(ALPHABET, examples, base, trials=12, jobs=2)


def errors(examples, settings):
    """Word errors by substitution alone are not enough: the edit distance, by hand."""
    decoder, total = BeamDecoder(ALPHABET, settings), 0
    for example in examples:
        a, b = example.reference.split(), decoder.decode(example.log_probs).text.split()
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            diagonal, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
        total += row[-1]
    return total


def test_the_settings_give_the_rate_that_is_told(tuned, examples):
    words = sum(len(example.reference.split()) for example in examples)
    assert tuned.rates.wer == pytest.approx(errors(examples, tuned.settings) / words)
    assert tuned.by_beam[tuned.settings.beam] == tuned.rates.wer


def test_tuning_makes_no_more_errors_than_the_settings_it_began_with(tuned, base, examples):
    wide = dataclasses.replace(tuned.settings, beam=base.beam)
    assert errors(examples, wide) <= errors(examples, base)
    assert errors(examples, base) > 0, "the noise makes nothing hard"


def test_a_trials_errors_are_those_of_its_weights(tuned, base, examples):
    one = tuned.trials[5]
    settings = dataclasses.replace(base, lm_weight=one.lm_weight, word_score=one.word_score)
    assert errors(examples, settings) == one.errors.sum()
    assert all(LM_WEIGHT[0] <= t.lm_weight <= LM_WEIGHT[1] for t in tuned.trials)
    assert all(WORD_SCORE[0] <= t.word_score <= WORD_SCORE[1] for t in tuned.trials)
    assert len({t.lm_weight for t in tuned.trials}) > 6


def trial(errors, **weights):
    weights = {"lm_weight": 0.5, "rescore_weight": 0.4, "word_score": 0.0, **weights}
    return Trial(**weights, errors=np.array(errors), character_errors=np.zeros(len(errors)))


def test_what_is_held_out_had_no_part_in_the_choice():
    """Two speakers: each has a trial without an error, at which the other has five."""
    pair = [Example("u", posteriors(1, 0), "a", "x"), Example("v", posteriors(1, 0), "a", "y")]
    found = [trial([2, 2])]
    found += [trial([0, 5], lm_weight=0.1 + 0.01 * i) for i in range(5)]
    found += [trial([5, 0], lm_weight=1.4 + 0.01 * i) for i in range(5)]
    assert _held_out_errors(found, pair) == 10
    better = [trial([1, 1], lm_weight=1.0 + 0.01 * i) for i in range(5)]
    assert _held_out_errors([trial([2, 2]), *better], pair) == 2
    assert _held_out_errors(found, pair[:1]) is None


@pytest.mark.parametrize("name", ["lm_weight", "rescore_weight", "word_score"])
def test_a_choice_looks_at_its_neighbours_in_every_weight(name):
    """Good among bad ones by chance, or a little worse where all are good."""
    lucky = [trial([9], **{name: 0.1 + 0.01 * i}) for i in range(5)]
    lucky[0] = trial([6], **{name: 0.1})
    lucky[2] = trial([0], **{name: 0.12})
    plateau = [trial([1], **{name: 0.9 + 0.01 * i}) for i in range(5)]
    assert _choice([trial([9], **{name: 0.5}), *lucky, *plateau], slice(None)) > len(lucky)


def test_a_choice_is_no_worse_than_what_was_given():
    found = [trial([3]), *(trial([4], lm_weight=1 + 0.01 * i) for i in range(6))]
    assert _choice(found, slice(None)) == 0


def test_the_same_seed_gives_the_same_settings_with_any_number_of_processes(tuned, base, examples):
    again = tune(ALPHABET, examples, base, trials=12, jobs=1)
    assert (again.settings, again.held_out_wer) == (tuned.settings, tuned.held_out_wer)


def test_the_report_is_saved_beside_the_settings(tuned, tmp_path):
    settings_file.save(tmp_path / "decoder.json", tuned.settings, tuned.report())
    read = settings_file.load(tmp_path / "decoder.json")
    assert (read.beam, read.lm_weight) == (tuned.settings.beam, tuned.settings.lm_weight)
    assert {"greedy", "tuned", "held_out_wer", "trials"} <= tuned.report().keys()
    assert f"{100 * tuned.rates.wer:.2f} %" in tuned.table()


def test_without_a_lexicon_only_the_weight_is_tuned(base, examples):
    characters = DecoderSettings(lm=base.lm.with_name("characters.arpa"), beam=8)
    found = tune(ALPHABET, examples[:4], characters, trials=4)
    assert {t.word_score for t in found.trials} == {0.0}


def test_what_cannot_be_tuned_is_refused(base, examples):
    with pytest.raises(UsageError, match="nothing to tune"):
        tune(ALPHABET, examples, DecoderSettings())
    with pytest.raises(ScoringError, match="not one word"):
        tune(ALPHABET, [Example("u", posteriors(3, 0), " ")], base)
    with pytest.raises(ScoringError, match="not one word"):
        tune(ALPHABET, [], base)
    with pytest.raises(ModelError, match="cannot read"):
        tune(ALPHABET, examples, DecoderSettings(lm=base.lm.with_name("none.arpa")))
