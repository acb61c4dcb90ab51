"""The pipelines' own parts: AN4's archive, the quickstart's corpus, and the summary they write."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from conftest import RATE, REPOSITORY, whistle

from speechrnn import audio, recipe
from speechrnn.corpora import an4, manifest
from speechrnn.corpora.phrases import Phrase
from speechrnn.data.prepare import prepare, rejections
from speechrnn.errors import DataError

PIPELINES = REPOSITORY / "pipelines"


@pytest.fixture
def pipeline(monkeypatch):
    """pipeline("an4"): the script as a module, under a name that is nobody else's."""
    monkeypatch.syspath_prepend(str(PIPELINES))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"pipelines_{name}", PIPELINES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
        spec.loader.exec_module(module)
        return module

    return load


# AN4

# (list, speaker, utterance, transcript) as the archive has them: training lines are marked, test
# lines are not, some end in white space, and hyphens are part of ids.
ARCHIVE = [
    ("train", "fabc", "an251-fabc-b", "<s> ONE TWO </s>"),
    ("train", "mdef", "cen1-mdef-b", "<s> R U B O U T </s>"),
    ("train", "fbbh", "an86-fbbh-b", "<s> JUNE THIRTEENTH </s> "),
    ("test", "mghi", "cen7-mghi-b", "ENTER FORTY"),
]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A miniature of the unpacked archive."""
    monkeypatch.setattr(an4, "SIZES", {"train": 2, "dev": 1, "test": 1})
    folder = tmp_path / "an4"
    (folder / "etc").mkdir(parents=True)
    for part in ("train", "test"):
        mine = [row for row in ARCHIVE if row[0] == part]
        names = [f"an4_clstk/{speaker}/{name}" for _, speaker, name, _ in mine]
        lines = [f"{text} ({name})" for _, _, name, text in reversed(mine)]
        (folder / "etc" / f"an4_{part}.fileids").write_text("\n".join(names) + "\n")
        (folder / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
        for number, name in enumerate(names):
            path = folder / "wav" / f"{name}.sph"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, whistle("abcd", number), RATE, format="NIST", subtype="PCM_16")
    return folder


def test_an4s_lists_become_a_manifest_with_splits_and_speakers(archive):
    path = an4.build_manifest(archive)
    assert path == archive / "manifest.tsv"
    found = [(u.utterance_id, u.text, u.split, u.speaker) for u in manifest.read(path)]
    assert found == [
        ("an251-fabc-b", "one two", "train", "fabc"),
        ("cen1-mdef-b", "r u b o u t", "train", "mdef"),
        ("an86-fbbh-b", "june thirteenth", "dev", "fbbh"),
        ("cen7-mghi-b", "enter forty", "test", "mghi"),
    ]
    for utterance in manifest.read(path):  # SPHERE, as the archive's files are
        assert len(audio.load(utterance.path)) == soundfile.info(utterance.path).frames


def test_an_an4_folder_that_is_not_whole_is_refused(archive, monkeypatch):
    with pytest.raises(DataError, match="no unpacked AN4 archive"):
        an4.build_manifest(archive / "wav")
    recording = next(archive.rglob("cen1-mdef-b.sph"))
    content = recording.read_bytes()
    recording.unlink()
    with pytest.raises(DataError, match="cen1-mdef-b lacks its recording"):
        an4.build_manifest(archive)
    recording.write_bytes(content)
    monkeypatch.undo()  # AN4's true size
    with pytest.raises(DataError, match=r"'train': 2.*'train': 831"):
        an4.build_manifest(archive)
    assert not (archive / "manifest.tsv").exists()


def test_an4_is_found_where_it_is_named(archive, pipeline, tmp_path, monkeypatch):
    script = pipeline("an4")
    monkeypatch.setattr(an4, "download", lambda out: pytest.fail("nothing is to be downloaded"))
    built = script.find_manifest(archive)
    assert built == archive / "manifest.tsv"
    assert script.find_manifest(built) == built
    monkeypatch.setenv("SPEECHRNN_DATA", str(tmp_path))
    assert script.find_manifest(None) == built
    monkeypatch.setattr(an4, "download", lambda out: archive)
    monkeypatch.setenv("SPEECHRNN_DATA", str(tmp_path / "other corpora"))
    assert script.find_manifest(None) == built
    monkeypatch.delenv("SPEECHRNN_DATA")
    assert script.find_manifest(None) == built


def packed(archive, out):
    """The archive as CMU packs it, where a download would put it."""
    out.mkdir()
    path = out / "an4_sphere.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(archive, arcname="an4")
    return path


def test_an_unpacking_that_was_stopped_is_done_again(archive, tmp_path):
    out = tmp_path / "out"
    packed(archive, out)
    left_behind = out / ".an4.partial" / "an4" / "etc"
    left_behind.mkdir(parents=True)
    folder = an4.download(out)
    assert len(manifest.read(an4.build_manifest(folder))) == len(ARCHIVE)
    assert sorted(path.name for path in out.iterdir()) == ["an4", "an4_sphere.tar.gz"]
    (folder / "mark").touch()
    assert (an4.download(out) / "mark").exists()  # what is there is not unpacked again


@pytest.mark.parametrize("keep", [0, 200, -30])
def test_a_damaged_archive_is_named_and_removed(archive, tmp_path, keep):
    path = packed(archive, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="was damaged"):
        an4.download(tmp_path / "out")
    assert not path.exists()
    assert not (tmp_path / "out" / "an4").exists()


def test_an_archive_with_a_false_checksum_is_removed(archive, tmp_path):
    path = packed(archive, tmp_path / "out")
    cut = gzip.decompress(path.read_bytes())[:-11_000]  # read to its end, where the checksum is
    path.write_bytes(gzip.compress(cut)[:-8] + bytes(8))
    with pytest.raises(DataError, match=r"was damaged .*CRC"):
        an4.download(tmp_path / "out")
    assert not path.exists()


def test_every_utterance_of_an4_can_be_prepared(tmp_path):
    if "SPEECHRNN_DATA" not in os.environ:
        pytest.skip("SPEECHRNN_DATA names no folder with an4/manifest.tsv")
    found = Path(os.environ["SPEECHRNN_DATA"]) / "an4" / "manifest.tsv"
    if not found.exists():
        pytest.skip(f"there is no {found}")
    changes = [f"data.manifest={found}", f"output={tmp_path}"]
    index = prepare(recipe.load(REPOSITORY / "configs" / "an4.yaml", changes), progress=False)
    assert rejections(tmp_path / "prepared") == []
    assert {split: len(index.split(split)) for split in index.splits} == {"train": 831, "dev": 117}
    assert index.seconds("train") / 3600 == pytest.approx(0.62, abs=0.01)


# The quickstart


def test_the_quickstart_speaks_its_phrases_once(pipeline, tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader", reason="the extra [synth] is not installed")
    script = pipeline("quickstart")
    said = [
        Phrase("one two", "train", "digits"),
        Phrase("a b", "dev", "letters"),
        Phrase("help me", "test", "commands"),
    ]
    monkeypatch.setattr(script, "phrases", lambda seed: said)
    corpus = tmp_path / "corpus" / "manifest.tsv"
    loaded = recipe.load(script.CONFIG, [f"data.manifest={corpus}", f"output={tmp_path}"])
    script.speak(loaded, script.Console(quiet=True))
    spoken = manifest.read(corpus)
    assert [(u.text, u.split, u.utterance_id.split("-")[0]) for u in spoken] == [
        (phrase.text, phrase.split, phrase.group) for phrase in said
    ]
    before = [(u.path, u.path.stat().st_mtime_ns) for u in spoken]
    script.speak(loaded, script.Console(quiet=True))
    assert [(u.path, u.path.stat().st_mtime_ns) for u in manifest.read(corpus)] == before


def test_the_quickstart_tells_groups_apart(pipeline, tmp_path, monkeypatch):
    script = pipeline("quickstart")
    listed = [
        ("digits-0", "one two", "test", "one two"),
        ("digits-1", "three four", "test", "three for"),
        ("letters-0", "a b", "test", "a b"),
        ("commands-0", "help me", "test", "yelp you"),
        ("commands-1", "pay", "dev", "never asked"),
    ]
    corpus = tmp_path / "manifest.tsv"
    manifest.write(
        corpus,
        [manifest.Utterance(name, tmp_path / name, text, split) for name, text, split, _ in listed],
    )
    heard = {name: text for name, _, _, text in listed}

    class Recogniser:
        alphabet = SimpleNamespace(spec=SimpleNamespace(rules=None))

        def transcribe(self, path):
            return SimpleNamespace(text=heard[path.name], duration_s=1.0)

    monkeypatch.setattr("speechrnn.runtime.open_model", lambda path: Recogniser())
    loaded = recipe.load(script.CONFIG, [f"data.manifest={corpus}"])
    found = script.wer_by_group(loaded, tmp_path / "model.tflite")
    assert found == {"digits": 1 / 4, "letters": 0, "commands": 1}


# What they share


def test_a_finished_run_is_exported_scored_and_summed_up(pipeline, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("speechrnn.training.threads.configure", lambda threads: None)
    run = shutil.copytree(trained, tmp_path / "run")
    loaded = recipe.load(run / "recipe.yaml", [f"output={run}"])
    shared = pipeline("end_to_end")
    forms = shared.train_and_export(loaded)
    summary = shared.score(loaded, forms, split="dev")
    written = json.loads(shared.write_summary(loaded, summary).read_text())
    assert written == json.loads((run / "summary.json").read_text())
    assert set(written["wer_by_form"]) == {"run", "savedmodel", "float32", "int8"}
    assert written["wer"] == written["wer_by_form"]["int8"]
    low, high = written["wer_ci95"]
    assert 0 <= low <= written["wer"] <= high
    assert written["manifest"] == str(loaded.data.manifest)
    assert written["tflite_bytes"] == Path(written["tflite_path"]).stat().st_size
    assert (Path(written["savedmodel_path"]) / "saved_model.pb").is_file()
    assert written["real_time_factor"] > 0 and written["utterances"] == 12


def test_error_rates_against_latency(pipeline, trained, monkeypatch, capsys, tmp_path):
    """A chunk longer than any recording is scored as the whole; a run without its recordings is
    refused."""
    table = [
        "latency.py",
        str(trained),
        "--chunks",
        "2:1,999:0",
        "--output",
        str(tmp_path / "t.md"),
    ]
    monkeypatch.setattr("sys.argv", table)
    script = pipeline("latency")
    script.main()
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    whole, short, long = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    # Frames of 30 ms that stack three of 10 ms, in windows of 25 ms.
    assert (short[:3], long[:2]) == (["2", "1", "75"], ["999", "0"])
    assert whole[3:] == long[3:]
    empty = tmp_path / "run"
    shutil.copytree(trained, empty, ignore=shutil.ignore_patterns("prepared"))
    settings = recipe.load(trained / "recipe.yaml", [f"output={empty}"])
    (empty / "recipe.yaml").write_text(settings.to_yaml())
    with pytest.raises(DataError, match="are gone"):
        script.table(empty, [])


def test_a_lexicon_and_a_language_model_are_made_tuned_and_compared(
    pipeline, trained, whistles, tmp_path, monkeypatch, capsys
):
    options = ["--model", trained, "--data", whistles, "--output", tmp_path, "--trials", "3"]
    monkeypatch.setattr("sys.argv", ["decoding.py", *map(str, options)])
    pipeline("decoding").main()
    rows = json.loads((tmp_path / "decoding.json").read_text())
    assert [row["name"] for row in rows] == ["greedy", "lexicon", "lexicon and 3-gram"]
    training = [u.text for u in manifest.read(whistles) if u.split == "train"]
    words = sorted({word for text in training for word in text.split()})
    assert (tmp_path / "lexicon.txt").read_text().split() == words
    for row in rows[1:]:
        assert row["than_greedy"]["errors_a"] == rows[0]["errors"]
        assert row["than_greedy"]["errors_b"] == row["errors"]
        assert 0 <= row["held_out_wer"] <= 1
    printed = capsys.readouterr().out
    assert all(f"{row['name']:34} {100 * row['wer']:6.2f}" in printed for row in rows)
