"""The scripts that show what an index and an order of batches bear, in a small form."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY

from speechrnn.data.index import INDEX_FILE, Index
from speechrnn.data.plan import Plan, epoch_plan
from speechrnn.text import frames_needed

SCRIPTS = REPOSITORY / "pipelines" / "reliability"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_a_synthetic_index_says_what_its_rows_are(tmp_path, monkeypatch):
    load("synthetic_index", monkeypatch).make(tmp_path, 3000, mean_seconds=36).save()
    index = Index.load(tmp_path)
    rows = index.rows
    assert [index.splits, len(rows), len(index.split("dev"))] == [["dev", "train"], 3000, 30]
    assert index.seconds("train") == pytest.approx(36 * 2970, rel=0.01)
    assert len({row.utterance_id for row in rows}) == 3000
    for row, need in zip(rows[::97], rows.column("frames_needed")[::97].tolist(), strict=True):
        assert frames_needed(map(ord, row.text)) == need
        assert len(row.text) == pytest.approx(14.8 * row.samples / 16_000, abs=1)
        assert row.shard == int(row.utterance_id[1:]) // 2000


def test_an_index_and_its_plan_go_through_at_any_size(tmp_path, monkeypatch):
    scale = load("scale", monkeypatch)
    options = (tmp_path, 5000, 36.0, 600.0)
    steps = scale.write(*options) + scale.use(*options)
    assert [step.wrong for step in steps] == [""] * len(steps)
    assert {"load", "plan", "check", "Batches and its plan"} <= {step.name for step in steps}
    # The tests' process has memory of its own.
    assert scale.verdict([replace(step, seconds=1.0, memory=0.1) for step in steps]) == ""
    assert "over 3" in scale.verdict([replace(step, memory=3.1) for step in steps])
    assert "over 120" in scale.verdict([replace(step, seconds=121.0) for step in steps])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: Plan(np.where(p.utterances == 3, 4, p.utterances), p.starts, p.order), "one ba"),
        (lambda p: p[1:], "comes once"),
        (lambda p: Plan(p.utterances, p.starts[[0, -1]], np.array([0])), "over its budget"),
        (lambda p: Plan(np.roll(p.utterances, 400), p.starts, p.order), "differ by more"),
    ],
)
def test_the_check_of_a_plan_finds_what_is_wrong_with_it(monkeypatch, change, told):
    scale = load("scale", monkeypatch)
    samples = np.random.default_rng(0).integers(16_000, 320_000, 1000)
    plan = epoch_plan(samples, 60 * 16_000, seed=1, epoch=1)
    assert [*scale.broken(samples, plan, 60 * 16_000)] == []
    assert told in "; ".join(scale.broken(samples, change(plan), 60 * 16_000))


def test_damage_to_any_file_of_an_index_is_found_and_named(tmp_path, monkeypatch):
    tried, wrong = load("damaged_index", monkeypatch).run(tmp_path, flips=6, cuts=6)
    assert (tried, wrong) == (17 * 12, [])


def test_what_is_no_damage_counts_as_not_detected(tmp_path, monkeypatch):
    damaged = load("damaged_index", monkeypatch)
    load("synthetic_index", monkeypatch).make(tmp_path, 10, 2.0).save()
    path = tmp_path / INDEX_FILE
    assert damaged.undetected(tmp_path, path, path.read_bytes()) == "loaded"
    assert damaged.undetected(tmp_path, path, b"") == ""


def test_an_epoch_is_taken_up_identically_at_every_batch_by_any_worker(tmp_path, monkeypatch):
    tried, wrong = load("order", monkeypatch).run(tmp_path, batches=2, workers=(1, 4))
    assert (tried, wrong) == (5 * 3, [])


@pytest.mark.long
def test_an_order_of_many_batches_is_taken_up_identically(tmp_path, monkeypatch):
    tried, wrong = load("order", monkeypatch).run(tmp_path, batches=12)
    assert tried >= 7 * 12 and wrong == []
