"""The comparison of cells: equal parameters, counted multiply-adds, rows that are made once."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.errors import UsageError
from speechrnn.runtime.operations import multiply_adds
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.training.display import history

PIPELINES = REPOSITORY / "pipelines"
CELLS = ["simple_rnn", "lstm", "gru", "clockwork", "depth_gated"]


def load_pipeline(name):
    """A script as a module, under a name that is nobody else's."""
    qualified = f"pipelines_{name}"
    spec = importlib.util.spec_from_file_location(qualified, PIPELINES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pipeline(monkeypatch):
    """pipeline("compare_cells"), which imports its neighbours."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    return load_pipeline


def recogniser(**model):
    defaults = {"units": 8, "layers": 2, "subsampling": "stack", "time_stride": 2}
    return RecogniserSpec(
        FeatureSpec(mels=10), AlphabetSpec(("a", "b", "c")), ModelSpec(**{**defaults, **model})
    )


def test_multiply_adds_of_an_lstm_are_those_counted_by_hand():
    """50 frames a second of 2 x 10 mels; 4 gates of 8 units; two directions; 4 labels."""
    first = 2 * 4 * 8 * (20 + 8)
    second = 2 * 4 * 8 * (16 + 8)
    assert multiply_adds(recogniser()) == pytest.approx(50 * (first + second + 16 * 4))
    one_way = 4 * 8 * (20 + 8) + 4 * 8 * (8 + 8) + 8 * 4
    assert multiply_adds(recogniser(bidirectional=False)) == pytest.approx(50 * one_way)


@settings(deadline=None)
@given(
    periods=st.sets(st.integers(1, 200), min_size=2, max_size=8).map(sorted),
    width=st.integers(1, 40),
    bidirectional=st.booleans(),
)
def test_a_clockwork_multiplies_less_than_a_simple_rnn_of_its_size(periods, width, bidirectional):
    size = {"units": width * len(periods), "bidirectional": bidirectional}
    clockwork = recogniser(cell="clockwork", periods=tuple(periods), **size)
    assert multiply_adds(clockwork) < multiply_adds(recogniser(cell="simple_rnn", **size))


def test_multiply_adds_of_convolutions_are_those_counted_by_hand():
    """100 frames of 10 mels -> at stride 3 100/3 of 5 x 4 channels -> 100/3 of 3 x 4 channels."""
    spec = recogniser(subsampling="conv", time_stride=3, conv_channels=4, layers=1)
    convolutions = 5 * 4 * 9 + 3 * 4 * 9 * 4
    recurrent = 2 * 4 * 8 * (12 + 8) + 16 * 4
    expected = (convolutions + recurrent) * 100 / 3
    assert multiply_adds(spec) == pytest.approx(expected)


def test_a_clockworks_module_counts_at_the_frames_it_is_active():
    """Modules of 4 units, periods 1 and 4: the first reads 8 units, the slow one its own 4."""
    spec = recogniser(cell="clockwork", periods=(1, 4), layers=1, bidirectional=False)
    frame = 4 * (20 + 8) + 4 * (20 + 4) / 4 + 8 * 4
    assert multiply_adds(spec) == pytest.approx(50 * frame)


@pytest.mark.parametrize("cell", CELLS)
def test_products_are_those_of_the_layers_weight_matrices(cell):
    """With every module active at every frame, each matrix is used once a frame."""
    from speechrnn import model as network

    spec = recogniser(cell=cell, periods=(1,))
    weights = network.build(spec, seed=None).trainable_weights
    matrices = [w for w in weights if "kernel" in w.name]
    expected = 50 * sum(int(np.prod(w.shape)) for w in matrices)
    assert multiply_adds(spec) == pytest.approx(expected)


@pytest.mark.parametrize(
    "cell",
    # Each of the networks it tries is built, and clockwork's is the slowest to build.
    [pytest.param(cell, marks=[pytest.mark.long] * (cell == "clockwork")) for cell in CELLS],
)
def test_equal_parameters_are_found_within_the_tolerance(pipeline, cell):
    size = pipeline("network_size")
    wanted = size.count_parameters(recogniser(units=120, cell="lstm"))
    units, parameters = size.units_for(recogniser(cell=cell), wanted)
    found = recogniser(cell=cell, units=units)
    assert parameters == size.count_parameters(found)
    assert parameters == pytest.approx(wanted, rel=size.TOLERANCE)
    assert units % 4 == 0 or cell != "clockwork"


def test_epochs_and_validations_fill_the_budget(pipeline):
    speed = pipeline("training_speed").Speed(start=6, epoch=10, first_validation=4, validation=2)
    for budget in (60, 100, 700):
        epochs = speed.epochs_within(budget)
        assert budget - 14 < speed.total(epochs) <= budget
    # 22 epochs, validated every second one: 6 + 220 + 4 + 10 * 2
    assert speed.total(22) == 250
    assert speed.epochs_within(1) == 1


def test_two_processes_do_not_train_the_same_row(pipeline, tmp_path):
    script = pipeline("compare_cells")
    with (
        script.only_process(tmp_path / "lstm"),
        script.only_process(tmp_path / "gru"),
        pytest.raises(UsageError, match="another process is training"),
        script.only_process(tmp_path / "lstm"),
    ):
        pass
    with script.only_process(tmp_path / "lstm"):
        pass


@pytest.fixture
def compare(tmp_path, whistles):
    """compare("--cells", ...): the command on whistles with 4 seconds a cell."""
    recipe_file = write_recipe(tmp_path, whistles, model={"units": 8})
    command = [sys.executable, str(PIPELINES / "compare_cells.py"), "--minutes", "0.06"]
    command += ["--recipe", str(recipe_file), "--data", str(whistles)]
    command += ["--output", str(tmp_path / "rows")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "2"}

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True
        )

    return run


@pytest.mark.long
def test_a_row_is_trained_once_and_kept_for_its_settings(compare, tmp_path):
    rows = tmp_path / "rows"
    done = compare("--cells", "gru")
    assert done.returncode == 0, done.stderr
    row = json.loads((rows / "gru" / "row.json").read_bytes())
    validations = history(rows / "gru" / "run")
    assert row["wer"] == min(v["wer"] for v in validations)
    assert row["last_wer"] == validations[-1]["wer"]
    assert row["training_seconds"] == validations[-1]["training_seconds"]
    assert row["epochs"] == validations[-1]["epoch"] + 1
    assert "epoch" in (rows / "gru" / "log.txt").read_text()

    # A row that was stopped before its end is gone on with, as planned: here, nothing is left.
    (rows / "gru" / "row.json").unlink()
    plan = (rows / "gru" / "plan.json").read_bytes()
    assert compare("--cells", "gru").returncode == 0
    assert json.loads((rows / "gru" / "row.json").read_bytes()) == row
    assert (rows / "gru" / "plan.json").read_bytes() == plan

    before = {path: path.stat().st_mtime_ns for path in (rows / "gru").rglob("*")}
    done = compare("--cells", "gru")
    assert "gru: complete" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (rows / "gru").rglob("*")}
    assert len(json.loads((rows / "table.json").read_bytes())["rows"]) == 1
    assert (rows / "table.md").read_text().splitlines()[2].startswith("| gru |")

    done = compare("--cells", "gru", "model.dropout=0.2")
    assert done.returncode == 2
    assert "other overrides" in done.stderr
