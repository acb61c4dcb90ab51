"""Evaluating a recogniser that knows its answers."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import AudioError, DataError, ModelError, ScoringError
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


def described(texts, **columns):
    """Utterances with columns, each a function of the utterance's number."""
    return [
        dataclasses.replace(each, columns={name: f(i) for name, f in columns.items() if f(i)})
        for i, each in enumerate(recorded(texts, speaker=lambda i: f"s{int(i) % 2}"))
    ]


def test_there_is_a_table_of_each_column_that_tells_kinds_apart():
    texts = {str(i): "one" for i in range(40)}
    utterances = described(
        texts,
        room=lambda i: "hall" if i < 10 else "car",
        noise=lambda i: "street" if i == 0 else "",
        number=str,
        constant=lambda i: "yes",
    )
    result = evaluate(Parrot(texts), utterances, progress=False)
    assert sorted(result.by) == ["duration", "noise", "room", "speaker"]
    told = {name: [(r.name, r.utterances) for r in rows] for name, rows in result.by.items()}
    assert told["room"] == [("car", 30), ("hall", 10)]
    assert told["noise"] == [("street", 1), ("unknown", 39)]
    assert told["speaker"] == [("s0", 20), ("s1", 20)]
    assert told["duration"] == [("under 1 s", 40)]
    wanted = evaluate(Parrot(texts), utterances, progress=False, by=["number", "constant"])
    assert len(wanted.by["number"]) == 40
    assert len(wanted.by["constant"]) == 1


def test_a_table_is_printed_where_it_is_asked_for():
    utterances = described({"0": "one two", "1": "three"}, room=lambda i: "car" if i else "hall")
    result = evaluate(Parrot({"0": "one", "1": "three"}), utterances, progress=False)
    assert "by room" not in result.table()
    shown = result.table(by=["room", "duration"])
    assert "by duration" in shown
    (hall,) = [line for line in shown.splitlines() if line.startswith("  hall")]
    assert hall.split()[1:] == ["1", "2", "1", "50.00", "50.0", "to", "50.0"]
    assert "'two' missed (1)" in shown


def test_a_column_that_nobody_filled_is_refused_before_anything_is_transcribed():
    utterances = described({"0": "one", "1": "two"}, room=lambda i: "hall")
    broken = ModelError("must not be asked")
    with pytest.raises(DataError, match=r"'rooms'.*'room', 'speaker', 'split', 'duration'"):
        evaluate(Parrot({"0": broken}), utterances, progress=False, by=["rooms"])


def test_the_plain_data_tell_where_the_errors_are():
    utterances = described({"0": "one two", "1": "three"}, room=lambda i: "car" if i else "hall")
    result = evaluate(Parrot({"0": "one", "1": "three"}), utterances, progress=False)
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data["by"].keys() == {"speaker", "duration", "room"}
    car, hall = data["by"]["room"]
    assert (car["name"], car["wer"], hall["wer"], hall["wer_ci95"]) == ("car", 0.0, 0.5, [0.5, 0.5])
    (confusion,) = data["confusions"]
    assert confusion == {"kind": "deletion", "reference": "two", "hypothesis": "", "count": 1}
    assert data["character_confusions"][0]["kind"] == "deletion"
    assert [(row["group"], row["duration_s"]) for row in data["scores"]] == [
        ("s0", 0.5),
        ("s1", 0.5),
    ]


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
