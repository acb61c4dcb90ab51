"""What is exported computes what the Keras model computes, or is not written."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speechrnn import layers
from speechrnn import model as network
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.rejection import Rejection
from speechrnn.errors import ModelError, UsageError
from speechrnn.export import front_end, gate, lowering, savedmodel, tflite
from speechrnn.export.convert import convert
from speechrnn.features import graph
from speechrnn.features.reference import dct_matrix, mel_filters
from speechrnn.runtime import Recognizer, container, open_model
from speechrnn.runtime.benchmark import size_of
from speechrnn.runtime.tensorflow import KerasRecognizer, SavedModelRecognizer
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics
from speechrnn.text import Alphabet
from speechrnn.training.run import Recording

SYMBOLS = (" ", "a", "b", "é", "ש", "ch")


def build(features=None, sharpen=2.0, **model):
    """A small recogniser whose larger weights and random statistics make it write something."""
    features = FeatureSpec(**(features or {}))
    rng = np.random.default_rng(1)
    statistics = None
    if features.normalisation == "global":
        statistics = Statistics(
            mean=tuple(rng.normal(-6, 1, features.dimension).tolist()),
            std=tuple(rng.uniform(2, 4, features.dimension).tolist()),
        )
    spec = RecogniserSpec(
        features=features,
        alphabet=AlphabetSpec(SYMBOLS),
        model=ModelSpec(**{"units": 8, "layers": 1, "conv_channels": 12, **model}),
        statistics=statistics,
    )
    recogniser = network.build(spec, seed=1)
    # Biases too: a gate order or a second bias that is mixed up must show.
    weights = [sharpen * w + rng.normal(0, 0.2, w.shape) for w in recogniser.get_weights()[:-1]]
    recogniser.set_weights([*weights, *recogniser.get_weights()[-1:]])
    return recogniser, spec


def speech(seconds, seed=0):
    """Noise whose colour and loudness change, in a recording with a loud hum at 100 Hz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    colour = np.convolve(rng.normal(size=len(time)), rng.normal(size=9), "same")
    hum = 0.4 * np.sin(2 * np.pi * 100 * time)
    return (0.02 * colour * (1.2 + np.sin(9 * time)) + hum).astype(np.float32)


LOWERED = [
    {"cell": "lstm", "subsampling": "conv", "time_stride": 3, "layers": 2},
    {"cell": "gru", "subsampling": "stack", "time_stride": 4, "features": {"kind": "mfcc"}},
    {"cell": "clockwork", "units": 12, "periods": (1, 2, 5), "layers": 2},
    {"cell": "depth_gated", "layers": 3},
    {"cell": "depth_gated", "layers": 2, "bidirectional": False, "layer_norm": False},
    {
        "cell": "simple_rnn", "bidirectional": False, "layer_norm": False, "time_stride": 4,
        "features": {"kind": "log_spectrogram", "normalisation": "utterance", "fft_length": 512},
    },
]  # fmt: skip


@pytest.mark.parametrize("case", LOWERED, ids=lambda case: case["cell"])
def test_lowered_graph_equals_keras_at_any_length(case):
    model, spec = build(**case)
    lowered, reference = lowering.LoweredRecogniser(model, spec), KerasRecognizer(model, spec, {})
    hop, stride = spec.features.hop_samples, spec.model.time_stride
    # One output frame, and the frames around one block and two.
    for frames in (1, 31, 32, 33, 64, 65):
        waveform = speech((400 + (frames * stride - 1) * hop) / 16000, seed=frames)
        found = lowered.transcribe(waveform)["log_probs"].numpy()
        assert found.shape == (frames, len(SYMBOLS) + 1)
        # Beside a loud hum the faintest bins are float32's rounding errors, and another FFT has
        # others: TensorFlow's is 0.004 from float64 in the logarithm, the device's 0.01.
        limit = 3e-4 if spec.features.kind == "log_spectrogram" else 1e-4
        np.testing.assert_allclose(found, reference.log_probs(waveform), rtol=limit, atol=limit)


@pytest.mark.parametrize("layer", [layers.GRU(5, return_sequences=True), layers.ClockworkRNN(
    6, periods=(1, 2, 5), return_sequences=True)], ids=lambda layer: layer.name)  # fmt: skip
def test_the_nested_loops_are_the_layers_scan_around_a_block_of_every_level(layer):
    blocks = [level for level in lowering.LEVELS if level > 1]
    x = np.random.default_rng(0).normal(size=[max(blocks) + 1, 3]).astype(np.float32)
    expected = layer(x[np.newaxis])[0].numpy()
    loops = lowering.Recurrent(layer)
    run = tf.function(lambda x: loops(x)[0], input_signature=[tf.TensorSpec([None, 3])])
    for frames in (1, *(level + more for level in blocks for more in (-1, 0, 1))):
        # Rounding: the products with the inputs are added up in another order.
        np.testing.assert_allclose(run(x[:frames]), expected[:frames], rtol=0, atol=1e-6)


@pytest.mark.parametrize("features", [{}, {"mels": 23}, {"mels": 128, "fft_length": 256,
                                                         "window_ms": 16.0}])  # fmt: skip
def test_features_are_computed_with_weights_too_small_to_be_quantised(features):
    spec = FeatureSpec(**features)
    for matrix in (mel_filters(spec), dct_matrix(spec.mels, 20)):
        covered = np.zeros_like(matrix)
        for rows, columns in front_end.small_blocks(matrix):
            assert matrix[rows, columns].size < front_end.SMALL_WEIGHTS
            covered[rows, columns] += matrix[rows, columns]
        np.testing.assert_array_equal(covered, matrix)


@pytest.mark.parametrize("layer", [keras.layers.LSTM(8), layers.LSTM(8, activation="relu")])
def test_a_layer_without_lowering_is_named(layer):
    model, spec = build()
    model.recurrent[0] = layer
    with pytest.raises(ModelError, match="LSTM, has no form for TFLite; the layers of speechrnn"):
        lowering.LoweredRecogniser(model, spec)


@pytest.mark.parametrize(("length", "window"), [(8, 5), (16, 16), (256, 200), (512, 400),
                                                 (1024, 800), (2048, 2048)])  # fmt: skip
def test_the_power_spectrum_of_products_is_that_of_the_fft(length, window):
    frames = np.random.default_rng(length).normal(size=(1, 7, window)).astype(np.float32)
    expected = np.abs(np.fft.rfft(frames.astype(np.float64), length)) ** 2
    for product in (front_end.ExactProduct(), front_end.HalvesProduct()):
        found = front_end.power_spectrum(tf.constant(frames), length, product)
        np.testing.assert_allclose(found, expected, atol=2e-6 * expected.max())


EXPORTED = [
    ("float32", {"cell": "lstm", "subsampling": "conv"}),
    ("float16", {"cell": "simple_rnn", "subsampling": "stack", "time_stride": 2}),
    ("float32", {"cell": "clockwork", "periods": (1, 2, 4, 8)}),
    ("float16", {"cell": "depth_gated", "layers": 2}),
    ("int8", {"cell": "gru", "bidirectional": False, "units": 40, "features": {
        "normalisation": "utterance"}}),
]  # fmt: skip


@pytest.fixture(scope="module", params=EXPORTED, ids=lambda param: f"{param[1]['cell']}-{param[0]}")
def exported(request, tmp_path_factory):
    precision, case = request.param
    model, spec = build(**case)
    out = tmp_path_factory.mktemp("export") / "new folder" / "model.tflite"
    report = tflite.export_tflite(model, spec, {"name": "tiny"}, out, precision)
    return report, out, KerasRecognizer(model, spec, {}), model


def test_tflite_gives_the_models_posteriors(exported):
    report, out, reference, _ = exported
    device = Recognizer(out)
    assert device.spec == reference.spec
    assert device.card == {
        "name": "tiny", "precision": report.precision, "lowering": "nested"
    }  # fmt: skip
    # Of posteriors from 0 to 1, the mean difference. float32: the order of sums; float16 and
    # int8: weights rounded to 11 and 8 bits. With the filterbank in int8 it would be 0.1.
    tolerance = {"float32": 1e-5, "float16": 2e-3, "int8": 2e-2}[report.precision]
    silence = np.zeros(9000, np.float32)
    for waveform in (speech(0.9), speech(2.3), speech(0.03), silence, speech(0.9)):
        found, expected = device.log_probs(waveform), reference.log_probs(waveform)
        assert found.shape == expected.shape
        assert np.abs(np.exp(found) - np.exp(expected)).mean() <= tolerance


def test_a_file_gives_the_same_at_every_call_and_every_length(exported):
    """Nothing that a call leaves behind, in memory that is used again, may reach the next."""
    rng, device = np.random.default_rng(0), Recognizer(exported[1])
    for samples in rng.integers(400, 20000, 12):
        waveform = speech(samples / 16000, seed=int(samples))
        first = Recognizer(exported[1]).log_probs(waveform)
        for _ in range(3):
            np.testing.assert_array_equal(device.log_probs(waveform), first)


def test_the_signatures_give_tokens_and_features(exported):
    report, out, reference, _ = exported
    interpreter = Interpreter(model_content=container.read(out).model_bytes, num_threads=1)
    assert {"transcribe", "features"} <= set(interpreter.get_signature_list())
    for waveform in (speech(2.3), np.zeros(2000, np.float32)):
        found = interpreter.get_signature_runner("transcribe")(waveform=waveform)
        tokens = greedy(found["log_probs"], reference.alphabet).tokens
        assert found["tokens"].tolist() == [token.label for token in tokens]
        assert found["frames"].tolist() == [token.start_frame for token in tokens]
        features = interpreter.get_signature_runner("features")(waveform=waveform)["features"]
        spec = reference.spec
        expected = graph.features(waveform[None], spec.features)
        expected = graph.normalise(expected, expected.shape[1:2], spec.statistics)[0]
        if report.precision == "float16":  # the window's and the normalisation's rounding
            assert np.abs(features - expected).mean() < 5e-3
        else:
            np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)


def test_tflite_has_builtin_operations_and_a_report_beside_it(exported):
    report, out, _, _ = exported
    # Without the last one a loop's outputs are put together anew at every turn.
    assert {"WHILE", "FULLY_CONNECTED", "DYNAMIC_UPDATE_SLICE"} <= set(report.operations)
    # Its second call gives other results: see front_end.power_spectrum.
    assert "RFFT2D" not in report.operations
    assert not [op for op in report.operations if op.startswith("Flex") or "VAR" in op]
    assert out.stat().st_size == report.size_bytes
    saved = json.loads((out.parent / "model.tflite.report.json").read_text())
    assert saved["size_bytes"] == report.size_bytes
    assert [found["seconds"] for found in saved["differences"]] == list(gate.PROBE_SECONDS)
    assert saved["wer"] == {} and "gone" in report.summary()  # there was no recording to score


def test_a_file_that_computes_something_else_is_not_written(exported, monkeypatch, tmp_path):
    report, out, _, model = exported
    spec = container.read(out).spec
    other = network.build(spec, seed=1)
    other.set_weights([0.7 * w for w in model.get_weights()])
    flatbuffer = container.read(out).model_bytes
    monkeypatch.setattr(tflite, "_convert", lambda *_: flatbuffer)
    with pytest.raises(ModelError, match="its results are not the model's"):
        tflite.export_tflite(other, spec, {}, tmp_path / "bad.tflite", report.precision)
    assert list(tmp_path.iterdir()) == []


REPORT = gate.ExportReport(
    path="m.tflite", precision="int8", size_bytes=1_100_000, parameters=1_000_000,
    operations=("ADD", "WHILE"),
    differences=(gate.Difference("whole", "a sound", 1.0, 0.1, 0.01, 0.01),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ("ADD", "FlexTensorListReserve")}, "needs FlexTensorListReserve"),
        ({"operations": ("MyCustomOp",)}, "needs MyCustomOp"),
        ({"operations": ("READ_VARIABLE", "VAR_HANDLE")}, "needs READ_VARIABLE, VAR_HANDLE"),
        ({"size_bytes": 50_000}, "explain 1000000 to"),  # the weights were left behind
        ({"size_bytes": 4_100_000}, "explain 1000000 to"),  # or are not in int8
        (
            {"differences": (gate.Difference("whole", "a sound", 1.0, 0.1, float("nan"), 0.0),)},
            "not the model's",
        ),
        (
            {"differences": (gate.Difference("whole", "a sound", 1.0, 0.1, 0.01, 0.2),)},
            "not the model's",
        ),
        (
            {"recordings": 100, "words": 1000, "wer": {"keras": 0.1, "tflite": 0.106}},
            "on 100 recordings is 10.60%, the model's 10.00%",
        ),
    ],
)
def test_the_gate_refuses(change, message):
    gate.refuse_unfit(REPORT)
    # Two words of a hundred may go either way.
    few = {"recordings": 9, "words": 100, "wer": {"keras": 0.1, "tflite": 0.12}}
    gate.refuse_unfit(dataclasses.replace(REPORT, **few))
    with pytest.raises(ModelError, match=message):
        gate.refuse_unfit(dataclasses.replace(REPORT, **change))


def test_the_gate_refuses_a_model_that_keeps_state():
    model, spec = build()
    reference, calls = KerasRecognizer(model, spec, {}), []

    class Stateful(KerasRecognizer):
        def _posteriors(self, waveform):
            calls.append(waveform)
            return super()._posteriors(waveform) - 1e-6 * len(calls)

    assert len(gate.compare(reference, reference)) == 2
    with pytest.raises(ModelError, match="second call"):
        gate.compare(Stateful(model, spec, {}), reference)


def test_a_failed_conversion_shows_what_the_converter_said(tmp_path):
    with pytest.raises(ModelError, match="SavedModel file does not exist"):
        convert(tmp_path / "absent", "float32")


def test_an_unknown_precision_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="float32, float16, int8"):
        tflite.export_tflite(*build(), {}, tmp_path / "m.tflite", "int4")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    model, spec = build(cell="gru", layers=2)
    out = tmp_path_factory.mktemp("saved") / "model"
    report = savedmodel.export_savedmodel(model, spec, {"name": "tiny"}, out)
    return Path(report.path), KerasRecognizer(model, spec, {})


WITHOUT_SPEECHRNN = """
import sys, numpy as np
sys.modules["speechrnn"] = None  # importing it fails
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
batch = np.load(sys.argv[2])
out = serve(waveform=batch["waveform"], lengths=batch["lengths"])
np.savez(sys.argv[3], **{name: value.numpy() for name, value in out.items()})
"""


def test_savedmodel_runs_without_speechrnn_and_batch_mates_change_nothing(served, tmp_path):
    out, reference = served
    rows = [speech(1.1), speech(0.7, seed=1), speech(0.02), speech(2, seed=2)]
    rows.append(np.zeros(0, np.float32))
    lengths = np.array([len(row) for row in rows], np.int32)
    waveform = np.full([len(rows), lengths.max() + 777], 0.5, np.float32)  # padded with anything
    for i, row in enumerate(rows):
        waveform[i, : len(row)] = row
    np.savez(tmp_path / "batch.npz", waveform=waveform, lengths=lengths)
    command = [sys.executable, "-c", WITHOUT_SPEECHRNN, str(out), "batch.npz", "out.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz", allow_pickle=True)  # strings: our own file
    for i, row in enumerate(rows):
        alone = reference.transcribe(row)
        frames = found["frames"][i]
        assert found["text"][i].decode() == alone.text
        assert frames == len(alone.log_probs)
        assert found["confidence"][i] == pytest.approx(alone.confidence, abs=1e-5)
        np.testing.assert_allclose(
            found["log_probs"][i, :frames], alone.log_probs, rtol=1e-4, atol=1e-5
        )
        tokens = found["tokens"][i]
        assert reference.alphabet.decode(tokens[tokens > 0]) == alone.text
    assert found["text"][0] and not found["text"][2] and not found["text"][4]


def test_tensorflows_own_command_runs_the_savedmodel(served, tmp_path):
    out, reference = served
    waveform = speech(1.1)
    np.save(tmp_path / "waveform.npy", waveform[None])
    np.save(tmp_path / "lengths.npy", np.array([len(waveform)], np.int32))
    command = [
        Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", out,
        "--tag_set", "serve", "--signature_def", "serving_default", "--inputs",
        f"waveform={tmp_path / 'waveform.npy'};lengths={tmp_path / 'lengths.npy'}",
        "--outdir", tmp_path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone = reference.transcribe(waveform)
    assert str([alone.text.encode()]) in done.stdout
    np.testing.assert_allclose(
        np.load(tmp_path / "log_probs.npy")[0], alone.log_probs, rtol=1e-4, atol=1e-5
    )


def test_savedmodel_serves_any_batch_size_and_length(served):
    serve = tf.saved_model.load(str(served[0])).signatures["serving_default"]
    for batch, samples in ((1, 0), (3, 4000), (2, 16000)):
        outputs = serve(waveform=tf.zeros([batch, samples]), lengths=tf.fill([batch], samples))
        assert outputs["text"].shape == outputs["frames"].shape == [batch]


def test_savedmodel_recogniser_reads_its_own_alphabet(served):
    out, reference = served
    again = SavedModelRecognizer(out)
    assert (again.spec, again.card) == (reference.spec, {"name": "tiny"})
    assert again.transcribe(speech(1)).text == reference.transcribe(speech(1)).text != ""


def test_savedmodel_checksums_are_those_of_sha256sum(served):
    command = ["sha256sum", "--check", "--strict", "assets.extra/SHA256SUMS"]
    done = subprocess.run(command, cwd=served[0], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(re.findall("OK$", done.stdout, re.M)) >= 4


def test_each_savedmodel_is_the_next_version_and_the_highest_is_the_model(tmp_path):
    model, spec = build(units=2, conv_channels=1)
    out = tmp_path / "model"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds no versions of a SavedModel"):
        savedmodel.export_savedmodel(model, spec, {}, out)
    (out / "thesis.tex").unlink()
    for name in ("first", "second"):
        report = savedmodel.export_savedmodel(model, spec, {"name": name}, out)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["1", "1.report.json", "2", "2.report.json"]
    assert report.path == str(out / "2")
    assert open_model(out).card == {"name": "second"}
    assert open_model(out / "1").card == {"name": "first"}
    (out / "10").mkdir()  # no model in it
    assert open_model(out).card == {"name": "second"}
    assert size_of(out) == size_of(out / "2") > 0


def test_a_savedmodel_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    model, spec = build(units=8, conv_channels=1)
    other = network.build(spec, seed=5)
    honest = savedmodel.service
    monkeypatch.setattr(savedmodel, "service", lambda _, spec: honest(other, spec))
    with pytest.raises(ModelError, match="not the model's"):
        savedmodel.export_savedmodel(model, spec, {}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    sharpness=st.sampled_from([0.5, 5.0, 60.0]),
)
@example(lengths=[0], seed=0, sharpness=1.0)
def test_decoding_in_the_graph_equals_greedy(lengths, seed, sharpness):
    spec = AlphabetSpec((" ", "a", "b", "\u3000", "x y", "ש"))
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(len(lengths), max(*lengths, 1) + 2, spec.size))
    log_probs = tf.nn.log_softmax(tf.constant(logits, tf.float32))
    frames = tf.constant(lengths)
    labels, probabilities = savedmodel.greedy(log_probs, frames)
    texts = savedmodel.text(labels, spec).numpy()
    confidences = savedmodel.confidence(probabilities, log_probs, frames).numpy()
    for i, length in enumerate(lengths):
        expected = greedy(log_probs[i, :length].numpy(), Alphabet(spec))
        assert texts[i].decode() == expected.text
        assert labels[i].numpy().tolist() == [token.label for token in expected.tokens]
        assert confidences[i] == pytest.approx(expected.confidence, abs=1e-6)


def test_only_a_model_that_hears_most_words_rejects_any(tmp_path, monkeypatch):
    """Of one that hears few, speech is as doubtful as noise."""
    model, spec = build(units=4, conv_channels=1)
    out = tmp_path / "m.tflite"
    tflite.export_tflite(model, spec, {}, out, "float32")
    recordings = [Recording(str(i), speech(1), "é é é é", "s") for i in range(100)]
    for right, expected in ((99, False), (199, False), (200, True)):
        found = Rejection(most_doubt=0.5, dev_words_right=right)
        monkeypatch.setattr(tflite, "tune", lambda *_, found=found: found)
        entries = tflite._rejection(Recognizer(out), recordings)
        assert entries == ({"rejection": found.to_dict()} if expected else {})
    monkeypatch.undo()  # without recordings there is nothing to tune on
    assert tflite._rejection(Recognizer(out), []) == {}
