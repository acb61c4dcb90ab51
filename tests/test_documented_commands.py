"""Every command that a page shows runs in a small world that has the names it uses."""

from __future__ import annotations

import argparse
import contextlib
import csv
import glob
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile
import yaml
from conftest import RATE, REPOSITORY, TINY, whistle
from shown import PAGES, blocks, commands

from speechrnn import cli

COMMANDS = commands()

# Commands that are not run, each with the reason. They are held to their options all the same
# (tests/test_docs.py), recipes are read with the values that are shown, and scripts are started as
# far as their own reading of the arguments.
NOT_RUN = {
    r"speechrnn .*(--microphone|record) ": "wants a microphone; tests/test_record.py fakes one",
    r"arecord ": "wants a microphone; tests/test_streaming.py gives raw samples",
    r"speechrnn info tfds:": "fetches a dataset; tests/test_tfds.py has one of its own",
    r"speechrnn prepare .*--runner": "starts Beam; tests/test_prepare_beam.py runs it",
    r"speechrnn train .*training\.": "compiles another step; tests/test_training.py and "
    "tests/test_exact_training.py train with these keys",
    r"speechrnn train configs/(presets/|librispeech)": "the same with configs/an4.yaml is run",
    r"speechrnn train configs/(an4|mine)\.yaml$": "trains AN4; the same with mine.csv is run",
    r"speechrnn prepare configs/an4.yaml$": "prepares AN4; the same with mine.csv is run",
    r"python pipelines/": "takes minutes to hours; the tests of pipelines run them in small form",
    r"python3 -m venv ": "the checkout has one, by make",
    r"pip install ": "changes the environment; its extra is looked up in setup.py",
    r"make [a-z-]+$": "is the whole check, or hours; its target is looked up in the Makefile",
    r"make LITERT=|cd pipelines/edge/c|\./transcribe ": "tests/test_edge_c.py compiles and runs it",
    r"tar xf ": "unpacks what has to be fetched",
    r"kubectl |sbatch |export WORKER|\. pipelines/": "wants a cluster; tests/test_distribution.py",
    r"\. \.venv/bin/activate$": "changes the shell",
    r"cp runs/an4/": "would replace the shipped model",
}
# What is added so that a command takes seconds; what it shows stays in.
SMALLER = {
    "train": ["training.epochs=1"],
    "evaluate": ["--jobs", "1"],
    "tune": ["--trials", "3", "--jobs", "1"],
    "synth": ["--per-phrase", "1"],
    "benchmark": ["--seconds", "1", "--runs", "1"],
}


def reason(line):
    return next((why for what, why in NOT_RUN.items() if re.match(what, line)), None)


RUN = [line for line in COMMANDS if not reason(line) and COMMANDS[line] != "commands.md"]


def write_world(folder, whistles, trained):
    """All that the pages name: recordings, lists of them, recipes, runs."""
    clips = whistles.parent
    (folder / "data").mkdir()
    (folder / "data" / "an4").symlink_to(clips)
    (folder / "clips").symlink_to(clips)
    (folder / "speechrnn").symlink_to(REPOSITORY / "speechrnn")
    rows = list(csv.DictReader(whistles.read_text().splitlines(), delimiter="\t"))
    for row in rows:
        row["path"] = f"clips/{row['path']}"
    rows[-1]["split"] = "test"
    with (folder / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    theirs = folder / "theirs"  # lists as DeepSpeech's importers write them
    theirs.mkdir()
    for split in ("train", "dev", "test"):
        lines = [f"../{r['path']},1,{r['text']}\n" for r in rows if r["split"] == split]
        (theirs / f"{split}.csv").write_text(
            "wav_filename,wav_filesize,transcript\n" + "".join(lines)
        )
    for name in ("recording.wav", "new.wav", "one.flac", "two.mp3", "talk.mp3", "a.mp3", "b.mp3"):
        soundfile.write(folder / name, whistle("ab ba", seed=5), RATE)
    (folder / "talk.txt").write_text("ab ba\n")
    (folder / "phrases.txt").write_text("lamp on\nlamp off\n")
    write_corpora(folder, rows)
    (folder / "configs").mkdir()
    recipe = {**TINY, "output": "runs/new", "data": {**TINY["data"], "manifest": "mine.csv"}}
    (folder / "configs" / "an4.yaml").write_text(yaml.safe_dump(recipe))
    shutil.copy(REPOSITORY / "configs" / "char_lm.yaml", folder / "configs")
    for name in ("an4", "mine"):
        shutil.copytree(trained, folder / "runs" / name)


def write_corpora(folder, rows):
    """Folders and archives as `corpora.md` names them."""
    kaldi, librispeech = folder / "kaldi" / "data", folder / "LibriSpeech"
    kaldi.mkdir(parents=True)
    there = [(f"u{i}", (folder / row["path"]).resolve(), row["text"]) for i, row in enumerate(rows)]
    (kaldi / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path, _ in there))
    (kaldi / "text").write_text("".join(f"{name} {text}\n" for name, _, text in there))
    for subset, part in (("train-clean-5", there[:8]), ("dev-clean-2", there[8:12])):
        speaker, told = f"{len(part)}", []
        chapter = librispeech / subset / speaker / "1"
        chapter.mkdir(parents=True)
        for number, (_, path, text) in enumerate(part):
            soundfile.write(
                chapter / f"{speaker}-1-{number:04}.flac", soundfile.read(path)[0], RATE
            )
            told.append(f"{speaker}-1-{number:04} {text.upper()}\n")
        (chapter / f"{speaker}-1.trans.txt").write_text("".join(told))
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "train-000.tar", "w") as tar:
        for name, path, _ in there[:4]:
            (folder / f"{name}.txt").write_text("ab")
            tar.add(path, f"{name}.wav")
            tar.add(folder / f"{name}.txt", f"{name}.txt")


# In this order before all others, which need what these leave.
FIRST = [
    "speechrnn lm mine.csv -o lm.arpa --lexicon words.txt",
    "speechrnn train configs/char_lm.yaml data.manifest=mine.csv output=runs/mine_lm",
    "speechrnn export runs/mine mine.tflite",
    "speechrnn evaluate model.tflite mine.csv --split dev --json > model.json",
    "speechrnn tune runs/mine mine.csv --lm lm.arpa -o decoder.json",
]
# Making the world takes a minute of a processor, which the first test waits for.
pytestmark = pytest.mark.timeout(900)


def run(line, world):
    """A line in the world's folder, as a shell would: it fails unless the exit code is 0."""
    if not line.startswith("speechrnn "):
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        where = world / "theirs" if "train.csv" in line else world
        done = subprocess.run(
            ["bash", "-ec", line], env={**os.environ, "PATH": path}, cwd=where, timeout=120
        )
        assert done.returncode == 0
        return
    call, _, target = line.removeprefix("speechrnn ").partition(" > ")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setattr("speechrnn.training.threads.configure", lambda threads: None)
        words = [found for word in shlex.split(call) for found in sorted(glob.glob(word)) or [word]]
        if "output=runs/mine" in words:  # which is there already, from another recipe
            words[words.index("output=runs/mine")] = "output=runs/shown"
        patch.setattr(sys, "argv", ["speechrnn", *words, *SMALLER.get(words[0], [])])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as stop:
                assert not stop.code, err.getvalue()
    if target:
        (world / target).write_text(out.getvalue(), encoding="utf-8")


@pytest.fixture(scope="module")
def world(whistles, trained, tmp_path_factory):
    from speechrnn.export.chunked import in_chunks
    from speechrnn.export.tflite import export_tflite
    from speechrnn.training.run import load

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, whistles, trained)
    loaded = load(trained)
    live = in_chunks(loaded, 4, 4, [])
    export_tflite(live.model, live.spec, live.card, folder / "live.tflite", "float32")
    shutil.copy(folder / "live.tflite", folder / "model.tflite")
    for line in FIRST:
        run(line, folder)
    for name in ("old.json", "new.json", "before.json", "mine.json"):
        shutil.copy(folder / "model.json", folder / name)
    # Of DeepSpeech's users; no KenLM is there to build a binary with.
    shutil.copy(folder / "lm.arpa", folder / "kenlm.scorer")
    shutil.copy(folder / "words.txt", folder / "vocab-500000.txt")
    return folder


@pytest.mark.parametrize("line", [line for line in RUN if line not in FIRST])
def test_a_command_on_a_page_runs(line, world):
    run(line, world)


RECIPES = [line for line in COMMANDS if re.match("speechrnn (prepare|train) ", line)]


@pytest.mark.parametrize("line", RECIPES)
def test_a_recipe_on_a_page_takes_the_values_that_are_shown(line, monkeypatch):
    from speechrnn import recipe

    _, _, path, *words = line.partition(" --")[0].split()
    monkeypatch.chdir(REPOSITORY)
    recipe.load_any(path.replace("mine.yaml", "an4.yaml"), words)


class Read(Exception):
    """A script has read its arguments."""


def reads(name):
    really = getattr(argparse.ArgumentParser, name)

    def parse(self, args=None, namespace=None):
        really(self, args, namespace)
        raise Read

    return parse


@pytest.mark.parametrize("line", [x for x in COMMANDS if x.startswith("python pipelines/")])
def test_a_script_on_a_page_takes_the_arguments_that_are_shown(line, monkeypatch):
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, reads(name))
    script, *words = shlex.split(line)[1:]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str((REPOSITORY / script).parent))
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(Read):
        runpy.run_path(script, run_name="__main__")


def test_lists_of_deepspeech_are_one_manifest_once_they_are_joined(world):
    from speechrnn.corpora import manifest

    (line,) = [line for line in RUN if "train.csv" in line]
    run(line, world)
    joined = manifest.read(world / "theirs" / "mine.csv")
    assert {each.split for each in joined} == {"train", "dev", "test"}
    assert len(joined) == len(manifest.read(world / "mine.csv"))
    assert all(each.path.exists() for each in joined)


def test_extras_and_targets_on_the_pages_are_there():
    setup, makefile = (REPOSITORY / name for name in ("setup.py", "Makefile"))
    for line in COMMANDS:
        if extras := re.match(r'pip install "\.\[(.*)\]"', line):
            missing = [e for e in extras[1].split(",") if f'"{e}": [' not in setup.read_text()]
            assert not missing, line
        if target := re.match(r"make ([a-z-]+)$", line):
            assert re.search(rf"^{target[1]}:", makefile.read_text(), re.M), line


def test_the_list_of_what_is_not_run_has_nothing_that_no_page_shows():
    """And nothing is run first that is not shown: then it would be a test of nothing."""
    assert [what for what in NOT_RUN if not any(re.match(what, x) for x in COMMANDS)] == []
    assert set(FIRST) <= set(RUN)


# Examples that name what only their reader has, or that another test runs.
OWN_TESTS = {
    "Your own training loop": "tests/test_training_script.py",
    "class LiGRUEquations": "tests/test_layers.py",
    "LiGRU(16": "tests/test_layers.py",
    "tensorflow_datasets": "tests/test_tfds.py",
    "get_signature_runner": "tests/test_streaming.py",
}
# What the pages say, and what can be said in whistles.
IN_WHISTLES = {"turn the lam[bp] on": "ab ba", "ada lovelace": "ab ba"}
EXAMPLES = [
    pytest.param(page, block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
    if not any(own in block for own in OWN_TESTS)
]


@pytest.mark.parametrize(("page", "block"), EXAMPLES)
def test_python_on_a_page_runs(page, block, world, monkeypatch):
    from speechrnn.corpora import manifest
    from speechrnn.decoding.neural import CharacterLM
    from speechrnn.decoding.settings import DecoderSettings
    from speechrnn.runtime import Recognizer

    monkeypatch.chdir(world)
    (world / "commands.txt").write_text("turn the lamp on\nturn the fan off\n")
    recogniser = Recognizer("mine.tflite")
    names = {
        "microphone": [np.zeros(4000, np.float32)] * 3,
        "recogniser": recogniser,
        "utterances": [u for u in manifest.read("mine.csv") if u.split == "test"],
        "heard": recogniser.transcribe("new.wav"),
        "settings": DecoderSettings(),
        "lm": CharacterLM.load("runs/mine_lm"),
        "__name__": "example",
    }
    for said, whistled in IN_WHISTLES.items():
        block = re.sub(said, whistled, block)
    exec(compile(block, page.name, "exec"), names)
