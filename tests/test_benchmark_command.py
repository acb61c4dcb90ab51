"""What `speechrnn benchmark` measures, in which order, and what it says of it."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from test_streaming import build

from speechrnn.errors import ModelError
from speechrnn.export.tflite import export_tflite
from speechrnn.runtime import benchmark, container, default_model
from speechrnn.runtime.benchmark import ROWS, compare, measure
from speechrnn.runtime.operations import count_operations, multiply_adds

SHORT = {"seconds": 0.5, "runs": 2}


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    model, spec = build(cell="gru")
    path = tmp_path_factory.mktemp("benchmark") / "live.tflite"
    export_tflite(model, spec, {}, path, "float32")
    return path


def test_operations_are_those_that_tensorflows_analyzer_lists(capsys):
    content = container.read(default_model()).model_bytes
    tf.lite.experimental.Analyzer.analyze(model_content=content)
    listed = re.findall(r"^  Op#\d+ (\w+)\(", capsys.readouterr().out, re.MULTILINE)
    assert len(listed) > 100
    found = count_operations(content)
    assert found == collections.Counter(listed)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_streaming_models_cost_has_everything(streaming):
    steps = []
    cost = measure(streaming, **SHORT, progress=lambda *step: steps.append(step))
    assert steps == [(done, 5) for done in range(1, 6)]  # three starts, two rounds
    assert (cost.kind, cost.size_bytes) == ("tflite", streaming.stat().st_size)
    assert cost.first_result_s > cost.load_s > 0
    assert cost.real_time_factor == pytest.approx(cost.result_s / 0.5) and cost.result_s > 0
    # One piece of 320 ms must have been recorded, and is enough.
    assert 0.32 < cost.first_partial_s < 0.64 and cost.piece_s > 0
    # LiteRT and NumPy take some 60 MB; this process, with TensorFlow, several hundred.
    assert 20e6 < cost.peak_rss_bytes < 300e6
    recognised = container.read(streaming)
    assert cost.multiply_adds_per_second == multiply_adds(recognised.spec)
    assert cost.operations == count_operations(recognised.model_bytes)
    assert cost.operations_total == sum(cost.operations.values())
    table = cost.table()
    for label, _, _ in ROWS:
        assert f"\n{label} " in f"\n{table}"
    for name, count in cost.operations.items():
        assert re.search(rf"\b{name} {count}\b", table)


def answers(start, rounds):
    """A process that begins and answers as told, and writes down when."""
    log = []

    @contextlib.contextmanager
    def process(model, seconds):
        class Process:
            def answer(self):
                log.append(f"start {model.name}")
                return {
                    "kind": "tflite",
                    "load_s": start[model.name].pop(0),
                    "first_result_s": 9.0,
                    "first_partial_s": None,
                    "multiply_adds_per_second": 5.0,
                }

            def round(self):
                log.append(model.name)
                result = rounds[model.name].pop(0)
                return {"result_s": result, "piece_s": None, "peak_rss_bytes": 100}

            def end(self):
                log.append(f"end {model.name}")

        yield Process()

    return process, log


def test_two_models_take_turns_and_medians_are_compared(monkeypatch, tmp_path):
    for name, size in (("a", 10), ("b", 30)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(bytes(size))
    process, log = answers(
        {"a": [8.0, 1.0, 2.0], "b": [3.0, 1.0, 5.0]},
        {"a": [2.0, 9.0, 4.0], "b": [1.0, 1.0, 7.0]},
    )
    monkeypatch.setattr(benchmark, "_process", process)
    found = compare(tmp_path / "a", tmp_path / "b", seconds=8.0, runs=3)
    turn = ["start a", "end a", "start b", "end b"]
    assert log == [*turn, *turn, "start a", "start b", *["a", "b"] * 3]
    assert (found.model.load_s, found.other.load_s) == (2.0, 3.0)
    assert (found.model.real_time_factor, found.other.real_time_factor) == (0.5, 0.125)
    assert found.model.operations is None and found.model.piece_s is None
    assert found.ratios == {
        "size_bytes": 3.0, "load_s": 1.5, "first_result_s": 1.0, "result_s": 0.25,
        "real_time_factor": 0.25, "first_partial_s": None, "piece_s": None, "peak_rss_bytes": 1.0,
        "multiply_adds_per_second": 1.0, "operations_total": None,
    }  # fmt: skip
    lines = {line[:18].strip(): line[18:].split() for line in found.table().splitlines()}
    assert lines["load"] == ["2.000", "s", "3.000", "s", "1.50"]
    assert "320 ms piece" not in lines


def test_the_command_compares_two_models(speechrnn, streaming):
    arguments = (streaming, "--compare", default_model(), "--seconds", 0.5, "--runs", 1)
    code, out, err = speechrnn("benchmark", *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"model", "other", "ratios", "ratio"}
    for name in ("size_bytes", "load_s", "peak_rss_bytes", "real_time_factor"):
        quotient = found["other"][name] / found["model"][name]
        assert found["ratios"][name] == pytest.approx(quotient)
    assert found["ratios"]["piece_s"] is None  # the shipped model does not stream
    assert found["ratio"] == "other / model"
    code, out, err = speechrnn("benchmark", *arguments)
    assert code == 0 and "OTHER / MODEL" in out


def test_the_model_that_cannot_be_opened_is_named(speechrnn, streaming, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(streaming.read_bytes()[:-1])
    for pair in ((streaming, "--compare", bad), (bad, "--compare", streaming)):
        code, out, err = speechrnn("benchmark", *pair)
        assert (code, out) == (4, "")
        assert str(bad) in err and str(streaming) not in err


def test_a_process_that_dies_is_an_error_with_its_last_words(monkeypatch, streaming):
    monkeypatch.setattr(benchmark, "SCRIPT", "import sys; sys.exit('no such luck')")
    with pytest.raises(ModelError, match=r"could not be measured \(exit code 1\):\nno such luck"):
        measure(streaming)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
def test_tensorflow_is_measured_on_one_thread(trained):
    with benchmark._process(Path(trained), 0.5) as process:
        assert process.answer()["kind"] == "run"
        process.round()
        tasks = Path(f"/proc/{process.process.pid}/task")
        names = [(tasks / task / "comm").read_text().strip() for task in os.listdir(tasks)]
    assert names.count("tf_Compute") == 1, names
