"""The comparison of cells: equal parameters, counted multiply-adds, trainings done once, a table
that says what the results file says."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.errors import DataError, RecipeError, SpeechRNNError
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


@pytest.fixture
def cells(pipeline):
    """The comparison's modules: compare_cells and its neighbours."""
    pipeline("compare_cells")  # puts the folder on the path
    from cells import comparison, figure, reach, rows, size, table, training
    from trainings import jobs, page, rates, results

    return SimpleNamespace(
        comparison=comparison, figure=figure, jobs=jobs, page=page, rates=rates, reach=reach,
        results=results, rows=rows,
        size=size, table=table, training=training,
    )  # fmt: skip


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
    ("cell", "bidirectional"),
    # Networks are built, and a clockwork's is the slowest to build.
    [
        ("simple_rnn", True),
        ("depth_gated", True),
        pytest.param("clockwork", False, marks=pytest.mark.long),
        ("gru", False),
    ],
)
def test_equal_parameters_are_found_within_the_tolerance(cells, cell, bidirectional):
    size, wanted = cells.size, 150_000
    ahead = 0 if bidirectional else 3
    spec = recogniser(cell=cell, bidirectional=bidirectional, lookahead=ahead)
    units, parameters = size.units_for(spec, wanted)
    assert parameters == size.count_parameters(size.with_units(spec, units))
    assert parameters == pytest.approx(wanted, rel=size.TOLERANCE)
    assert units % 4 == 0 or cell != "clockwork"


def test_a_one_way_row_looks_ahead_and_a_two_way_row_does_not(cells, compared):
    """300 ms are 15 frames of 20 ms."""
    rows, comparison = cells.rows, compared("model.time_stride=2")
    models = {way: comparison.spec(rows.Row("gru", way)).model for way in ("one", "two")}
    assert (models["one"].bidirectional, models["one"].lookahead) == (False, 15)
    assert (models["two"].bidirectional, models["two"].lookahead) == (True, 0)


def trial(rate, loss, cell="gru"):
    return {"kind": "trial", "cell": cell, "learning_rate": rate, "dev_loss": loss}


def test_the_learning_rate_is_that_of_the_lowest_dev_loss(cells):
    lines = [trial(0.1, None), trial(0.2, 3.0), trial(0.3, 2.0), trial(0.4, 1.0, cell="lstm")]
    lines.append({**trial(0.5, 0.1), "kind": "training"})
    assert cells.comparison.chosen_rate("gru", lines) == 0.3
    with pytest.raises(DataError, match="gru has no finite dev loss"):
        cells.comparison.chosen_rate("gru", lines[:1])


@pytest.mark.parametrize(
    ("losses", "tried"),
    [
        ([], [0.0008, 0.002, 0.005]),
        ([1, 2], [0.0008, 0.002, 0.005]),
        ([2, 1, 3], [0.0008, 0.002, 0.005]),
        ([1, 2, 3], [0.00032, 0.0008, 0.002, 0.005]),
        ([3, 2, 1], [0.0008, 0.002, 0.005, 0.0125]),
        ([None, None, None], [0.00032, 0.0008, 0.002, 0.005]),
    ],
)
def test_beyond_an_edge_that_is_the_best_the_next_rate_is_tried(cells, losses, tried):
    rates = cells.comparison.LEARNING_RATES
    lines = [trial(rate, loss) for rate, loss in zip(rates, losses, strict=False)]
    assert cells.comparison.rates_to_try("gru", lines) == tried


def test_rates_beyond_an_edge_end_with_the_fifth_or_a_worse_one(cells):
    tried = cells.comparison.rates_to_try
    lines = [trial(0.0008, 1), trial(0.002, 2), trial(0.005, 3), trial(0.00032, 0.5)]
    assert tried("gru", lines) == [0.000128, 0.00032, 0.0008, 0.002, 0.005]
    assert len(tried("gru", [*lines, trial(0.000128, 0.1)])) == 5
    assert len(tried("gru", [*lines[:3], trial(0.00032, 9)])) == 4


# Jobs: a command in place of a training, so that stops and restarts take no time

STUB = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
order = json.loads((folder / "job.json").read_bytes())
with (folder / "starts").open("a") as file:
    file.write("x")
halt = folder.parents[2] / "halt"
if halt.exists() and halt.read_text() in folder.name:
    (folder.parents[2] / "halted").touch()
    time.sleep(60)
line = {**order["job"], "settings": order["settings"], "dev_loss": order["job"]["learning_rate"],
        "wer": 0.5, "training_seconds": 1.0}
(folder / "line.json").write_text(json.dumps(line))
"""


@pytest.fixture
def compared(cells, tmp_path, whistles):
    """compared("model.dropout=0.2") -> a Comparison on whistles, with these overrides."""

    def make(*overrides, manifest=whistles):
        recipe_file = write_recipe(tmp_path, manifest, model={"units": 8})
        return cells.comparison.Comparison(recipe_file, tmp_path / "out", overrides)

    return make


@pytest.fixture
def train(cells, pipeline, compared, tmp_path):
    """train("key=value") -> two rows with two seeds, by the stub; SystemExit where stopped."""
    script, stub = pipeline("compare_cells"), tmp_path / "stub.py"
    stub.write_text(STUB)
    rows = [cells.rows.Row("simple_rnn", way) for way in ("two", "one")]

    def run(*overrides):
        script.train_all(
            compared(*overrides), rows, [1, 2], tmp_path / "r.jsonl", 2, [sys.executable, str(stub)]
        )
        return cells.results.read(tmp_path / "r.jsonl", cells.rows.KEYS)

    return run


def starts(tmp_path):
    """Job -> how often it was started."""
    found = (tmp_path / "out").glob("*/*/starts")
    return {path.parent.name: len(path.read_text()) for path in found}


def test_rates_are_tried_then_every_row_is_trained_and_only_what_is_missing_again(
    train, cells, tmp_path
):
    lines = train()
    assert [line["kind"] for line in lines] == ["trial"] * 5 + ["training"] * 4
    # The stub's dev loss is the rate itself: the lowest is the best, and lower ones are tried.
    assert [line["learning_rate"] for line in lines[3:5]] == [0.00032, 0.000128]
    assert {line["learning_rate"] for line in lines[-4:]} == {0.000128}
    assert [line["seed"] for line in lines[-4:]] in ([1, 1, 2, 2],)

    kept = [line for line in lines if line["seed"] != 2 or line["directions"] != "one"]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    (gone,) = [d for d in (tmp_path / "out").glob("*/training-simple_rnn-one-2-*")]
    (gone / "line.json").unlink()
    assert sorted(map(str, train())) == sorted(map(str, lines))
    assert {name for name, n in starts(tmp_path).items() if n == 2} == {gone.name}


@pytest.mark.long
def test_sigterm_ends_the_trainings_and_the_same_command_goes_on(train, tmp_path):
    (tmp_path / "halt").write_text("training-simple_rnn-one-1-0.000128")
    halted = tmp_path / "halted"

    def end_when_halted():
        while not halted.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=end_when_halted, daemon=True)
    watcher.start()
    with pytest.raises(SystemExit) as stop:
        train()
    watcher.join()
    assert stop.value.code == 143
    (tmp_path / "halt").unlink()
    lines = train()
    assert len(lines) == len({json.dumps(line) for line in lines}) == 5 + 4
    assert starts(tmp_path)["training-simple_rnn-one-1-0.000128"] == 2


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_the_terminal_ends_the_trainings_but_not_under_nohup(cells, ignored):
    """A child is in a group of its own: nothing else would tell it."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with contextlib.ExitStack() as stack:
            if not ignored:
                stack.enter_context(pytest.raises(SystemExit, match="129"))
            with cells.jobs.ending_by_signal():
                os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_a_training_that_failed_is_named_and_the_others_are_kept(
    cells, pipeline, compared, tmp_path
):
    stub = tmp_path / "stub.py"
    stub.write_text("import sys\nif 'two' in sys.argv[1]: sys.exit(5)\n" + STUB)
    rows = [cells.rows.Row("simple_rnn", way) for way in ("two", "one")]
    comparison, file = compared("training.learning_rate=0.01"), tmp_path / "r.jsonl"
    with pytest.raises(SpeechRNNError, match="training-simple_rnn-two-1"):
        pipeline("compare_cells").train_all(
            comparison, rows, [1], file, 1, [sys.executable, str(stub)]
        )
    (line,) = cells.results.read(file, cells.rows.KEYS)
    assert (line["directions"], line["learning_rate"]) == ("one", 0.01)


def test_results_of_other_settings_are_not_mixed(train, compared, tmp_path, whistles):
    train("training.learning_rate=0.01")
    with pytest.raises(RecipeError, match=r"other settings.*--results"):
        train("training.learning_rate=0.02")
    # Where things are is no setting.
    moved = tmp_path / "elsewhere"
    shutil.copytree(whistles.parent, moved)
    here, there = compared("output=a"), compared("output=b", manifest=moved / "manifest.tsv")
    assert here.settings == there.settings
    assert here.settings != compared("model.dropout=0.2").settings


def test_a_damaged_line_is_named_and_none_is_half_written(cells, tmp_path):
    file = tmp_path / "deep" / "r.jsonl"
    line = dict.fromkeys(("kind", "cell", "directions", "seed", "settings"), 1)
    cells.results.append(file, line)
    cells.results.append(file, {**line, "seed": 2})
    assert [found["seed"] for found in cells.results.read(file, cells.rows.KEYS)] == [1, 2]
    file.write_text(file.read_text()[:-5])
    with pytest.raises(DataError, match=r"r\.jsonl, line 2"):
        cells.results.read(file, cells.rows.KEYS)


# From the file to the page


def line(cell="lstm", directions="two", seed=1, errors=((3, 10), (1, 30)), **changes):
    """A training's line; (word errors, words) of each speaker."""
    return {
        "kind": "training", "cell": cell, "directions": directions, "seed": seed, "settings": "s",
        "learning_rate": 0.002, "units": 8, "parameters": 1_000_000, "epochs": 26, "cer": 0.04,
        "multiply_adds_per_second": 4e7, "training_seconds": 300.0, "frame_ms": 30.0,
        "audio_seconds_per_second": 200.0, "gradient_back": [1.0, 0.5, 0.05],
        "gradient_ahead": [1.0, 0.05], "by_speaker": {str(i): [*e] for i, e in enumerate(errors)},
        "wer": sum(e for e, _ in errors) / sum(w for _, w in errors), **changes,
    }  # fmt: skip


def test_a_rows_rate_is_the_mean_of_its_seeds_and_its_interval_is_over_speakers(cells):
    """Two speakers are drawn as (0, 0), (0, 1), (1, 0) or (1, 1): the middle 95 % hold all of
    these, so that the bounds are the speakers' own rates, 9 in 20 and 3 in 60."""
    rows = cells.table.pooled([line(), line(seed=2, errors=((6, 10), (2, 30)))])
    (row,) = rows
    assert row.wer == pytest.approx(np.mean(row.seeds)) == pytest.approx(12 / 80)
    assert row.interval == pytest.approx((3 / 60, 9 / 20))
    assert (row.reach("back"), row.reach("ahead")) == (0.03, 0.0)


def test_a_difference_is_paired_by_speaker(cells):
    """One more error in 10 words for either speaker is one more in 10 for every resample."""
    lines = [line("lstm", errors=((3, 10), (1, 10))), line("gru", errors=((4, 10), (2, 10)))]
    lstm, gru = cells.table.pooled(lines)
    assert cells.rates.difference(gru.units, lstm.units) == pytest.approx((0.1, 0.1, 0.1))
    assert "+10.0 (+10.0 to +10.0)" in cells.table.markdown(lines)


def test_seeds_of_other_networks_make_no_row(cells):
    with pytest.raises(DataError, match="seeds of lstm, two-way differ"):
        cells.table.pooled([line(), line(seed=2, units=16)])


def test_the_page_and_its_plot_are_made_from_the_file_alone(cells, pipeline, tmp_path, monkeypatch):
    file, page = tmp_path / "r.jsonl", tmp_path / "page.md"
    for each in (line("lstm"), line("gru", "one", seed=1), line("lstm", seed=2)):
        cells.results.append(file, each)
    table = cells.table
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n")
    command = ["compare_cells.py", "--table", "--results", str(file), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    pipeline("compare_cells").main()
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "old" not in text
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith(("| LSTM", "| GRU"))]
    assert [row[:2] for row in rows] == [["| LSTM", "two"], ["| GRU", "one"]]
    assert (tmp_path / "images" / "cells.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match=r"page\.md has no lines"):
        cells.page.between("a page without marks", table.BEGIN, table.END, "", page)

    speeds = {"settings": "s", "machine": "a computer", "rounds": 5, "rows": [
        {"cell": "gru", "directions": "one", "trained_audio_seconds_per_second": 123.4,
         "real_time_factor": 0.00123},
    ]}  # fmt: skip
    (tmp_path / "r_speed.json").write_text(json.dumps(speeds))
    pipeline("compare_cells").main()
    assert "| 123 | 1.23 |" in page.read_text()
    (tmp_path / "r_speed.json").write_text(json.dumps({**speeds, "settings": "other"}))
    with pytest.raises(DataError, match="other settings"):
        pipeline("compare_cells").main()
    cells.results.append(file, line("gru", "two", settings="t"))
    with pytest.raises(DataError, match=r"several settings \(s, t\)"):
        pipeline("compare_cells").main()


def test_docs_cells_says_what_the_results_file_says(cells, pipeline):
    table, file = cells.table, pipeline("compare_cells").RESULTS
    lines = cells.results.read(file, cells.rows.KEYS)
    speeds = table.read_speed(pipeline("compare_cells").speed_of(file), lines)
    page = table.PAGE.read_text(encoding="utf-8")
    assert f"{table.BEGIN}\n{table.markdown(lines, speeds)}\n{table.END}" in page
    assert len({line["settings"] for line in lines}) <= 1


def test_points_of_nearly_the_same_cost_are_drawn_side_by_side_in_their_order(cells):
    placed = cells.figure.apart([40.0, 41.0, 10.0, 39.5, 25.0])
    assert (placed[2], placed[4]) == (10.0, 25.0)
    group = [placed[i] for i in (0, 1, 3)]
    assert np.diff(group) == pytest.approx(cells.figure.GAP * 41)
    assert np.mean(group) == pytest.approx(np.mean([40.0, 41.0, 39.5]))
    assert len(cells.figure.COLOURS) == len(cells.figure.MARKS) == len(CELLS)


# Gradients


def test_reach_is_the_farthest_frame_at_or_above_the_fraction(cells):
    reach = cells.table.reach
    assert reach([1.0, 0.5, 0.1, 0.05], 0.1) == 2
    assert reach([0.05, 0.2, 1.0, 0.3, 0.01], 0.1) == 3  # an output that lags behind what it heard
    assert reach([1.0, 0.9], 0.1) == 1
    assert reach([1.0], 0.1) == 0


def test_the_profile_is_that_of_differences(cells, monkeypatch):
    """The derivative by each feature, taken as a difference. 2 % of the largest norm: float32
    differences over a step of 0.01."""
    import tensorflow as tf

    from speechrnn import model as network

    model = network.build(recogniser(units=6, layers=1, cell="simple_rnn"), 3)
    features = np.random.default_rng(0).normal(size=(1, 12, 10)).astype(np.float32)
    step = 0.01 * np.eye(120, dtype=np.float32).reshape(120, 12, 10)

    def logits(x):
        return model(tf.constant(x), tf.fill([len(x)], 12), training=False).numpy()

    at = 2
    monkeypatch.setattr(cells.reach, "_places", lambda logits, count: np.array([at]))
    label = logits(features)[0, at].argmax()
    gradient = (logits(features + step) - logits(features - step))[:, at, label] / 0.02
    norms = np.linalg.norm(gradient.reshape(6, 20), axis=1)  # 6 outputs of 2 frames of 10 features
    found = cells.reach.profile(model, {"features": features, "frames": tf.constant([12])})
    np.testing.assert_allclose(found.back, (norms / norms.max())[at::-1], atol=0.02)
    np.testing.assert_allclose(found.ahead, (norms / norms.max())[at:], atol=0.02)


def test_outputs_are_those_at_which_symbols_begin(cells):
    best = np.array([0, 2, 2, 0, 1, 3, 0, 0, 1, 0])
    logits = np.eye(4)[best]
    assert cells.reach._places(logits, 4).tolist() == [1, 4, 5, 8]
    assert cells.reach._places(logits, 2).tolist() == [1, 8]
    assert cells.reach._places(np.eye(4)[[0, 0, 0]], 2).tolist() == [0, 2]


# Real trainings


def test_a_row_is_scored_with_the_weights_of_its_last_epoch(cells, compared, tmp_path, monkeypatch):
    """No epoch is chosen on the split that is scored."""
    comparison = compared("training.learning_rate=0.01", "training.epochs=3")
    job = cells.rows.Job("training", "gru", "one", 1, 0.01)
    folder = tmp_path / "job"
    recipe = comparison.recipe_of(job, 8, folder)
    cells.training.Order(job, comparison.settings, export=False).write(folder, recipe)
    monkeypatch.setattr(cells.training.threads, "configure", lambda threads: None)
    told = cells.training.train_one(folder)
    assert cells.training.finished(folder, job, comparison.settings) == told
    assert cells.training.finished(folder, job, "of others") is None
    validations = history(folder / "run")
    # Batches of another length sum floats in another order: at most a word differs of 24.
    assert told["wer"] == pytest.approx(validations[-1]["wer"], abs=1 / 24)
    assert told["dev_loss"] == validations[-1]["dev_loss"]
    assert told["best_wer"] == pytest.approx(min(v["wer"] for v in validations), abs=1e-5)
    assert told["curve"][-1][0] == told["epochs"] == 3
    assert sum(words for _, words in told["by_speaker"].values()) == 24
    assert told["gradient_back"][0] > 0
    assert told["latency_ms"] > 300
    assert cells.table.pooled([told])[0].wer == pytest.approx(told["wer"])


@pytest.fixture
def command(tmp_path, whistles):
    """command("--cells", ...): the script on whistles, started; ``communicate`` waits for it."""
    recipe_file = write_recipe(tmp_path, whistles, model={"units": 8}, training={"epochs": 6})
    page = tmp_path / "cells.md"
    page.write_text("<!-- compare_cells: begin -->\n<!-- compare_cells: end -->\n")
    script = [sys.executable, str(PIPELINES / "compare_cells.py"), "--recipe", str(recipe_file)]
    script += ["--data", str(whistles), "--output", str(tmp_path / "out"), "--page", str(page)]
    script += ["--results", str(tmp_path / "r.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "2"}

    def start(*arguments):
        return subprocess.Popen(
            [*script, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.long
def test_two_rows_with_two_seeds_stopped_once(command, cells, tmp_path):
    arguments = ("--cells", "simple_rnn,gru", "--directions", "one", "--seeds", "1,2")
    arguments += ("training.learning_rate=0.01",)
    first = command(*arguments)
    while not list((tmp_path / "out").glob("*/training-*/run/history.jsonl")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    first.communicate()
    assert first.returncode == 143

    second = command(*arguments)
    _, told = second.communicate()
    assert second.returncode == 0, told
    logs = "".join(path.read_text() for path in (tmp_path / "out").glob("*/training-*/log.txt"))
    assert "going on from epoch" in logs
    lines = cells.results.read(tmp_path / "r.jsonl", cells.rows.KEYS)
    assert len(lines) == 4
    # One seed of each is exported.
    assert {("int8_bytes" in line, line["seed"]) for line in lines} == {(True, 1), (False, 2)}
    assert (tmp_path / "images" / "cells.png").exists()

    _, told = (measuring := command("--speed", *arguments[:4], arguments[-1])).communicate()
    assert measuring.returncode == 0, told
    measured = json.loads((tmp_path / "r_speed.json").read_bytes())
    assert all(row["real_time_factor"] > 0 for row in measured["rows"])
    assert "simple_rnn" in {row["cell"] for row in measured["rows"]}
    third = command(*arguments, "model.dropout=0.2")
    assert "other settings" in third.communicate()[1]
    assert third.returncode == 2
