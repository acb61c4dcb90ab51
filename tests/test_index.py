"""The index: what was saved is what is loaded, row by row, and any damage is found and named."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.data import columns
from speechrnn.data.columns import Row, Rows
from speechrnn.data.index import INDEX_FILE, Index, Shard
from speechrnn.errors import PreparedDataError
from speechrnn.specs import AlphabetSpec, Statistics
from speechrnn.text import frames_needed

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INT32 = st.integers(0, 2**31 - 1)
ROW = st.builds(
    Row,
    utterance_id=TEXT,
    split=st.sampled_from(["train", "dev", "Prüfung"]),
    speaker=TEXT,
    shard=INT32,
    offset=st.integers(0, 2**62),
    length=INT32,
    crc32=st.integers(0, 2**32 - 1),
    samples=INT32,
    text=TEXT,
)


def some_rows(count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        Row(
            utterance_id=f"äé{i:03d}",
            split="train" if i % 3 else "dev",
            speaker=f"s{i % 4}",
            shard=i % 2,
            offset=100 * i,
            length=90,
            crc32=int(rng.integers(2**32)),
            samples=int(rng.integers(16_000, 160_000)),
            text="ja " * (1 + i % 5),
        )
        for i in range(count)
    ]


def index_of(root: Path, rows: list[Row]) -> Index:
    return Index(
        root=root,
        sample_rate=16_000,
        alphabet=AlphabetSpec(tuple(" aäj")),
        statistics=Statistics(mean=(0.25, -1.0), std=(1.5, 2.0)),
        corpus_sha256="ab" * 32,
        shards=(Shard("train-00000.tfrecord", 3, 1234, "cd" * 32),),
        rows=Rows.of(rows),
        rejected={"silent": 2},
    )


@given(rows=st.lists(ROW, max_size=8))
def test_rows_come_back_from_columns(rows):
    kept = Rows.of(rows)
    assert list(kept) == rows
    assert [kept[i] for i in range(-len(rows), 0)] == rows
    assert list(kept[::-2]) == rows[::-2]
    needed = [frames_needed(row.text) for row in rows]
    assert kept.column("frames_needed").tolist() == needed
    with pytest.raises(IndexError):
        kept[len(rows)]


@settings(max_examples=20)
@given(rows=st.lists(ROW, max_size=8))
def test_rows_come_back_from_files(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    saved = index_of(root, rows)
    saved.save()
    assert list(Index.load(root).rows) == rows
    assert Index.load(root) == saved


def test_a_split_holds_its_rows_in_order_wherever_they_lie(tmp_path):
    mixed = some_rows(20)
    sorted_ = sorted(mixed, key=lambda row: row.split)
    for rows in (mixed, sorted_):
        index = index_of(tmp_path, rows)
        assert index.splits == ["dev", "train"]
        for split in index.splits:
            mine = [row for row in rows if row.split == split]
            assert list(index.split(split)) == mine
            assert list(index.split(split)[2:5]) == mine[2:5]
            samples = [row.samples for row in mine]
            assert index.split(split).column("samples").tolist() == samples
            assert index.seconds(split) == sum(samples) / 16_000
    assert isinstance(index_of(tmp_path, sorted_).split("train").positions, range)


def test_an_index_of_one_split_saves_no_more_than_that(tmp_path):
    whole = index_of(tmp_path, some_rows(20))
    replace(whole, rows=whole.split("dev")).save()
    assert list(Index.load(tmp_path).rows) == list(whole.split("dev"))


def test_seconds_of_a_hundred_thousand_hours_do_not_overflow(tmp_path):
    row = some_rows(1)[0]
    index = index_of(tmp_path, [replace(row, samples=2**31 - 1)] * 3)
    assert index.seconds("dev") == 3 * (2**31 - 1) / 16_000


def index_files(root: Path) -> list[Path]:
    return [root / INDEX_FILE, *sorted(root.glob(f"{columns.FOLDER}-*/*"))]


def test_saving_again_leaves_the_same_files_and_no_others(tmp_path):
    index_of(tmp_path, some_rows(9)).save()
    before = {path: path.read_bytes() for path in index_files(tmp_path)}
    assert len(before) == 17
    (tmp_path / f".{columns.FOLDER}.1.partial").mkdir()  # a process that was killed
    index_of(tmp_path, some_rows(8)).save()
    assert before.keys() & {*index_files(tmp_path)} == {tmp_path / INDEX_FILE}
    index_of(tmp_path, some_rows(9)).save()
    assert {path: path.read_bytes() for path in index_files(tmp_path)} == before
    assert {path.name for path in tmp_path.iterdir()} == {
        INDEX_FILE,
        index_files(tmp_path)[1].parent.name,
    }


@pytest.mark.parametrize("stopped_at", ["save", "replace", "write_atomically"])
def test_an_index_whose_successor_is_stopped_stays_whole(tmp_path, monkeypatch, stopped_at):
    from speechrnn.data import index as index_module

    first = index_of(tmp_path, some_rows(9))
    first.save()

    def stop(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    owner = {"save": np, "replace": columns.os, "write_atomically": index_module}[stopped_at]
    with monkeypatch.context() as patch:
        patch.setattr(owner, stopped_at, stop)
        with pytest.raises(OSError, match="No space"):
            index_of(tmp_path, some_rows(8)).save()
    assert Index.load(tmp_path) == first
    assert not [*tmp_path.glob(".*.partial")]


def test_a_damaged_file_is_written_anew_by_the_next_save(tmp_path):
    index = index_of(tmp_path, some_rows(9))
    index.save()
    for path in index_files(tmp_path):
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + b"?")
        index.save()
        assert path.read_bytes() == sound


def test_every_file_of_an_index_is_missed_by_name(tmp_path):
    index_of(tmp_path, some_rows(9)).save()
    for path in index_files(tmp_path):
        sound = path.read_bytes()
        path.unlink()
        with pytest.raises(PreparedDataError, match=path.name):
            Index.load(tmp_path)
        path.write_bytes(sound)
    assert len(Index.load(tmp_path).rows) == 9


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"format": 1}', b'{\n "format": 2}\n', b"null"]
)
def test_what_is_no_index_is_refused_by_name(tmp_path, content):
    (tmp_path / INDEX_FILE).write_bytes(content)
    with pytest.raises(PreparedDataError, match=INDEX_FILE):
        Index.load(tmp_path)


def test_a_change_of_one_figure_in_the_description_is_found(tmp_path):
    """It would still be JSON, and of the right form."""
    index_of(tmp_path, some_rows(9)).save()
    path = tmp_path / INDEX_FILE
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35"))
    assert json.loads(path.read_bytes())["statistics"]["mean"][0] == 0.35
    with pytest.raises(PreparedDataError, match="sha256"):
        Index.load(tmp_path)


def test_an_index_moves_with_its_folder(tmp_path):
    index_of(tmp_path / "here", some_rows(9)).save()
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert list(Index.load(tmp_path / "there").rows) == some_rows(9)


def test_a_mapped_index_keeps_its_rows_when_a_new_one_takes_its_place(tmp_path):
    """A training that reads goes on while the corpus is prepared again."""
    index_of(tmp_path, some_rows(9)).save()
    reading = Index.load(tmp_path)
    index_of(tmp_path, some_rows(4)).save()
    assert list(reading.rows) == some_rows(9)
    assert os.listdir(tmp_path) and len(Index.load(tmp_path).rows) == 4
