"""The pipelines of LibriSpeech and of AN4 from it: recordings, settings, table and curve."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY, write_recipe

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import DataError, RecipeError, SpeechRNNError, UsageError
from speechrnn.training import initial, run

PIPELINES = REPOSITORY / "pipelines"


@pytest.fixture
def script(monkeypatch):
    """A script of the folder as a module, by name."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    yield importlib.import_module
    for path in PIPELINES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def study(script, whistles, trained, tmp_path):
    """study(...) -> a study on whistles, of an epoch from either start; changes by name."""
    path = write_recipe(tmp_path, whistles)

    def make(**changes):
        given = {
            "recipe_file": path,
            "output": tmp_path / "rows",
            "manifest": whistles,
            "pretrained": trained,
            "epochs": (1, 1),
            "jobs": 1,
            "overrides": (),
        }
        return script("transfer_rows").Study(**{**given, **changes})

    return make


# Which recordings


def utterances(speakers, each):
    """So many of every speaker, of a second each."""
    return [
        Utterance(f"{s}-{n}", REPOSITORY / "none.wav", "a", "train", s, duration_s=1.0)
        for s in speakers
        for n in range(each)
    ]


def test_recordings_are_taken_in_rounds_of_all_speakers(script):
    listed = [*utterances("abc", 4), *utterances("d", 2)]
    order = script("transfer_rows").drawn(listed)
    assert sorted(u.utterance_id for u in order) == sorted(u.utterance_id for u in listed)
    speakers = ["".join(sorted(u.speaker for u in order[i : i + 4])) for i in (0, 4)]
    assert speakers == ["abcd", "abcd"]
    assert sorted(u.speaker for u in order[8:11]) == ["a", "b", "c"]
    assert order != sorted(order, key=lambda u: u.utterance_id), "the order is drawn"


def test_the_order_does_not_depend_on_the_manifests(script):
    listed = utterances("abc", 5)
    drawn = script("transfer_rows").drawn
    assert drawn(reversed(listed)) == drawn(listed)


def test_fewer_minutes_are_within_more_and_no_longer_than_asked(script, study):
    found, seconds = study(), script("transfer_rows").seconds_of
    names = {m: [u.utterance_id for u in found.subset(m)] for m in ("0.2", "0.5", "all")}
    assert names["0.5"][: len(names["0.2"])] == names["0.2"]
    assert set(names["0.5"]) < set(names["all"])
    assert len(names["all"]) == 60
    for minutes in ("0.2", "0.5"):
        total = sum(map(seconds, found.subset(minutes)))
        longest = max(map(seconds, found.training))
        assert 60 * float(minutes) - longest < total <= 60 * float(minutes)
    with pytest.raises(RecipeError, match="no recording is as short"):
        found.subset("0.0001")
    with pytest.raises(RecipeError, match="fewer than 40 minutes; name them all"):
        found.subset("40")


def test_dev_is_whole_and_the_alphabet_that_of_all_recordings(script, study):
    found = study()
    found.write_corpus("0.2")
    listed = manifest.read(found.corpus("0.2"))
    assert sum(u.split == "dev" for u in listed) == 12
    row = script("transfer_rows").Row("0.2", "scratch", 1)
    assert found.recipe_of(row).data.alphabet == " abcd"


def test_every_number_of_minutes_has_as_many_updates(script, study):
    """To the rounding of epochs and of batches: seconds of audio by those of a batch."""
    found, seconds = study(epochs=(40, 12)), script("transfer_rows").seconds_of
    for init, epochs in (("scratch", 40), ("pretrained", 12)):
        updates = []
        for minutes in ("all", "0.5", "0.2"):
            settings = found.recipe_of(script("transfer_rows").Row(minutes, init, 1))
            total = sum(map(seconds, found.subset(minutes)))
            updates.append(settings.training.epochs * total / settings.data.batch_seconds)
            assert settings.training.validate_every_epochs == settings.training.epochs
        assert updates[0] == pytest.approx(epochs * sum(map(seconds, found.training)) / 6)
        np.testing.assert_allclose(updates, updates[0], rtol=0.1)


def test_the_recipes_of_the_repository_fit_each_other():
    """A training of configs/an4.yaml can start from a model of configs/librispeech.yaml."""
    an4, librispeech = (
        recipe.load(REPOSITORY / "configs" / f"{name}.yaml") for name in ("an4", "librispeech")
    )
    assert an4.features == librispeech.features
    free = dict.fromkeys(initial.FREE)
    models = [{**dataclasses.asdict(each.model), **free} for each in (an4, librispeech)]
    assert models[0] == models[1]


# Trainings


@pytest.fixture
def here(script, monkeypatch):
    """Trainings in this process, rather than in one each."""
    transfer = script("transfer")
    monkeypatch.setattr("speechrnn.training.threads.configure", lambda threads: None)

    def run_here(jobs, at_once, begun, done):
        for folder, _ in jobs:
            begun(folder)
            transfer.train_one(folder)
            done(folder, 0)

    monkeypatch.setattr(transfer.jobs, "run", run_here)
    return transfer


def test_what_is_trained_is_a_line_and_is_not_trained_again(
    here, script, study, tmp_path, monkeypatch
):
    row = script("transfer_rows").Row("0.5", "pretrained", 1)
    found, file = study(), tmp_path / "results" / "transfer.jsonl"
    here.train_missing(found, [row], file, [])
    [line] = [json.loads(line) for line in file.read_text().splitlines()]
    card = run.load(found.recipe_of(row).output).card
    assert card["init_from"]["sha256"].startswith(line["pretrained"])
    assert card["epoch"] == line["epochs"], "the last epoch's, and no chosen one"
    assert line["wer"] == card["dev"]["wer"] and line["wer_ci95"] == card["dev"]["wer_ci95"]
    errors, words = np.sum([*line["by_speaker"].values()], axis=0)
    assert errors / words == line["wer"] and len(line["by_speaker"]) == 3
    assert line["utterances"] == len(found.subset("0.5"))

    monkeypatch.setattr(here, "train_one", lambda folder: 1 / 0)
    here.train_missing(found, [row], file, [])
    for changed in (study(epochs=(1, 2)), study(overrides=("model.dropout=0.2",))):
        with pytest.raises(RecipeError, match="other settings"):
            here.train_missing(changed, [row], file, [])
    file.write_text(json.dumps({**line, "pretrained": "another"}) + "\n")
    with pytest.raises(RecipeError, match="from another model"):
        here.train_missing(found, [row], file, [])


def test_a_training_from_scratch_starts_from_nothing(script, study):
    row = script("transfer_rows").Row("0.5", "scratch", 3)
    settings = study(pretrained=None).recipe_of(row)
    assert settings.training.init_from is None and settings.seed == 3


def test_settings_are_not_where_things_lie_nor_how_many_threads_there_are(study, tmp_path):
    one = study().settings
    assert study(output=tmp_path / "elsewhere", jobs=2).settings == one
    assert study(overrides=("training.threads=1", "name=other")).settings == one
    assert study(overrides=("training.learning_rate=0.02",)).settings != one
    assert study(overrides=("augment.time_masks=0",)).settings != one


def test_a_training_that_fails_is_named_and_the_others_are_kept(script, study, tmp_path):
    rows, transfer = script("transfer_rows"), script("transfer")
    file = tmp_path / "transfer.jsonl"
    with pytest.raises(SpeechRNNError, match=r"not trained: 0\.2-scratch-1"):
        transfer.train_missing(study(), [rows.Row("0.2", "scratch", 1)], file, ["false"])
    assert not file.exists()


@pytest.mark.long
@pytest.mark.timeout(900)  # five starts of TensorFlow, on a machine that may be busy
def test_the_command_goes_on_where_it_was_stopped(whistles, trained, tmp_path):
    path = write_recipe(tmp_path, whistles, training={"checkpoint_every_seconds": 0.1})
    (tmp_path / "page.md").write_text("<!-- transfer: begin --><!-- transfer: end -->\n")
    command = [sys.executable, str(PIPELINES / "transfer.py"), "--minutes", "0.5", "--jobs", "2"]
    for name, value in {
        "pretrained": trained, "recipe": path, "data": whistles, "output": tmp_path / "rows",
        "results": tmp_path / "transfer.jsonl", "page": tmp_path / "page.md", "epochs": "14,2",
    }.items():  # fmt: skip
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 200
    while not [*tmp_path.glob("rows/*/0.5-scratch-1/run/checkpoints/step-*")]:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 143
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [log] = tmp_path.glob("rows/*/0.5-scratch-1/log.txt")
    assert "going on from epoch" in log.read_text()
    assert "updates" in done.stdout.lower() and "from scratch" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "images" / "transfer.png").stat().st_size > 10_000


# The table


def line(minutes, init, errors, seed=1, words=50, **changes):
    told = {
        "minutes": f"{minutes:g}", "init": init, "seed": seed, "settings": "s",
        "pretrained": "p" if init == "pretrained" else None, "audio_minutes": minutes,
        "utterances": 10, "speakers": 3, "cer": 0.1, "training_seconds": 90.0, "updates": 1000,
        "audio_seconds_per_second": 80.0, "threads": 1,
        "by_speaker": {f"s{i}": [each, words] for i, each in enumerate(errors)},
        "wer": sum(errors) / words / len(errors),
    }  # fmt: skip
    return {**told, **changes}


def lines_of_two():
    scratch, pretrained = (40, 30, 35, 20), (20, 12, 15, 8)
    return [
        *(line(m, "scratch", [math.ceil(e * 5 / m) for e in scratch]) for m in (5, 10, 37)),
        *(line(m, "pretrained", [math.ceil(e * 5 / m) for e in pretrained]) for m in (5, 10, 37)),
    ]


def test_the_table_has_a_row_for_each_number_of_minutes(script):
    page = script("transfer_page")
    table = page.markdown(page.points(lines_of_two())).splitlines()
    assert [row.split("|")[1].strip() for row in table[2:5]] == ["5", "10", "37"]
    # (20 + 12 + 15 + 8) and (40 + 30 + 35 + 20) errors in 200 words
    assert "| 62.5 % (" in table[2] and "| 27.5 % (" in table[2] and "| -35.0 (" in table[2]


def test_the_difference_is_taken_over_the_same_speakers(script):
    """Each speaker has ten errors fewer: the difference is certain, however speakers are drawn,
    although each rate is not."""
    page = script("transfer_page")
    one = page.Point("pretrained", (line(5, "pretrained", [0, 10, 30]),))
    other = page.Point("scratch", (line(5, "scratch", [10, 20, 40]),))
    np.testing.assert_allclose(page.rates.difference(one.units, other.units), [-0.2, -0.2, -0.2])
    low, high = one.interval
    assert high - low > 0.2


def test_no_difference_is_taken_between_other_seeds(script):
    """While one of the trainings is missing, or where one was made alone."""
    page = script("transfer_page")
    lines = [line(5, "scratch", [10, 20]), line(5, "pretrained", [5, 10])]
    assert "| -15.0 (" in page.markdown(page.points(lines))
    lines.append(line(5, "scratch", [10, 20], seed=2))
    assert "| – |" in page.markdown(page.points(lines))


def test_seeds_are_pooled_by_speaker(script):
    page = script("transfer_page")
    both = [line(5, "scratch", [4, 8], seed=1), line(5, "scratch", [8, 16], seed=2)]
    [point] = page.points(both)
    assert point.units.tolist() == [[12, 100], [24, 100]]
    assert point.wer == 0.18


@pytest.mark.parametrize("changes", [{"settings": "other"}, {"pretrained": "other"}])
def test_results_of_different_settings_make_no_table(script, changes):
    lines = [*lines_of_two(), line(20, "pretrained", [1, 2], **changes)]
    with pytest.raises(DataError, match="make no table"):
        script("transfer_page").points(lines)


def test_table_and_curve_go_into_the_page(script, tmp_path, capsys):
    page, file = script("transfer_page"), tmp_path / "transfer.jsonl"
    for each in lines_of_two():
        script("trainings.results").append(file, each)
    path = tmp_path / "transfer.md"
    path.write_text(f"Before.\n{page.BEGIN}\nold\n{page.END}\nBehind.\n")
    page.write(file, path)
    capsys.readouterr()
    page.write(file, path)
    printed, text = capsys.readouterr().out, path.read_text()
    assert text.startswith("Before.\n") and text.endswith("\nBehind.\n") and "old" not in text
    assert text.count("| 37 |") == 1
    assert text.split(page.BEGIN)[1].split(page.END)[0].strip() == printed.strip()
    assert (tmp_path / "images" / "transfer.png").read_bytes().startswith(b"\x89PNG")
    path.write_text("no marks")
    with pytest.raises(DataError, match="has no lines"):
        page.write(file, path)
    with file.open("a") as more:
        more.write('{"minutes": 5}\n')
    with pytest.raises(DataError, match="line 7 is no result"):
        page.write(file, path)


def test_the_curve_draws_each_start_over_its_minutes(script):
    page = script("transfer_page")
    axes = page.plot(page.points(lines_of_two())).axes[0]
    drawn = {text.get_text() for text in axes.get_legend().get_texts()}
    assert drawn == {"from scratch", "from a model of LibriSpeech"}
    for container, first in zip(axes.containers, (62.5, 27.5), strict=True):
        x, y = container.lines[0].get_data()
        assert y[0] == pytest.approx(first) and len(x) == 3
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "37"]


def test_the_page_in_the_repository_is_that_of_the_results(script):
    page = script("transfer_page")
    file = PIPELINES / "results" / "transfer.jsonl"
    table = page.markdown(page.points(script("trainings.results").read(file, page.KEYS)))
    assert f"{page.BEGIN}\n{table}\n{page.END}" in page.PAGE.read_text("utf-8")


# LibriSpeech


def test_librispeech_is_found_or_said_where_to_fetch(script, tmp_path, monkeypatch):
    librispeech = script("librispeech")
    assert librispeech.find("tfds:librispeech") == "tfds:librispeech"
    monkeypatch.setenv("SPEECHRNN_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"openslr\.org/31"):
        librispeech.find(None)
    (tmp_path / "librispeech").mkdir()
    there = tmp_path / "librispeech" / "manifest.tsv"
    there.write_text("")
    assert librispeech.find(None) == str(there)


def test_words_that_no_training_transcript_has_are_counted(script, tmp_path):
    texts = [("train", "ONE two"), ("train", "three"), ("dev", "two four three five")]
    rows = [f"u{i}\tu{i}.wav\t{text}\t{split}" for i, (split, text) in enumerate(texts)]
    path = tmp_path / "manifest.tsv"
    path.write_text("\n".join(["utterance_id\tpath\ttext\tsplit", *rows]) + "\n")
    librispeech = script("librispeech")
    loaded = recipe.load(librispeech.CONFIG, [f"data.manifest={path}"])
    assert librispeech.unknown_words(loaded) == 0.5


@pytest.mark.long
@pytest.mark.timeout(900)
def test_librispeech_is_scored_with_the_lexicon_of_its_training_transcripts(
    script, trained, tmp_path, monkeypatch, capsys
):
    librispeech = script("librispeech")
    monkeypatch.setattr(librispeech, "TRIALS", 2)
    loaded = recipe.load(trained / "recipe.yaml", [f"output={tmp_path}"])
    rows = librispeech.with_language_models(loaded, trained)
    assert [row["name"] for row in rows] == ["greedy", "lexicon", "lexicon and 3-gram"]
    assert rows[0]["wer"] == run.load(trained).card["dev"]["wer"]
    kept = json.loads((tmp_path / "decoding" / "decoding.json").read_bytes())
    assert [row["wer"] for row in kept] == [row["wer"] for row in rows]
    assert "lexicon and 3-gram" in capsys.readouterr().out
