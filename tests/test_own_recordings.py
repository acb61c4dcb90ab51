"""One's own recordings: a shipped recipe, with data.manifest changed, takes them all the way."""

from __future__ import annotations

import csv
import json

import pytest
import soundfile
import soxr
from conftest import RATE, REPOSITORY

from speechrnn.corpora import manifest
from speechrnn.data.index import Index

RATES = (8_000, 16_000, 22_050, 44_100, 48_000)

# Not what the promise is about: so that it takes seconds.
QUICKLY = ("model.units=32", "training.epochs=15", "data.batch_seconds=10", "data.workers=1")


@pytest.fixture
def clips(whistles, tmp_path):
    """(path below tmp_path, text) of whistled recordings at many sample rates."""
    (tmp_path / "my clips").mkdir()
    listed = []
    for number, utterance in enumerate(manifest.read(whistles)):
        wave, _ = soundfile.read(utterance.path)
        rate = RATES[number % len(RATES)]
        path = tmp_path / "my clips" / f"take {number}.wav"
        soundfile.write(path, soxr.resample(wave, RATE, rate), rate)
        listed.append((path.relative_to(tmp_path), utterance.text))
    return listed


@pytest.fixture
def threads(monkeypatch):
    """TensorFlow's threads have started in this process; a command of its own would set them."""
    monkeypatch.setattr("speechrnn.training.threads.configure", lambda threads: None)


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.long
def test_a_plain_csv_goes_all_the_way_with_a_shipped_recipe(speechrnn, clips, tmp_path, threads):
    mine = write_csv(tmp_path / "mine.csv", ["path", "text"], clips)
    run, device = tmp_path / "run", tmp_path / "mine.tflite"
    recipe = (REPOSITORY / "configs" / "quickstart.yaml", f"data.manifest={mine}")
    recipe += (f"output={run}", *QUICKLY)

    code, out, err = speechrnn("prepare", *recipe)
    assert code == 0, err
    index = Index.load(run / "prepared")
    assert len(index.rows) == len(clips) == 72
    dev = {row.utterance_id: row.text for row in index.split("dev")}

    code, out, err = speechrnn("train", *recipe, "--quiet")
    assert code == 0, err
    assert "after epoch" in out

    code, out, err = speechrnn("evaluate", run, mine, "--split", "dev", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {score["utterance_id"]: score["reference"] for score in result["scores"]} == dev
    trained = json.loads((run / "model.json").read_text())["card"]["dev"]
    # The run's own validation heard 16-bit copies at 16 kHz, this the files: a word may differ.
    assert abs(result["wer"] - trained["wer"]) <= 1 / result["words"]
    assert result["cer"] < 0.7  # of four letters, and 1 for silence: it has begun to learn

    assert speechrnn("export", run, device, "--precision", "float32")[0] == 0
    paths = [tmp_path / f"{name}.wav" for name in dev]
    code, out, err = speechrnn("transcribe", *paths, "--model", device, "--json")
    assert code == 0, err
    heard = [transcript["text"] for transcript in json.loads(out)]
    hypotheses = {score["utterance_id"]: score["hypothesis"] for score in result["scores"]}
    assert heard == [hypotheses[name] for name in dev]
    assert any(heard)


def test_a_deepspeech_csv_is_prepared_as_it_is(speechrnn, clips, tmp_path):
    rows = [(path, (tmp_path / path).stat().st_size, text.upper()) for path, text in clips[:20]]
    header = ["wav_filename", "wav_filesize", "transcript"]
    path = write_csv(tmp_path / "train.csv", header, rows)
    recipe = REPOSITORY / "configs" / "an4.yaml"
    changes = (f"data.manifest={path}", f"output={tmp_path / 'run'}", "data.workers=1")
    code, _, err = speechrnn("prepare", recipe, *changes)
    assert code == 0, err
    index = Index.load(tmp_path / "run" / "prepared")
    assert {row.utterance_id: row.text for row in index.rows} == {
        str(path.with_suffix("")): text for path, text in clips[:20]
    }
    assert index.splits == ["dev", "train"]
    for row in index.rows:
        duration = soundfile.info(tmp_path / f"{row.utterance_id}.wav").duration
        assert row.samples == pytest.approx(duration * RATE, abs=RATE / min(RATES))
