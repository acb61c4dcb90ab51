"""Evaluating a recogniser that knows its answers."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import AudioError, ModelError, ScoringError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.specs import AlphabetSpec, TextRules
from speechrnn.text import Alphabet


class Parrot:
    """Says what it was told to for each file; raises what it was told to raise."""

    def __init__(self, answers, rules=None, seconds=0.0):
        self.alphabet = Alphabet(AlphabetSpec(symbols=(" ", "a"), rules=rules or TextRules()))
        self.answers = answers
        self.seconds = seconds

    def transcribe(self, path):
        time.sleep(self.seconds)
        answer = self.answers[path.stem]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(text=answer, duration_s=0.5)


def recorded(texts, speaker=lambda utterance_id: ""):
    """Utterances from texts by id; the parrot never looks at their files."""
    return [
        Utterance(utterance_id, Path(f"{utterance_id}.wav"), text, "dev", speaker(utterance_id))
        for utterance_id, text in texts.items()
    ]


def test_hypotheses_are_scored_under_the_recognisers_own_rules():
    utterances = recorded({"a": "One TWO", "b": "three."})
    answers = {"a": "one two", "b": "tree"}
    assert evaluate(Parrot(answers), utterances, progress=False).rates.wer == pytest.approx(1 / 3)
    kept = Parrot(answers, TextRules(case="keep"))
    assert evaluate(kept, utterances, progress=False).rates.wer == 1.0


def test_unreadable_recordings_are_listed_and_the_rest_is_scored():
    utterances = recorded({"a": "one", "b": "two", "c": "three"})
    broken = AudioError("b.wav: the file is empty; record it again", reason="empty_file")
    result = evaluate(Parrot({"a": "one", "b": broken, "c": "tree"}), utterances, progress=False)
    assert [item.utterance_id for item in result.rates.scores] == ["a", "c"]
    assert (result.rates.words, result.rates.wer) == (2, 0.5)
    (failure,) = result.to_dict()["failures"]
    assert (failure["utterance_id"], failure["reason"]) == ("b", "empty_file")
    assert "b.wav: the file is empty" in result.table()


def test_the_real_time_factor_is_work_over_the_audio_that_was_read():
    utterances = recorded({"a": "one", "b": "two", "c": "three"})
    broken = AudioError("no")
    parrot = Parrot({"a": "one", "b": "two", "c": broken}, seconds=0.01)
    result = evaluate(parrot, utterances, progress=False)
    assert result.audio_seconds == 1.0  # two of half a second
    assert result.processing_seconds >= 0.02  # two sleeps at the least
    assert result.real_time_factor == result.processing_seconds / result.audio_seconds


def test_speakers_are_the_groups_of_the_interval():
    texts = {str(i): "one" for i in range(6)}
    utterances = recorded(texts, speaker=lambda i: f"s{int(i) % 3}")
    rates = evaluate(Parrot(texts), utterances, progress=False).rates
    assert (rates.units, rates.resampled) == (3, "groups")


def test_the_plain_data_hold_what_a_script_relies_on():
    result = evaluate(Parrot({"a": "one"}), recorded({"a": "one"}), progress=False)
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"wer", "cer", "utterances", "words", "wer_ci95", "failures"} <= data.keys()
    assert {"real_time_factor", "normalisation"} <= data.keys()
    assert len(data["wer_ci95"]) == 2


def test_progress_goes_to_stderr_alone(capsys):
    evaluate(Parrot({"a": "one"}), recorded({"a": "one"}), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "evaluating" in shown.err


def test_the_first_of_an_id_is_scored_and_the_later_one_is_a_failure():
    texts = {"a": "one", "b": "two"}
    utterances = recorded(texts)
    again = dataclasses.replace(utterances[0], text="three")
    result = evaluate(Parrot(texts), [*utterances, again], progress=False)
    assert (result.rates.utterances, result.rates.wer) == (2, 0.0)
    assert [(failure.utterance_id, failure.reason) for failure in result.failures] == [
        ("a", "duplicate_id")
    ]


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ScoringError, match="no utterances"):
        evaluate(Parrot({}), [], progress=False)
    broken = Parrot({"a": AudioError("a.wav is empty")})
    with pytest.raises(ScoringError, match=r"none of 1 recordings.*a\.wav is empty"):
        evaluate(broken, recorded({"a": "one"}), progress=False)


def test_a_broken_model_ends_the_evaluation():
    with pytest.raises(ModelError, match="damaged"):
        evaluate(Parrot({"a": ModelError("damaged")}), recorded({"a": "one"}), progress=False)
