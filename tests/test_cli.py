"""The command: what each subcommand prints, and how each ends when something is wrong."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf
import typer
from conftest import RATE, REPOSITORY, whistle, write_recipe

from speechrnn import cli, files, recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data.prepare import prepare, rejections
from speechrnn.runtime import Recognizer, container, open_model

COMMANDS = (
    *("prepare", "train", "evaluate", "export", "transcribe", "align"),
    *("benchmark", "info", "synth", "record", "compare", "doctor", "lm", "tune"),
)
EXPORTS = {
    "savedmodel": ["--format", "savedmodel"],
    "float32": ["--precision", "float32"],
    "float16": ["--precision", "float16"],
    "int8": [],
}


@pytest.fixture(scope="session")
def forms(trained, tmp_path_factory):
    """MODEL in every form: the run, and what `speechrnn export` makes of it."""
    folder = tmp_path_factory.mktemp("forms")
    found = {"run": trained}
    for name, options in EXPORTS.items():
        found[name] = folder / (name if name == "savedmodel" else f"{name}.tflite")
        arguments = ["speechrnn", "export", str(trained), str(found[name]), *options]
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", arguments)
            patch.setattr("speechrnn.export.tflite.NOISE_MINUTES", 1.0)
            with pytest.raises(SystemExit) as stop:
                cli.main()
        assert not stop.value.code
        if name == "savedmodel":
            found[name] /= "1"  # its first version
        assert printed.getvalue() == f"{found[name]}\n"
    return found


@pytest.fixture
def model(forms):
    """The form that loads fastest."""
    return forms["float32"]


@pytest.fixture
def threads(monkeypatch):
    """What training asks TensorFlow's threads to be, which have started in this process."""
    asked = []
    monkeypatch.setattr("speechrnn.training.threads.configure", asked.append)
    return asked


@pytest.fixture(scope="session")
def clear(whistles, forms):
    """The dev utterance that is heard most surely, with and without a little noise, and as its
    text what is heard: how well whistles are learned is not the subject here."""
    recognisers = [Recognizer(forms[name]) for name in ("float32", "int8")]
    rng = np.random.default_rng(0)

    def heard(utterance):
        wave, _ = soundfile.read(utterance.path, dtype="float32")
        noisy = [wave + rng.normal(0, sigma, len(wave)) for sigma in (0, 0.004, 0.004, 0.004)]
        found = [each.transcribe(one) for each in recognisers for one in noisy]
        words = [word.confidence for each in found for word in each.words]
        alike = len({each.text for each in found}) == 1 and " " in found[0].text
        return alike * min(words, default=0), replace(utterance, text=found[0].text)

    dev = [heard(u) for u in manifest.read(whistles) if u.split == "dev"]
    sureness, utterance = max(dev, key=lambda pair: pair[0])
    assert sureness > 0, "no whistle is heard twice alike: the fixture `trained` learned too little"
    return utterance


def hypotheses(result):
    return {score["utterance_id"]: score["hypothesis"] for score in result["scores"]}


# What each command does


def test_prepare_tells_what_is_ready(speechrnn, whistles, tmp_path):
    path = write_recipe(tmp_path, whistles)
    code, out, _ = speechrnn("prepare", path)
    seconds = {"train": 0.0, "dev": 0.0}
    for utterance in manifest.read(whistles):
        seconds[utterance.split] += soundfile.info(utterance.path).duration
    assert code == 0
    assert out.splitlines() == [
        f"dev: 12 utterances, {seconds['dev'] / 3600:.2f} h",
        f"train: 60 utterances, {seconds['train'] / 3600:.2f} h",
    ]
    assert speechrnn("prepare", path)[:2] == (0, out)


def test_train_ends_with_the_result_of_its_run(speechrnn, trained, threads):
    code, out, err = speechrnn("train", trained.parent / "recipe.yaml", "--quiet")
    card = json.loads((trained / "model.json").read_text())["card"]
    assert code == 0, err
    assert out == f"{trained}: dev WER {card['dev']['wer']:.1%} after epoch {card['epoch']}\n"
    assert threads == ["auto"]


def test_every_form_is_evaluated_alike(speechrnn, forms, whistles):
    results = {}
    for name, path in forms.items():
        code, out, err = speechrnn("evaluate", path, whistles, "--split", "dev", "--json")
        assert code == 0, err
        results[name] = json.loads(out)
        assert {"wer", "cer", "utterances", "words", "wer_ci95"} <= results[name].keys()
        assert (results[name]["utterances"], results[name]["words"]) == (12, 24)
        low, high = results[name]["wer_ci95"]
        assert 0 <= low <= results[name]["wer"] <= high
    for name in ("savedmodel", "float32"):
        assert hypotheses(results[name]) == hypotheses(results["run"])
    for name in ("float16", "int8"):  # rounded weights may tip a doubtful word or two
        assert abs(results[name]["wer"] - results["run"]["wer"]) <= 2 / 24


def test_evaluate_prints_a_table_for_people(speechrnn, model, whistles):
    code, out, _ = speechrnn("evaluate", model, whistles, "--split", "dev")
    assert code == 0
    assert "WER" in out and "95 % interval" in out and "12 utterances, 24 words" in out


def test_evaluate_prints_the_tables_that_are_asked_for(speechrnn, model, whistles):
    arguments = ("evaluate", model, whistles, "--split", "dev")
    code, out, _ = speechrnn(*arguments, "--by", "speaker", "--by", "duration")
    assert code == 0
    assert all(f"  {name} " in out for name in ("s0dev", "s1dev", "s2dev")) and "by duration" in out
    code, out, err = speechrnn(*arguments, "--by", "room")
    assert (code, out) == (3, "") and "'room'; there are 'speaker'" in err


def test_a_manifest_without_splits_is_divided_as_the_models_own_was(
    speechrnn, trained, whistles, tmp_path
):
    path = tmp_path / "plain.csv"
    rows = [f"{u.path},{u.text}" for u in manifest.read(whistles)]
    path.write_text("\n".join(["path,text", *rows]) + "\n")
    loaded = recipe.load(write_recipe(tmp_path, path, data={"workers": 1, "dev_fraction": 0.4}))
    dev = {row.utterance_id for row in prepare(loaded, progress=False).split("dev")}
    assert {u.utterance_id for u in manifest.read(path) if u.split == "dev"} < dev

    model = tmp_path / "model"
    model.mkdir()
    for part in [trained / "model.json", *trained.glob("weights-*.npz")]:
        shutil.copy(part, model)
    description = json.loads((model / "model.json").read_text())
    assert description["card"]["dev_fraction"] == 0.1
    description["card"]["dev_fraction"] = 0.4
    (model / "model.json").write_bytes(files.sealed(description))
    code, out, err = speechrnn("evaluate", model, path, "--split", "dev", "--json")
    assert code == 0, err
    assert hypotheses(json.loads(out)).keys() == dev


def test_transcribe_prints_the_text_alone_or_after_each_path(speechrnn, model, clear, whistles):
    other = manifest.read(whistles)[0].path
    assert speechrnn("transcribe", clear.path, "--model", model)[:2] == (0, f"{clear.text}\n")
    code, out, _ = speechrnn("transcribe", clear.path, other, "--model", model)
    first, second = out.splitlines()
    assert (code, first) == (0, f"{clear.path}\t{clear.text}")
    assert second.startswith(f"{other}\t")


def test_transcribe_gives_json_with_words_and_times(speechrnn, model, clear):
    code, out, _ = speechrnn("transcribe", clear.path, "--model", model, "--json")
    (heard,) = json.loads(out)
    assert (code, heard["path"], heard["text"]) == (0, str(clear.path), clear.text)
    assert [word["text"] for word in heard["words"]] == clear.text.split()
    assert heard["duration_s"] == pytest.approx(soundfile.info(clear.path).duration)
    times = [time for word in heard["words"] for time in (word["start_s"], word["end_s"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= heard["duration_s"]
    assert 0 < heard["confidence"] <= 1


@pytest.mark.parametrize("form", ["int8", "savedmodel"])
def test_an_exported_model_knows_when_its_words_begin(forms, whistles, form):
    """A whistled recording begins with 0.1 s of silence, and ends with 0.08 s."""
    recogniser = open_model(forms[form])
    assert recogniser.habits.timing is not None
    for utterance in [u for u in manifest.read(whistles) if u.split == "dev"]:
        words = recogniser.align(utterance.path, utterance.text).words
        seconds = soundfile.info(utterance.path).duration
        assert words[0].start_s == pytest.approx(0.1, abs=0.02)
        assert words[-1].end_s == pytest.approx(seconds - 0.08, abs=0.02)


def test_timestamps_put_each_word_on_a_line(speechrnn, model, clear):
    code, out, _ = speechrnn("transcribe", clear.path, "--model", model, "--timestamps")
    text, *lines = out.splitlines()
    assert (code, text) == (0, clear.text)
    words = [line.split() for line in lines]
    assert [word for _, _, word in words] == clear.text.split()
    assert all(0 <= float(start) < float(end) for start, end, _ in words)


def test_containers_rates_channels_and_sample_widths_do_not_matter(
    speechrnn, forms, clear, tmp_path
):
    wave, _ = soundfile.read(clear.path, dtype="float32")
    faster = soxr.resample(wave, RATE, 44_100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], axis=1), RATE)
    soundfile.write(tmp_path / "double.wav", wave, RATE, subtype="DOUBLE")
    soundfile.write(tmp_path / "telephone.wav", wave, RATE, subtype="ULAW")
    soundfile.write(tmp_path / "44100.flac", faster, 44_100)
    soundfile.write(tmp_path / "compact.mp3", faster, 44_100, format="MP3", compression_level=0)
    soundfile.write(tmp_path / "compact.ogg", wave, RATE, format="OGG", compression_level=0)
    paths = sorted(tmp_path.iterdir())
    for form in ("run", "savedmodel", "int8"):
        code, out, _ = speechrnn("transcribe", *paths, "--model", forms[form], "--json")
        assert code == 0
        texts = {Path(heard["path"]).name: heard["text"] for heard in json.loads(out)}
        assert texts == {path.name: clear.text for path in paths}, form


def test_eight_bits_are_heard_as_they_are_decoded(speechrnn, forms, clear, tmp_path):
    """Their noise, 50 dB below full scale, may well be heard as something else."""
    wave, _ = soundfile.read(clear.path, dtype="float32")
    soundfile.write(tmp_path / "8bit.wav", wave, RATE, subtype="PCM_U8")
    content = (tmp_path / "8bit.wav").read_bytes()[44 : 44 + len(wave)]  # behind WAV's header
    decoded = np.frombuffer(content, np.uint8) - 128.0
    expected = Recognizer(forms["int8"]).transcribe(decoded / 128).text
    code, out, _ = speechrnn("transcribe", tmp_path / "8bit.wav", "--model", forms["int8"])
    assert (code, out) == (0, f"{expected}\n")


def test_benchmark_measures_a_process_of_its_own(speechrnn, forms):
    arguments = ("--seconds", 1, "--runs", 2)
    code, out, err = speechrnn("benchmark", forms["int8"], "--json", *arguments)
    assert code == 0, err
    cost = json.loads(out)
    assert cost["size_bytes"] == forms["int8"].stat().st_size
    assert cost["load_s"] > 0 and cost["real_time_factor"] > 0
    # LiteRT and NumPy take some 60 MB; this process, with TensorFlow, several hundred.
    assert 20e6 < cost["peak_rss_bytes"] < 300e6
    assert "real-time factor" in speechrnn("benchmark", forms["int8"], *arguments)[1]


def test_info_describes_models_runs_and_manifests(speechrnn, forms, trained, whistles):
    cell = recipe.load(trained / "recipe.yaml").model.cell
    for name, path in forms.items():
        code, out, _ = speechrnn("info", path, "--json")
        facts = json.loads(out)
        kind = name if name in ("run", "savedmodel") else "tflite"
        assert (code, facts["kind"], facts["alphabet"], facts["cell"]) == (0, kind, " abcd", cell)
        assert facts["name"] == "whistles" and facts["size_bytes"] > 0
    code, out, _ = speechrnn("info", whistles, "--json")
    facts = json.loads(out)
    assert (code, facts["kind"], facts["utterances"]) == (0, "manifest", 72)
    assert facts["split dev"] == "12 utterances, 3 speakers"
    assert "whistles" in speechrnn("info", trained)[1]


def test_synth_speaks_a_corpus(speechrnn, tmp_path):
    pytest.importorskip("espeakng_loader", reason="the extra [synth] is not installed")
    (tmp_path / "phrases.txt").write_text("yes\nno\tdev\n")
    out = tmp_path / "corpus"
    code, printed, err = speechrnn("synth", tmp_path / "phrases.txt", out, "--per-phrase", 1)
    assert (code, printed) == (0, f"{out / 'manifest.tsv'}\n"), err
    spoken = manifest.read(out / "manifest.tsv")
    assert [(u.text, u.split) for u in spoken] == [("yes", "train"), ("no", "dev")]
    assert all(soundfile.info(u.path).duration > 0.2 for u in spoken)


def test_record_asks_for_phrases_and_keeps_them(speechrnn, tmp_path, monkeypatch):
    class Microphone:
        sample_rate = RATE

        def __init__(self, name):
            assert name == "usb"

        def start(self):
            pass

        def stop(self):
            return whistle("abc", seed=0)

    monkeypatch.setattr("speechrnn.corpora.record.SoundDevice", Microphone)
    (tmp_path / "phrases.txt").write_text("abc\nbad\ncab\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n" + "s\n" + "\n\n"))
    command = ("record", tmp_path / "phrases.txt", tmp_path / "voice", "--speaker", "ada")
    code, out, err = speechrnn(*command, "--device", "usb")
    assert (code, out) == (0, f"{tmp_path / 'voice' / 'manifest.tsv'}\n")
    assert "bad" in err and "2 recorded, 1 still to record" in err
    recorded = manifest.read(tmp_path / "voice" / "manifest.tsv")
    assert [(u.text, u.speaker) for u in recorded] == [("abc", "ada"), ("cab", "ada")]


# Bad recordings, transcripts and manifests


def spoil(folder):
    """Recordings that cannot be used -> what the message about each says, by path."""
    wave = np.concatenate([whistle("abcd", seed) for seed in range(4)])
    soundfile.write(folder / "whole.flac", wave, RATE)
    flac = (folder / "whole.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no recording\n" * 100)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    for rate in (0, 1000):
        soundfile.write(folder / f"{rate}hz.wav", wave, RATE)
        content = bytearray((folder / f"{rate}hz.wav").read_bytes())
        content[24:28] = rate.to_bytes(4, "little")  # where WAV's header has it
        (folder / f"{rate}hz.wav").write_bytes(content)
    said = {
        "missing.wav": "does not exist",
        "empty.wav": "empty file",
        "text.wav": "no recording that can be read",
        "truncated.flac": "truncated",
        "nan.wav": "NaN",
        "0hz.wav": "0 Hz",
        "1000hz.wav": "1000 Hz",
    }
    return {folder / name: words for name, words in said.items()}


def test_transcribe_does_what_it_can_and_reports_the_rest(
    speechrnn, model, clear, whistles, tmp_path
):
    bad = spoil(tmp_path)
    other = manifest.read(whistles)[0].path
    paths = [clear.path, *bad, other]
    code, out, err = speechrnn("transcribe", *paths, "--model", model, "--json")
    assert code == 3
    results = {Path(result["path"]): result for result in json.loads(out)}
    assert list(results) == paths
    assert results[clear.path]["text"] == clear.text
    assert results[other]["text"]
    for path, words in bad.items():
        assert results[path]["text"] is None
        assert str(path) in results[path]["error"] and words in results[path]["error"]
        assert results[path]["error"] in err
    assert "7 of 9 recordings could not be transcribed" in err

    code, out, err = speechrnn("transcribe", *paths, "--model", model)
    assert code == 3 and len(out.splitlines()) == 2
    assert out.startswith(f"{clear.path}\t{clear.text}\n") and "Traceback" not in err


def test_a_silent_recording_has_no_text(speechrnn, forms, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    for form in ("run", "savedmodel", "int8"):
        code, out, err = speechrnn("transcribe", tmp_path / "silent.wav", "--model", forms[form])
        assert (code, out) == (0, "\n")
        assert "silent.wav: nothing was heard" in err


def test_prepare_rejects_by_name_and_a_training_on_the_rest_works(
    speechrnn, whistles, tmp_path, threads
):
    utterances = manifest.read(whistles)
    good = [*utterances[:24], *utterances[-4:]]
    reasons = {
        "missing.wav": "missing",
        "empty.wav": "empty",
        "text.wav": "unreadable",
        "truncated.flac": "truncated",
        "nan.wav": "non_finite",
        "0hz.wav": "sample_rate",
        "1000hz.wav": "sample_rate",
        "silent.wav": "silent",
    }
    spoil(tmp_path)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    bad = [Utterance(name, tmp_path / name, "ab", "train") for name in reasons]
    bad += [
        Utterance("foreign", good[0].path, "ab é", "train"),
        Utterance("endless", good[0].path, "abcd " * 50, "train"),
        Utterance(good[1].utterance_id, good[2].path, "ab", "train"),
    ]
    reasons |= {"foreign": "unknown_character", "endless": "too_many_labels"}
    reasons |= {good[1].utterance_id: "duplicate_id"}
    manifest.write(tmp_path / "manifest.tsv", [*good, *bad])
    path = write_recipe(tmp_path, tmp_path / "manifest.tsv")

    arguments = (path, "data.alphabet=' abcd'", "training.epochs=1")
    code, out, err = speechrnn("prepare", *arguments)
    assert code == 3
    assert [line.split(",")[0] for line in out.splitlines()] == [
        "dev: 4 utterances",
        "train: 24 utterances",
    ]
    report = {each.utterance_id: each.reason for each in rejections(tmp_path / "run" / "prepared")}
    assert report == reasons
    for name, reason in reasons.items():
        assert f"rejected {name} ({reason}): " in err
    assert "11 utterances were rejected" in err and "report.tsv" in err

    code, out, err = speechrnn("train", *arguments)
    assert code == 0, err
    assert "after epoch 1" in out
    assert "2 sample_rate" in err and "report.tsv" in err


def test_evaluate_scores_what_it_can_and_exits_3(speechrnn, model, clear, tmp_path):
    lost = Utterance("lost", tmp_path / "lost.wav", "ab", "dev")
    manifest.write(tmp_path / "manifest.tsv", [clear, lost])
    code, out, err = speechrnn("evaluate", model, tmp_path / "manifest.tsv", "--json")
    result = json.loads(out)
    assert (code, result["utterances"], result["wer"]) == (3, 1, 0)
    assert [failure["utterance_id"] for failure in result["failures"]] == ["lost"]
    assert "1 recordings could not be transcribed" in err


def test_evaluate_names_the_splits_that_there_are(speechrnn, model, whistles):
    code, out, err = speechrnn("evaluate", model, whistles, "--split", "eval")
    assert (code, out) == (3, "")
    assert "no split 'eval'; it has dev, train" in err


def test_a_manifest_without_its_columns_names_what_it_needs(speechrnn, model, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("recording,words\na.wav,ab\n")
    path = write_recipe(tmp_path, bad)
    for command in (("prepare", path), ("evaluate", model, bad), ("info", bad)):
        code, out, err = speechrnn(*command)
        assert (code, out) == (3, ""), command
        assert str(bad) in err and "text (or transcript" in err


# Bad calls


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_an_unknown_recipe_key_names_the_nearest(speechrnn, whistles, tmp_path, command):
    path = write_recipe(tmp_path, whistles)
    code, out, err = speechrnn(command, path, "training.epoch=3")
    assert (code, out) == (2, "")
    assert "unknown key training.epoch; did you mean training.epochs?" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "nothing.yaml"], "cannot read the recipe nothing.yaml"),
        (["export", "run", "out", "--format", "onnx"], "choose tflite or savedmodel"),
        (["export", "run", "out", "--precision", "int4"], "choose float32, float16 or int8"),
        (["evaluate", "model.tflite"], "manifest"),
        (["benchmark", "model.tflite", "--runs", "0"], "--runs"),
        (["sing"], "sing"),
    ],
)
def test_a_wrong_call_is_a_usage_error(speechrnn, monkeypatch, arguments, words):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = speechrnn(*arguments)
    assert (code, out) == (2, "")
    assert words in err.lower()


# Bad models


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage(kind, forms, folder):
    """A model at ``folder`` / "model..." that must be refused."""
    file, directory = folder / "model.tflite", folder / "model"
    whole = forms["int8"].read_bytes()
    if kind == "empty file":
        file.touch()
    elif kind == "text file":
        file.write_text("this is no model\n" * 100)
    elif kind == "cut file":
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "flipped file":
        file.write_bytes(whole)
        flip(file)
    elif kind == "foreign file":  # a sound TFLite file, not of `speechrnn export`
        file.write_bytes(container.read(forms["int8"]).model_bytes)
    elif kind == "unreadable file":
        file.write_bytes(whole)
        file.chmod(0)
    elif kind == "empty folder":
        directory.mkdir()
    elif kind == "flipped SavedModel":
        shutil.copytree(forms["savedmodel"], directory)
        flip(next(directory.glob("variables/*.data*")))
    elif kind == "foreign SavedModel":
        directory.mkdir()
        (directory / "saved_model.pb").write_bytes(b"graph")
    elif kind.endswith("run"):
        directory.mkdir()
        for part in [forms["run"] / "model.json", *forms["run"].glob("weights-*.npz")]:
            shutil.copy(part, directory)
        if kind == "flipped run":
            flip(next(directory.glob("weights-*.npz")))
        else:
            description = json.loads((directory / "model.json").read_text())
            if kind == "other run":
                description["spec"]["model"]["units"] += 1
            else:
                del description["spec"]
            (directory / "model.json").write_bytes(files.sealed(description))
    return directory if directory.exists() else file


DAMAGED = (
    *("missing file", "empty file", "text file", "cut file", "flipped file"),
    *("unreadable file", "empty folder", "flipped SavedModel", "foreign SavedModel"),
    *("flipped run", "other run", "incomplete run"),
)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_bad_model_is_refused_by_every_command(speechrnn, forms, whistles, tmp_path, kind):
    if kind == "unreadable file" and os.geteuid() == 0:
        pytest.skip("nothing is unreadable to root")
    path = damage(kind, forms, tmp_path)
    recording = manifest.read(whistles)[0].path
    calls = [
        ("evaluate", path, whistles),
        ("transcribe", recording, "--model", path),
        ("export", path, tmp_path / "out.tflite"),
        ("info", path),
    ]
    for call in calls:
        code, out, err = speechrnn(*call)
        assert (code, out) == (4, ""), call
        assert str(path) in err and "Traceback" not in err
    assert not (tmp_path / "out.tflite").exists()


def test_benchmark_says_why_it_cannot_open_a_model(speechrnn, forms, tmp_path):
    path = damage("cut file", forms, tmp_path)
    code, out, err = speechrnn("benchmark", path)
    assert (code, out) == (4, "")
    assert f"{path} ends without speechrnn's checksum" in err and "Traceback" not in err


# Missing extras


def without(packages, *arguments):
    """The command in a process that cannot import ``packages``."""
    block = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); "
    run = "from speechrnn import cli; cli.main()"
    return subprocess.run(
        [sys.executable, "-c", block + run, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )


TRAINING = ["tensorflow", "keras", "librosa", "jiwer", "yaml"]  # typer brings pydantic along


@pytest.mark.parametrize(
    "command", ["prepare", "train", "evaluate", "export", "transcribe", "info"]
)
def test_a_command_without_its_extra_names_it(trained, whistles, tmp_path, command):
    recording = manifest.read(whistles)[0].path
    arguments = {
        "prepare": [trained.parent / "recipe.yaml"],
        "train": [trained.parent / "recipe.yaml"],
        "evaluate": [trained, whistles],
        "export": [trained, tmp_path / "out.tflite"],
        "transcribe": [recording, "--model", trained],
        "info": [trained],
    }
    done = without(TRAINING, command, *arguments[command])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith('needs the extra [train]: pip install "speechrnn[train]"\n')


def test_benchmarking_a_run_without_tensorflow_is_an_error_of_usage(trained):
    # What is measured is a process of its own, which must say so to the one that started it.
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({TRAINING!r}))\n"
        "from speechrnn.runtime import benchmark_process\n"
        "sys.exit(benchmark_process.main(0.0, sys.argv[1], '1'))"
    )
    command = [sys.executable, "-c", script, str(trained)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2
    assert "needs the extra [train]" in json.loads(done.stdout)["error"]


def test_training_without_tensorflow_alone_names_the_extra(trained):
    done = without(["tensorflow"], "train", trained.parent / "recipe.yaml")
    assert done.returncode == 2
    assert 'training needs the extra [train]: pip install "speechrnn[train]"' in done.stderr


def test_a_device_file_is_transcribed_without_the_training_side(model, clear):
    done = without(TRAINING, "transcribe", clear.path, "--model", model)
    assert (done.returncode, done.stdout) == (0, f"{clear.text}\n"), done.stderr


def test_preparing_on_beam_without_it_names_the_extra(tmp_path, whistles):
    done = without(
        ["apache_beam"], "prepare", write_recipe(tmp_path, whistles), "--runner", "FnApiRunner"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "speechrnn[beam]"' in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("synth", "espeakng_loader", "synth"), ("record", "sounddevice", "microphone")],
)
def test_synth_and_record_name_their_extras(tmp_path, command, package, extra):
    (tmp_path / "phrases.txt").write_text("yes\n")
    done = without([package], command, tmp_path / "phrases.txt", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert f'pip install "speechrnn[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


# The machine refuses, the user interrupts


def test_an_output_that_cannot_be_written_is_named(speechrnn, trained, whistles, tmp_path):
    file = tmp_path / "file"
    file.touch()
    calls = [
        ("prepare", write_recipe(tmp_path, whistles), f"output={file}/run"),
        ("export", trained, file / "model", "--format", "savedmodel"),
    ]
    for call in calls:
        code, out, err = speechrnn(*call)
        assert (code, out) == (1, "")
        assert "the machine refused: " in err and f"'{file}" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_plainly(speechrnn, whistles, tmp_path, monkeypatch):
    shard = tmp_path / ".full.partial"
    shard.symlink_to("/dev/full")
    monkeypatch.setattr("speechrnn.data.shards._partial", lambda path: shard)
    code, out, err = speechrnn("prepare", write_recipe(tmp_path, whistles))
    assert (code, out) == (1, "")
    assert "No space left on device" in err and "prepare again" in err and "Traceback" not in err


def raising(monkeypatch, error):
    """Let `speechrnn info` meet this error."""

    def fail(path):
        raise error

    monkeypatch.setattr("speechrnn.runtime.describe.describe", fail)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a.npz"),
            "space left on device: 'a.npz'",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "denied: 'runs'"),
        (MemoryError(), "MemoryError"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "OOM when"),
        (tf.errors.PermissionDeniedError(None, None, "runs; Permission denied"), "runs; Perm"),
    ],
)
def test_what_the_machine_refuses_ends_with_1(speechrnn, monkeypatch, error, words):
    raising(monkeypatch, error)
    code, out, err = speechrnn("info", "model")
    assert (code, out) == (1, "")
    assert err.startswith("error: the machine refused: ") and words in err
    assert "Traceback" not in err


def test_an_error_of_our_own_making_keeps_its_traceback(speechrnn, monkeypatch):
    raising(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        speechrnn("info", "model")


def test_an_interrupt_ends_quietly_with_130(speechrnn, monkeypatch):
    raising(monkeypatch, KeyboardInterrupt())
    assert speechrnn("info", "model") == (130, "", "")


# Help


def test_every_command_is_listed_here():
    group = typer.main.get_command(cli.app)
    assert set(group.commands) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_are_valid_calls(command):
    found = typer.main.get_command(cli.app).commands[command]
    title, *lines = found.epilog.split("\n\n")
    assert title == "Examples:" and lines
    for line in lines:
        _, _, call = line.partition(" > ")[0].rpartition(" | ")  # what the shell does with it
        program, name, *arguments = call.split()
        assert (program, name) == ("speechrnn", command)
        context = found.make_context(name, arguments)  # parses; an invalid call raises
        for override in context.params.get("overrides") or []:
            recipe.load(REPOSITORY / "configs" / "an4.yaml", [override])


HELP = """
import sys
from speechrnn import cli
try:
    cli.main()
finally:
    loaded = {name.split(".")[0] for name in sys.modules}
    print(sorted(loaded & {"tensorflow", "keras", "librosa", "ai_edge_litert"}), file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-c", HELP, *command.split(), "--help"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "Examples:" in done.stdout or not command


def test_info_shows_a_prepared_corpus_and_its_utterances(trained, speechrnn):
    code, out, _ = speechrnn("info", trained / "prepared", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["kind"] == "prepared corpus"
    assert facts["split dev"].startswith("12 utterances, 3 speakers, 0.0")
    assert facts["alphabet"] == " abcd" and facts["rejected"] == {}
    assert facts["size_bytes"] == sum(
        path.stat().st_size for path in (trained / "prepared").glob("*.tfrecord")
    )
    code, out, _ = speechrnn("info", trained / "prepared", "--rows")
    header, *lines = (line.split("\t") for line in out.splitlines())
    found = [dict(zip(header, line, strict=True)) for line in lines]
    assert code == 0 and len(found) == 72
    assert found[0]["utterance_id"] == "u000" and found[0]["split"] == "train"
    for each in found:
        assert float(each["duration_s"]) == pytest.approx(int(each["samples"]) / 16_000, abs=1e-3)
    assert speechrnn("info", trained, "--rows")[0] == 3
