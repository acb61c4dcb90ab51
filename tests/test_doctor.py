"""The data doctor: what is planted is found, and a clean corpus has nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, whistle

from speechrnn import audio
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.evaluation import doctor
from speechrnn.evaluation.doctor_page import write_page
from speechrnn.evaluation.findings import ENOUGH, Case, Judged, deviations
from speechrnn.evaluation.recording_checks import MAX_SECONDS, MIN_SECONDS
from speechrnn.evaluation.recordings import Recording, Unreadable, measure, measure_all
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.text import Alphabet

TEXTS = [f"{a}{b} {c}{d}" for a in "abc" for b in "abcd" for c in "bcd" for d in "abcd"][::2]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """60 whistled utterances, no text twice, no speaker in two splits."""
    folder = tmp_path_factory.mktemp("clean")
    utterances = []
    for number, text in enumerate(TEXTS[:60]):
        path, split = folder / f"u{number:02d}.wav", "dev" if number % 5 == 0 else "train"
        soundfile.write(path, whistle(text, number), RATE)
        utterances.append(Utterance(path.stem, path, text, split, f"{split}{number % 3}"))
    return utterances


def examined(utterances, recogniser=None):
    return doctor.examine(utterances, recogniser, workers=1, progress=False)


def found(diagnosis):
    """Code -> ids of the utterances, in the order of the finding."""
    return {each.code: [item.utterance_id for item in each.items] for each in diagnosis.findings}


def planted(clean, folder, number, waveform=None, rate=RATE, **changes):
    """The clean corpus with one utterance changed, its recording too if there is another."""
    victim = clean[number]
    if waveform is not None:
        path = folder / f"{victim.utterance_id}.wav"
        soundfile.write(path, waveform, rate, subtype="FLOAT")
        changes["path"] = path
    return [*clean[:number], replace(victim, **changes), *clean[number + 1 :]]


def test_a_clean_corpus_yields_no_finding(clean):
    diagnosis = examined(clean)
    assert diagnosis.findings == ()
    assert diagnosis.table().endswith("Nothing found.")


def tone(seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * 400 * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


SPEECH = whistle("ab bc", 7)
RECORDINGS = {
    "clipped": np.clip(4 * SPEECH, -1, 1),
    "silent": np.full(RATE, 0.001, np.float32),
    "offset": SPEECH + np.float32(0.05),
    "level": SPEECH / 300,
    "too_short": SPEECH[: int(0.15 * RATE)],
    "too_long": np.tile(SPEECH, 30),
    "mostly_pause": np.concatenate([np.zeros(12 * RATE, np.float32), SPEECH]),
}


@pytest.mark.parametrize("code", RECORDINGS)
def test_a_bad_recording_is_found_and_no_other(clean, tmp_path, code):
    assert found(examined(planted(clean, tmp_path, 7, RECORDINGS[code])))[code] == ["u07"]


def test_a_clipped_recording_is_found_after_it_was_made_quieter(clean, tmp_path):
    quieter = 0.4 * np.clip(4 * SPEECH, -1, 1)
    assert found(examined(planted(clean, tmp_path, 7, quieter))) == {"clipped": ["u07"]}


def test_another_sample_rate_is_a_note(clean, tmp_path):
    diagnosis = examined(planted(clean, tmp_path, 7, SPEECH[::2], RATE // 2))
    assert found(diagnosis) == {"format": ["u07"]}
    assert diagnosis.findings[0].severity == "note"


@pytest.mark.parametrize("content", [None, b"", b"RIFF nonsense", b"not audio at all"])
def test_what_cannot_be_read_is_a_finding_and_never_stops_the_rest(clean, tmp_path, content):
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    diagnosis = examined(planted(clean, tmp_path, 7, path=path))
    assert found(diagnosis) == {"unreadable": ["u07"]}
    assert diagnosis.summary()["readable"] == 59


TRANSCRIPTS = {
    "empty_text": "...",
    "digits": "ab 12",
    "control_characters": "ab\u200e bc",
    "mixed_scripts": "аb bc",  # the first letter is Cyrillic
    "rare_characters": "ab bž",
    "too_many_labels": "abcd" * 40,
    "speaking_rate": "abcd" * 7,
}


@pytest.mark.parametrize("code", TRANSCRIPTS)
def test_a_bad_transcript_is_found(clean, tmp_path, code):
    diagnosis = examined(planted(clean, tmp_path, 7, text=TRANSCRIPTS[code]))
    assert set(found(diagnosis)[code]) == {"u07"}


def test_capitals_in_a_few_transcripts_are_a_note(clean, tmp_path):
    diagnosis = examined(planted(clean, tmp_path, 7, text=clean[7].text.upper()))
    assert found(diagnosis) == {"capitals": ["u07"]}


def test_capitals_everywhere_are_a_habit(clean):
    assert examined([replace(u, text=u.text.upper()) for u in clean]).findings == ()


def test_a_wrong_duration_in_the_manifest_is_found(clean, tmp_path):
    told = [replace(u, duration_s=measure(u).duration_s) for u in clean]
    assert examined(told).findings == ()
    assert found(examined(planted(told, tmp_path, 7, duration_s=9.0))) == {
        "wrong_duration": ["u07"]
    }


def test_an_id_that_stands_twice_is_found(clean):
    assert found(examined([*clean, replace(clean[3], line=62)])) == {"duplicate_id": ["u03"]}


def test_the_same_audio_is_found_in_another_container(clean, tmp_path):
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, soundfile.read(clean[6].path, dtype="int16")[0], RATE)
    again = replace(clean[6], utterance_id="again", path=copy)
    assert found(examined([*clean, again])) == {"same_audio": ["again"]}
    other = replace(again, text=clean[8].text)
    assert found(examined([*clean, other])) == {"same_audio_other_text": ["again"]}


def test_a_recording_in_two_splits_is_a_leak(clean):
    again = replace(clean[6], utterance_id="again", split="dev", speaker="")
    codes = found(examined([*clean, again]))
    assert codes["same_audio_two_splits"] == ["again"]
    assert "same_text_two_splits" in codes


def test_a_speaker_in_two_splits_is_found_with_counts(clean, tmp_path):
    diagnosis = examined(planted(clean, tmp_path, 7, speaker="dev0"))
    assert found(diagnosis) == {"speaker_two_splits": ["u07"]}
    dev = sum(u.speaker == "dev0" for u in clean)
    (item,) = diagnosis.findings[0].items
    assert item.detail == f"'dev0': {dev} in dev, 1 in train"


def test_text_in_two_splits_is_counted(clean, tmp_path):
    dev = next(u for u in clean if u.split == "dev")
    diagnosis = examined(planted(clean, tmp_path, 7, text=dev.text))
    (item,) = next(f for f in diagnosis.findings if f.code == "same_text_two_splits").items
    assert item.detail == f"{dev.text!r}: 1 in dev, 1 in train"


class Knowing:
    """A recogniser that hears what is whistled: the alphabet of TEXTS and exact posteriors."""

    spec = RecogniserSpec(FeatureSpec(), AlphabetSpec((" ", "a", "b", "c", "d")), ModelSpec())
    alphabet = Alphabet(spec.alphabet)

    def __init__(self, utterances):
        self.by_wave = {audio.load(u.path).tobytes(): u.text for u in utterances}

    def log_probs(self, waveform):
        posteriors = np.full([self.spec.output_frames(len(waveform)), 6], 1e-9)
        posteriors[:, 0] = 1 - 5e-9
        for place, label in enumerate(self.alphabet.encode(self.by_wave[waveform.tobytes()])):
            posteriors[2 * place, [0, label]] = posteriors[2 * place, [label, 0]]
        return np.log(posteriors).astype(np.float32)


def test_exchanged_transcripts_are_found_worst_first_with_what_was_heard(clean):
    recogniser = Knowing(clean)
    texts = [u.text for u in clean]
    for a, b in ((6, 41), (12, 33)):
        texts[a], texts[b] = texts[b], texts[a]
    mixed = [replace(u, text=text) for u, text in zip(clean, texts, strict=True)]
    assert examined(clean, recogniser).findings == ()
    diagnosis = examined(mixed, recogniser)
    wrong = next(f for f in diagnosis.findings if f.code == "wrong_transcript")
    assert {i.utterance_id for i in wrong.items} == {"u06", "u41", "u12", "u33"}
    scores = [float(item.detail.split()[0]) for item in wrong.items]
    assert scores == sorted(scores, reverse=True)
    heard = {c.name: c.judged.heard for c in diagnosis.cases}
    assert [heard[u.utterance_id] for u in clean] == [u.text for u in clean]


@pytest.mark.skipif("SPEECHRNN_DATA" not in os.environ, reason="SPEECHRNN_DATA names no corpora")
def test_transcripts_exchanged_in_an4_are_found_and_true_ones_are_not_accused():
    from speechrnn.runtime import default_model, open_model

    listed = manifest.read(Path(os.environ["SPEECHRNN_DATA"]) / "an4" / "manifest.tsv")
    dev = [u for u in listed if u.split == "dev"]
    chosen = [int(i) for i in np.random.default_rng(4).permutation(len(dev))[:8]]
    mixed = list(dev)
    for one, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        mixed[one] = replace(dev[one], text=dev[other].text)
    recogniser = open_model(default_model())
    assert accused(examined(dev, recogniser)) == set()
    assert accused(examined(mixed, recogniser)) == {dev[i].utterance_id for i in chosen}


def accused(diagnosis):
    """The utterances of all errors. (That two of the split have a q is a warning, and right.)"""
    errors = (each for each in diagnosis.findings if each.severity == "error")
    return {item.utterance_id for each in errors for item in each.items}


def test_characters_that_a_model_lacks_are_an_error(clean, tmp_path):
    diagnosis = examined(planted(clean, tmp_path, 7, text="ab bž"), Knowing(clean))
    assert found(diagnosis)["unknown_characters"] == ["u07"]
    assert next(c for c in diagnosis.cases if c.name == "u07").judged.mismatch is None


def test_a_model_that_knows_nothing_of_a_corpus_accuses_only_what_stands_out():
    good = Recording(2.0, RATE, 1, -20.0, 0.5, 0.0, 0.0, 0.1, False, "")
    cases = [
        Case(
            Utterance(f"u{n}", Path("x"), "ab", "train"),
            "ab",
            replace(good, sha256=str(n)),
            Judged("c", 20.0 if n else 300.0),
        )
        for n in range(30)
    ]
    diagnosis = doctor.diagnose(cases)
    assert found(diagnosis)["wrong_transcript"] == ["u0"]
    assert "knows little of this corpus" in diagnosis.verdict


def test_the_number_of_processes_changes_nothing(clean):
    assert measure_all(clean, workers=2) == measure_all(clean, workers=1)


def test_levels_are_those_of_a_tone(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(level=0.5) + 0.01, RATE, subtype="FLOAT")
    measured = measure(Utterance("u", path, "", ""))
    # A sine's mean square is half its amplitude's square; the offset is no part of the level.
    assert measured.rms_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert measured.peak == pytest.approx(0.51, abs=1e-3)
    assert measured.offset == pytest.approx(0.01, abs=1e-4)
    assert (measured.clipped, measured.pauses, measured.silent) == (0, 0, False)


def test_a_recording_longer_than_a_block_is_measured_as_a_whole(tmp_path):
    path = tmp_path / "long.flac"
    wave = np.concatenate([tone(6.0), np.zeros(6 * RATE, np.float32)])
    soundfile.write(path, wave, RATE)
    measured = measure(Utterance("u", path, "", ""))
    assert measured.duration_s == 12
    assert measured.pauses == pytest.approx(0.5, abs=0.01)
    power = np.mean(np.square(wave))
    assert measured.rms_dbfs == pytest.approx(10 * np.log10(power), abs=0.01)


def test_of_a_folder_it_says_that_it_is_one(tmp_path):
    assert measure(Utterance("u", tmp_path, "", "")) == Unreadable(
        "unreadable", f"{tmp_path} is a folder or a device; name a recording"
    )


def test_of_few_values_none_is_unusual():
    assert not deviations([*[1.0] * (ENOUGH - 2), 100.0]).any()
    rng = np.random.default_rng(0)
    normal = rng.normal(5, 2, 10_000)
    # In standard deviations: a robust one of so many draws is right to 2 %.
    np.testing.assert_allclose(deviations(normal), (normal - 5) / 2, atol=0.15)


def test_limits_are_those_of_prepare():
    from speechrnn.recipe import DataSection

    fields = DataSection.model_fields
    assert fields["min_seconds"].default == MIN_SECONDS
    assert fields["max_seconds"].default == MAX_SECONDS


def test_the_page_holds_no_markup_of_the_corpus(clean, tmp_path):
    evil = "<script>alert(1)</script>"
    mean = [
        replace(u, text=f"{u.text} {evil}", speaker=evil, utterance_id=u.utterance_id + evil)
        for u in clean
    ]
    write_page(examined(mean), tmp_path / "page.html", title=evil)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<script>") == 1 and "alert(1)" in page


def test_the_command_answers_with_findings_and_exit_code_0(speechrnn, clean, tmp_path):
    manifest.write(
        tmp_path / "m.tsv",
        [*clean, replace(clean[0], path=tmp_path / "gone.wav", utterance_id="gone")],
    )
    code, out, _ = speechrnn("doctor", tmp_path / "m.tsv", "--json")
    answer = json.loads(out)
    assert code == 0
    assert [f["code"] for f in answer["findings"]] == ["unreadable"]
    assert answer["utterances"] == 61 and len(answer["cases"]) == 61
    code, out, _ = speechrnn("doctor", tmp_path / "m.tsv")
    assert code == 0 and "gone" in out and "duration (s)" in out


def test_the_command_judges_with_a_model_and_writes_a_page(speechrnn, clean, tmp_path):
    from speechrnn.runtime import default_model

    manifest.write(tmp_path / "m.tsv", clean[:5])
    report = tmp_path / "page.html"
    arguments = ["--model", default_model(), "--report", report, "--json"]
    code, out, _ = speechrnn("doctor", tmp_path / "m.tsv", *arguments)
    assert code == 0
    assert all("heard" in case for case in json.loads(out)["cases"])
    assert "u03" in report.read_text("utf-8")


def test_the_doctor_and_its_page_need_no_training_extra():
    missing = ["tensorflow", "keras", "jiwer", "matplotlib", "librosa", "pydantic", "PIL"]
    script = f"import sys; sys.modules.update(dict.fromkeys({missing}))"  # None: not to be found
    script += "; import speechrnn.evaluation.doctor_page"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_splits_that_nobody_named_are_not_judged(speechrnn, clean, tmp_path):
    """The same recording twice: in two splits only if the manifest says so."""
    path = clean[0].path
    rows = [f"{path},{clean[0].text},{i},{{}}\n" for i in range(40)]
    for split, leak in (("", False), ("train", True)):
        lines = [row.format(split if i else split and "dev") for i, row in enumerate(rows)]
        (tmp_path / "m.csv").write_text("path,text,utterance_id,split\n" + "".join(lines))
        code, out, err = speechrnn("doctor", tmp_path / "m.csv", "--json")
        assert code == 0, err
        assert ("same_audio_two_splits" in out) is leak


def test_direction_marks_are_ordinary_where_text_runs_from_right_to_left(clean, tmp_path):
    hebrew = "\u200f\u05d0\u05d1\u05d2 \u2067\u05d3\u2069"
    corpus = planted(clean, tmp_path, 0, text=hebrew)
    assert "control_characters" not in found(examined(corpus))


def test_an_unreadable_manifest_is_bad_data(speechrnn, tmp_path):
    code, _, err = speechrnn("doctor", tmp_path / "none.tsv")
    assert code == 3 and "none.tsv" in err
