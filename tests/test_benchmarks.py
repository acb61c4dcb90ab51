"""The benchmarks: what they count, and one run of the smallest size of each."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

FOLDER = REPOSITORY / "pipelines" / "benchmarks"
SMALLEST = ["--batch=2", "--frames=9", "--units=4", "--layers=1", "--rounds=1", "--seconds=0"]


@pytest.fixture
def script(monkeypatch):
    """script("shapes"): a module of the benchmark, forgotten again after the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_batch_has_one_full_row_and_labels_that_ctc_can_write(script):
    shapes = script("shapes")
    x, frames, labels = shapes.draw_batch(shapes.Shape("lstm", batch=16, frames=100))
    assert x.shape == (16, 100, 512) and x.dtype == np.float32
    assert frames.max() == frames[0] == 100 and frames.min() >= 60
    counts = np.count_nonzero(labels, axis=1)
    np.testing.assert_array_equal(counts, frames // 8)
    repeats = np.sum((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != 0), axis=1)
    assert np.all(counts + repeats <= frames)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru", "depth_gated"])
def test_multiply_adds_are_those_of_the_layers_own_matrices(script, cell):
    # Every element of a matrix is used once in each frame.
    shapes, stack = script("shapes"), script("tensorflow_stack")
    shape = shapes.Shape(cell, batch=2, frames=5, units=4, layers=3, features=6, symbols=7)
    built = stack.TensorFlowStack("keras-rnn-cell", shape)
    matrices = [w for w in built.weights if len(w.shape) == 2 and w.name.endswith("kernel")]
    forward = 2 * 5 * sum(int(np.prod(w.shape)) for w in matrices)
    lowest = sum(int(np.prod(w.shape)) for w in matrices if w.shape[0] == 6)
    found = shapes.multiply_adds(shape, padding=True)
    # Backward each product has two, but the features need no gradient.
    assert found == {"infer": forward, "train": 3 * forward - 2 * 5 * lowest}


def test_multiply_adds_of_a_clockwork_layer_count_its_ticks(script):
    shapes = script("shapes")
    shape = shapes.Shape("clockwork", units=4, features=6, periods=(1, 4))
    # The slow module ticks at frames 0, 4 and 8, the fast one at all nine and hears both.
    by_input, by_output = shapes.layer_multiply_adds(shape, 0, np.array([9]))
    assert by_input == 9 * 2 * 6 + 3 * 2 * 6
    assert by_output == 9 * 2 * 4 + 3 * 2 * 2


def test_an_implementation_that_fails_says_with_which_error(script):
    workers, shapes = script("workers"), script("shapes")
    with pytest.raises(script("implementations").LeftOut, match="ValueError: 5 units do not"):
        workers.Worker("ours-float32", shapes.Shape("clockwork", 2, 9, units=5))


def test_ratios_are_quotients_of_times_and_pytorch_is_its_faster_row(script):
    implementations, records = script("implementations"), script("records")
    seconds = {
        "keras": 6.0,
        "pytorch-dense": 1.5,
        "pytorch-packed": 2.0,
        "pytorch-packed-bfloat16": 1.0,
        "ours-float32": 3.0,
        "ours-bfloat16": 0.5,
    }
    rows = [
        {
            "implementation": name,
            "precision": implementations.STACKS[name].precision,
            "train": {"median": time},
        }
        for name, time in seconds.items()
    ]
    records.add_ratios(rows, "train", "median")
    ratios = {row["implementation"]: row["train"]["ratios"]["median"] for row in rows}
    assert ratios["ours-float32"]["stock"] == 2 and ratios["ours-float32"]["pytorch"] == 0.5
    assert ratios["ours-bfloat16"]["stock"] == 12 and ratios["ours-bfloat16"]["pytorch"] == 2
    assert ratios["ours-float32"]["pytorch-packed"] == 2 / 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run where PyTorch cannot be imported: its JSON, and what it printed."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "torch.py").write_text("raise ImportError('not here')\n")
    written, printed = folder / "found.json", io.StringIO()
    compared = ["keras", "ours-float32", "pytorch-dense", "pytorch-packed"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(FOLDER))
        importlib.import_module("recurrent").main(
            ["--cells", "lstm", *SMALLEST, "--json", str(written), "--implementations", *compared]
        )
    return json.loads(written.read_text()), printed.getvalue()


def test_the_json_has_what_was_measured(run):
    written, printed = run
    assert {"processor", "cores", "bfloat16", "versions"} <= set(written["machine"])
    assert {"tensorflow", "keras", "python"} <= set(written["machine"]["versions"])
    (result,) = written["results"]
    assert {"cell", "batch", "frames", "units", "layers", "valid_frames"} <= set(result)
    assert set(result["peak_multiply_adds_per_second"]) == {"float32", "bfloat16"}
    keras, ours = result["rows"]
    assert [keras["implementation"], ours["implementation"]] == ["keras", "ours-float32"]
    for action in ("train", "infer"):
        measured = ours[action]
        assert measured["median"] == measured["best"] == measured["rounds"][0] > 0
        assert 0 < measured["share_of_peak"] < 1 and measured["audio_seconds_per_second"] > 0
        quotient = keras[action]["median"] / measured["median"]
        assert measured["ratios"]["median"]["stock"] == pytest.approx(quotient)
    assert ours["peak_memory_bytes"] >= ours["memory_before_bytes"]
    assert "speechrnn" in printed and "audio s/s" in printed


def test_what_is_compared_computes_the_same(run):
    # The same seed gives both the same weights; Keras has its own layers and its own CTC, so only
    # rounding in float32 is left between them.
    keras, ours = run[0]["results"][0]["rows"]
    assert ours["first_loss"] == pytest.approx(keras["first_loss"], rel=1e-5)


def test_a_missing_pytorch_is_said_and_left_out(run):
    found, printed = run
    reason = "PyTorch is not installed: pip install torch"
    assert found["results"][0]["left_out"] == dict.fromkeys(
        ["pytorch-dense", "pytorch-packed"], reason
    )
    assert reason in printed


TINY = ["--units=8", "--layers=2", "--mels=16", "--channels=12", "--symbols=6", "--rounds=1",
        "--seconds=0"]  # fmt: skip


@pytest.fixture(scope="module")
def inference_run(tmp_path_factory):
    """A run of the exported file where nothing else is installed: its JSON, and what it printed."""
    folder = tmp_path_factory.mktemp("inference")
    for package in ("torch", "onnxruntime"):
        (folder / f"{package}.py").write_text("raise ImportError('not here')\n")
    written, printed = folder / "found.json", io.StringIO()
    forms = ["litert-float32", "pytorch-float32", "onnx-int8"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(FOLDER))
        importlib.import_module("inference").main(
            [*TINY, "--json", str(written), "--forms", *forms]
        )
    return json.loads(written.read_text()), printed.getvalue()


def test_inference_is_timed_once_it_agrees_with_keras(inference_run):
    found, printed = inference_run
    (row,) = found["rows"]
    assert row["form"] == "litert-float32" and 0 < row["best"] <= row["median"]
    assert row["difference"] <= 1e-4
    assert "LiteRT" in printed


def test_missing_runtimes_are_said_and_left_out(inference_run):
    found, printed = inference_run
    assert found["left_out"] == {
        "pytorch-float32": "PyTorch is not installed: pip install torch",
        "onnx-int8": "ONNX Runtime is not installed: pip install onnx onnxruntime",
    }
    assert all(reason in printed for reason in found["left_out"].values())


def test_a_form_that_computes_something_else_is_left_out(script):
    networks, left_out = script("networks"), script("implementations").LeftOut
    right = np.log(np.full([5, 3], 1 / 3, np.float32))
    assert networks.difference(right + 0.1, right) == pytest.approx(0.1 / (1 + np.log(3)), rel=1e-5)
    with pytest.raises(left_out, match=r"it gives \(4, 3\) instead of \(5, 3\)"):
        networks.difference(right[1:], right)


@pytest.mark.parametrize(
    "form",
    ["pytorch-float32", "onnx-float32", pytest.param("keras-float32", marks=pytest.mark.long)],
)
def test_the_others_run_the_same_network(script, form, tmp_path):
    package = {"p": "torch", "o": "onnxruntime", "k": "keras"}[form[0]]
    pytest.importorskip(package, reason="optional")
    networks, workers = script("networks"), script("workers")
    tiny = networks.Network(units=8, layers=2, mels=16, channels=3, symbols=6)
    script("exported_network").write(tiny, [0.7], [], tmp_path)
    worker = workers.Worker(form, tiny, folder=str(tmp_path))  # LeftOut if they differ
    worker.measure("difference", 0)
    assert worker.first_result <= networks.FLOAT32_LIMIT
    worker.close()


def test_ratios_of_inference_are_to_the_faster_row_of_onnx_runtime(script):
    rounds = {"litert-int8": [3.0, 2.0], "onnx-float32": [4.0], "onnx-int8": [1.0, 2.0],
              "onnx-int8-float-convolutions": [0.5]}  # fmt: skip
    rows = [{"form": name, "rounds": {"10": times}} for name, times in rounds.items()]
    script("inference").add_ratios(rows, 10.0)
    assert rows[0]["median"] == 2.5
    assert rows[0]["ratios"] == {"of ORT float32": 0.5, "of ORT int8": 4.0}


def test_flashlight_called_directly_hears_the_same_texts(script, tmp_path):
    from test_beam import ALPHABET, WORD_LM, posteriors

    from speechrnn.decoding.beam import BeamDecoder
    from speechrnn.decoding.settings import DecoderSettings

    (tmp_path / "words.arpa").write_text(WORD_LM)
    settings = DecoderSettings(lm=tmp_path / "words.arpa", word_score=0.5)
    theirs = script("beam_search").directly(ALPHABET, settings)
    ours = BeamDecoder(ALPHABET, settings)
    texts = [ours.decode(posteriors(40, seed)).text for seed in range(20)]
    assert [theirs(posteriors(40, seed)) for seed in range(20)] == texts
    assert len(set(texts)) > 10
