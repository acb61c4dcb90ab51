"""All benchmarks in one page: parts are run, collected and shown, and what is missing is said."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
from conftest import REPOSITORY

FOLDER = REPOSITORY / "pipelines" / "benchmarks"
CONDITIONS = {
    "machine": {"processor": "An abacus", "architecture": "wood", "flags": ["beads"], "cores": 2,
                "memory_bytes": 8e9, "system": "Table, Oak 3"},
    "versions": {"python": "3.11.1"},
    "load": 0.0,
    "quick": False,
    "command": "python it.py",
    "minutes": 2.0,
}  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    """script("all"): a module of the benchmarks, forgotten again after the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def timed(name, seconds, **more):
    return {
        "name": name,
        "seconds": seconds,
        "processor_seconds": seconds,
        "difference": 1e-6,
    } | more


FEATURES = {
    "audio_seconds": 10,
    "mels": 80,
    "rows": [timed("speechrnn, a", 0.002), timed("speechrnn, b", 0.004), timed("librosa", 0.003)],
    "left_out": {"PyTorch, stft and mel filters": "PyTorch is not installed: pip install torch"},
}
WORDS = {"wer_ci95": [0.05, 0.2], "peak_memory_bytes": 50e6}
RECOGNISERS = {
    "audio_seconds": 300,
    "rows": [
        {"recogniser": "speechrnn-greedy", "title": "us", "wer": 0.1, "real_time_factor": 0.002},
        {"recogniser": "speechrnn-beam", "title": "us, LM", "wer": 0.1, "real_time_factor": 0.004},
        {"recogniser": "pocketsphinx", "title": "them", "wer": 0.15, "real_time_factor": 0.1},
    ],
    "left_out": {},
}
RECOGNISERS["rows"] = [{**row, **WORDS} for row in RECOGNISERS["rows"]]


def results(**parts):
    return {name: {**CONDITIONS, "found": found} for name, found in parts.items()}


def test_ratios_are_the_others_time_by_ours(script):
    ratio = script("glance").Ratio
    found = script("glance").ratios(results(features=FEATURES, recognisers=RECOGNISERS))
    assert found[0] == ratio("log-mels", "librosa", 1.5)
    assert found[1].peer == "pocketsphinx" and found[1].value == pytest.approx(25)
    assert found[2] == ratio("memory, AN4 to text with a 3-gram", "pocketsphinx", 1.0)
    assert len(found) == 3


def test_memory_and_times_are_paired_with_the_peer_of_their_precision(script):
    rows = [
        {"form": "litert-int8", "best": 2.0, "peak_memory_bytes": 100},
        {"form": "onnx-float32", "best": 1.0, "peak_memory_bytes": 50},
        {"form": "onnx-int8", "best": 6.0, "peak_memory_bytes": 300},
        {"form": "onnx-int8-float-convolutions", "best": 5.0, "peak_memory_bytes": 400},
    ]
    found = script("glance").ratios(results(inference={"rows": rows}))
    assert [(each.what, each.value) for each in found] == [
        ("inference, int8", 2.5),  # the faster of ONNX Runtime's two
        ("memory, transcription, int8", 3.0),
    ]


def test_the_page_says_what_is_missing_and_where_it_was_measured(script):
    text = script("page").page(results(features=FEATURES), ["features", "decoding"])
    assert "| librosa | 3 | 1.50 | 1e-06 |" in text
    assert "Left out: `PyTorch, stft and mel filters`: PyTorch is not installed" in text
    assert "An abacus, wood (beads), 2 cores, 8 GB of memory, Table, Oak 3." in text
    assert text.index("Not measured yet.") > text.index("## Decoding")
    assert "mean nothing" not in text and "processes running" not in text


def test_a_busy_machine_and_a_mere_try_are_said(script):
    tried = results(features=FEATURES)
    tried["features"] |= {"load": 3.2, "quick": True}
    text = script("page").page(tried, ["features"])
    assert "kept 3 processes running" in text and "mean nothing" in text


def test_parts_of_several_machines_are_told_apart(script):
    mixed = results(features=FEATURES, recognisers=RECOGNISERS)
    mixed["recognisers"]["machine"] = {**CONDITIONS["machine"], "processor": "A slide rule"}
    text = script("page").page(mixed, ["features", "recognisers"])
    assert text.index("An abacus") > text.index("## Features")
    assert text.index("A slide rule") > text.index("## A whole recogniser")


def test_the_committed_page_is_what_the_committed_results_say(script):
    found = json.loads((REPOSITORY / "pipelines" / "results" / "benchmarks.json").read_text())
    parts = list(script("all").PARTS)
    assert set(found) <= set(parts)
    written = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert script("page").page(found, parts) == written
    picture = REPOSITORY / "docs" / "images" / "benchmarks.png"
    assert picture.exists() == bool(script("glance").ratios(found)) == (picture.name in written)


@pytest.fixture
def collect(script, tmp_path, monkeypatch):
    """Run parts in their smallest form, with no PyTorch: (exit code, results, page)."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "torch.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))

    def run(*names):
        written = tmp_path / "found.json"
        options = ["--quick", "--results", str(written), "--docs", str(tmp_path)]
        code = script("all").main([*options, *(f"--only={name}" for name in names)])
        page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
        return code, json.loads(written.read_text()), page

    return run


def test_a_part_is_run_collected_and_shown(collect, tmp_path):
    code, found, page = collect("features")
    assert code == 0
    rows = {row["name"]: row for row in found["features"]["found"]["rows"]}
    assert list(rows) == [
        "speechrnn, TensorFlow's graph",
        "speechrnn, the device file in LiteRT",
        "librosa",
    ]
    assert all(row["difference"] <= 1e-3 and row["seconds"] > 0 for row in rows.values())
    assert "PyTorch is not installed: pip install torch" in page
    assert (tmp_path / "images" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_that_fails_is_said_and_the_others_are_kept(collect, script, tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('no such luck')\n")
    parts, part = script("all").PARTS, script("all").Part
    monkeypatch.setitem(parts, "decoding", part(str(broken), (), (), 1))
    (tmp_path / "found.json").write_text(json.dumps(results(features=FEATURES)))
    code, found, page = collect("decoding")
    assert code == 1 and "found" in found["features"]
    assert "Could not be measured: exit code 1: ValueError: no such luck" in page


def test_without_pocketsphinx_its_row_is_left_out(script, monkeypatch):
    recognisers, left_out = script("recognisers"), script("implementations").LeftOut
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)  # imports of it fail
    with pytest.raises(left_out, match="pip install pocketsphinx"):
        recognisers.actions(
            {
                "implementation": "pocketsphinx",
                "shape": {"manifest": "none.tsv", "folder": ".", "lm": "none.arpa"},
            }
        )


def test_recognisers_are_scored_on_the_same_recordings(script, whistles, tmp_path):
    compare, recognisers = script("beside_pocketsphinx"), script("recognisers")
    spoken = recognisers.Spoken(
        str(whistles), str(tmp_path), str(tmp_path / "words.arpa"), utterances=2
    )
    found = compare.compare(spoken, rounds=1)
    rows = {row["recogniser"]: row for row in found["rows"]}
    assert set(rows) | set(found["left_out"]) == set(recognisers.RECOGNISERS)
    assert "speechrnn-greedy" in rows
    for name, row in rows.items():
        texts = json.loads((tmp_path / f"{name}.json").read_text())
        assert set(texts) == {"u060", "u061"} and row["utterances"] == 2
        assert row["real_time_factor"] == row["seconds"] / found["audio_seconds"]
