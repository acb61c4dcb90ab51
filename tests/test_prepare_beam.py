"""Preparing on Apache Beam gives what the processes of one machine give."""

from __future__ import annotations

import errno
import os

import pytest
import soundfile
from conftest import RATE, whistle, write_recipe

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.utterance import Utterance
from speechrnn.data import shards
from speechrnn.data.prepare import prepare, rejections
from speechrnn.errors import MachineRefused, UsageError

beam = pytest.importorskip("speechrnn.data.beam", exc_type=UsageError)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A manifest of two splits and two formats, of which one recording is broken."""
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for number in range(14):
        path = folder / f"{number}.{'flac' if number % 2 else 'wav'}"
        soundfile.write(path, whistle("ab cd", number), RATE)
        split = "dev" if number % 5 == 0 else "train"
        columns = {"room": "kitchen"}
        utterances.append(Utterance(f"u{number}", path, "ab cd", split, "s", columns=columns))
    utterances[7].path.write_text("no recording")
    manifest.write(folder / "manifest.tsv", utterances)
    return folder / "manifest.tsv"


def loaded(tmp_path, listed, name, workers=1):
    data = {"shard_utterances": 3, "workers": workers, "prepared": str(tmp_path / name)}
    return recipe.load(write_recipe(tmp_path, listed, data=data))


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_one_worker_two_workers_and_beam_give_the_same_utterances_bytes_and_order(tmp_path, listed):
    alone = prepare(loaded(tmp_path, listed, "alone"), progress=False)
    two = prepare(loaded(tmp_path, listed, "two", workers=2), progress=False)
    # Two threads of Beam, so that shards are not written in order.
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    there = prepare(loaded(tmp_path, listed, "beam"), False, "FnApiRunner", options)
    assert [*there.rows] == [*two.rows] == [*alone.rows] and len(alone.rows) == 13
    assert files(there.root) == files(two.root) == files(alone.root)
    (rejected,) = rejections(there.root)
    assert (rejected.utterance_id, rejected.reason) == ("u7", "unreadable")
    assert there.rejected == {"unreadable": 1}


def test_a_rerun_on_beam_writes_only_what_is_missing_or_damaged(tmp_path, listed, monkeypatch):
    asked = loaded(tmp_path, listed, "run")
    index = prepare(asked, progress=False)
    before = files(index.root)
    gone, damaged = (index.root / shard.name for shard in index.shards[1:3])
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    decoded = []
    real = shards.decode
    monkeypatch.setattr(
        shards, "decode", lambda root, planned, *rest: decoded.append(planned.name)
        or real(root, planned, *rest)
    )  # fmt: skip
    prepare(asked, False, "FnApiRunner")
    assert sorted(decoded) == sorted([gone.name, damaged.name])
    assert files(index.root) == before


def test_a_full_disk_on_beam_leaves_finished_shards_and_nothing_else(tmp_path, listed, monkeypatch):
    asked = loaded(tmp_path, listed, "run")
    real = shards.decode

    def full(root, planned, *rest):
        if planned.name.startswith("train-00001"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(root, planned, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "decode", full)
        with pytest.raises(MachineRefused, match=r"No space left on device.*prepare again"):
            prepare(asked, False, "FnApiRunner")
    left = {path.name for path in asked.prepared.iterdir()} - {".lock"}
    assert all(name.endswith((".tfrecord", ".tfrecord.json")) for name in left)
    assert len(prepare(asked, progress=False).rows) == 13


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interruption_on_beam_is_one(tmp_path, listed, monkeypatch, stop):
    def interrupted(*_):
        raise stop

    monkeypatch.setattr(shards, "decode", interrupted)
    with pytest.raises(type(stop)):
        prepare(loaded(tmp_path, listed, "run"), False, "FnApiRunner")


def test_workers_that_write_elsewhere_are_told_from_those_that_share_the_folder(
    tmp_path, listed, monkeypatch
):
    monkeypatch.setattr(beam._Ensure, "__call__", lambda *_: None)
    with pytest.raises(MachineRefused, match=r"dev-00000.*data\.prepared"):
        prepare(loaded(tmp_path, listed, "run"), False, "FnApiRunner")


@pytest.mark.parametrize("name", ["DirectRunner", "direct", "NoSuchRunner"])
def test_a_runner_that_is_not_there_or_downloads_is_refused_with_the_one_to_name(
    speechrnn, tmp_path, listed, name
):
    asked = write_recipe(tmp_path, listed)
    code, out, err = speechrnn("prepare", asked, "--runner", name)
    assert (code, out) == (2, "")
    assert "FnApiRunner" in err and name in err


def test_words_behind_two_dashes_reach_beam_as_they_are(speechrnn, tmp_path, listed, monkeypatch):
    given = []
    real = beam.PipelineOptions
    monkeypatch.setattr(beam, "PipelineOptions", lambda words: given.extend(words) or real(words))
    call = ("prepare", write_recipe(tmp_path, listed), "data.shard_utterances=6")
    words = ["--flink_master=host:1", "--parallelism", "8", "a=b"]
    code, out, err = speechrnn(*call, "--runner", "FnApiRunner", "--", *words)
    assert given[: len(words)] == words and given[len(words) :] == ["--runner=FnApiRunner"]
    assert code == 3 and "train: 10 utterances" in out and "u7 (unreadable)" in err


def test_options_for_beam_without_a_runner_are_an_error_of_usage(speechrnn, tmp_path, listed):
    code, out, err = speechrnn("prepare", write_recipe(tmp_path, listed), "--", "--parallelism=8")
    assert (code, out) == (2, "")
    assert "--parallelism=8" in err and "runner" in err


@pytest.mark.filterwarnings("ignore:Possible nested set")  # Beam makes a regular expression
def test_a_folder_whose_name_is_a_pattern_is_prepared_on_beam(tmp_path, listed):
    index = prepare(loaded(tmp_path, listed, "runs[1]*"), progress=False, runner="FnApiRunner")
    assert len(index.rows)
