"""The fused LSTM keeps state between calls; nobody who uses our runtime notices."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import build, speech

from speechrnn.errors import ModelError, UsageError
from speechrnn.export import fused, gate, lowering, tflite
from speechrnn.runtime import Recognizer, container
from speechrnn.runtime.tensorflow import KerasRecognizer

EXPORTED = {
    # Twice the initial weights would make chaos of a second of audio, in the nested form too.
    "float32": {"layers": 2, "sharpen": 1.0},
    "float16": {"layers": 2, "bidirectional": False, "subsampling": "stack"},
    # Matrices of less than 1024 numbers, and so an LSTM of less than 32 units, stay in float32.
    "int8": {"units": 40, "features": {"normalisation": "utterance"}},
}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """precision -> the report, the file, the Keras model's recogniser."""

    @functools.cache
    def export(precision):
        model, spec = build(cell="lstm", **EXPORTED[precision])
        out = tmp_path_factory.mktemp("fused") / "model.tflite"
        report = tflite.export_tflite(
            model, spec, {"name": "tiny"}, out, precision, lowering="fused"
        )
        return report, out, KerasRecognizer(model, spec, {})

    return export


@pytest.fixture(params=["float32", pytest.param("float16", marks=pytest.mark.long), "int8"])
def exported(request, export):
    return export(request.param)


@pytest.fixture
def in_float32(export):
    return export("float32")[1]


def fused_operators(path):
    """(operation, types of its tensors by index) of each fused LSTM in the file."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(container.read(path).model_bytes), 0)
    for subgraph in model.subgraphs:
        types = [tensor.type for tensor in subgraph.tensors]
        for operator in subgraph.operators:
            if isinstance(operator.builtinOptions, schema.UnidirectionalSequenceLSTMOptionsT):
                yield operator, types


def test_each_direction_of_each_layer_is_one_operation_and_there_is_no_loop(exported):
    report, out, reference = exported
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in report.operations
    assert "WHILE" not in report.operations
    found, model = list(fused_operators(out)), reference.spec.model
    assert len(found) == model.layers * (1 + model.bidirectional)
    stored = {"float32": "FLOAT32", "float16": "FLOAT32", "int8": "INT8"}[report.precision]
    for operator, types in found:
        # Inputs 1 to 8 are the kernels; those of float16 come out of a DEQUANTIZE.
        kernels = {types[index] for index in operator.inputs[1:9]}
        assert kernels == {getattr(schema.TensorType, stored)}


def test_the_fused_file_gives_the_models_posteriors(exported):
    report, out, reference = exported
    device = Recognizer(out)
    assert device.card == {"name": "tiny", "precision": report.precision, "lowering": "fused"}
    # Of posteriors, in the mean: as for the nested form in test_export.
    tolerance = {"float32": 1e-5, "float16": 2e-3, "int8": 2e-2}[report.precision]
    silence = np.zeros(9000, np.float32)
    for waveform in (speech(0.9), speech(2.3), speech(0.025), silence, speech(0.9)):
        found, expected = device.log_probs(waveform), reference.log_probs(waveform)
        assert np.abs(np.exp(found) - np.exp(expected)).mean() <= tolerance
        if report.precision == "float32":
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


LENGTHS = (400, 5000, 5001, 12345)  # samples: few, for only the same length again meets old state
RECORDINGS = {samples: speech(1, seed=samples)[:samples] for samples in LENGTHS}


def alone(path):
    """The log_probs of each recording, each from a recogniser that has heard nothing else."""
    return {samples: Recognizer(path).log_probs(wave) for samples, wave in RECORDINGS.items()}


def test_the_second_call_of_a_length_gives_what_the_first_gave(exported):
    device, expected = Recognizer(exported[1]), alone(exported[1])
    for samples in (5000, 5000, 12345, 12345, 400, 400, 5001, 5000, 5000):
        np.testing.assert_array_equal(device.log_probs(RECORDINGS[samples]), expected[samples])


def test_results_do_not_depend_on_the_calls_before(in_float32):
    device, expected = Recognizer(in_float32), alone(in_float32)

    @settings(max_examples=60)
    @given(
        before=st.lists(st.sampled_from(LENGTHS), max_size=4),
        samples=st.sampled_from(LENGTHS),
        loudness=st.sampled_from([0.0, 0.3, 2.0]),
    )
    def check(before, samples, loudness):
        for length in before:
            device.log_probs(loudness * RECORDINGS[length])
        np.testing.assert_array_equal(device.log_probs(RECORDINGS[samples]), expected[samples])

    check()


def test_threads_may_share_a_recogniser_of_a_fused_file(in_float32):
    device, expected = Recognizer(in_float32), alone(in_float32)
    calls = LENGTHS * 10
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda samples: device.log_probs(RECORDINGS[samples]), calls))
    for samples, found in zip(calls, together, strict=True):
        np.testing.assert_array_equal(found, expected[samples])


def test_a_runner_that_does_not_reset_gives_other_results(exported):
    model_bytes = container.read(exported[1]).model_bytes
    interpreter = Interpreter(model_content=model_bytes, num_threads=1)
    run = interpreter.get_signature_runner("transcribe")
    first, second = (run(waveform=RECORDINGS[5000])["log_probs"].copy() for _ in range(2))
    assert np.abs(np.exp(first) - np.exp(second)).max() > 0.1
    interpreter.reset_all_variables()
    np.testing.assert_array_equal(run(waveform=RECORDINGS[5000])["log_probs"], first)


def test_the_gate_notices_a_missing_reset(exported):
    _, out, reference = exported
    device = Recognizer(out)
    device._keeps_state = False
    with pytest.raises(ModelError, match="keeps state"):
        gate.compare(device, reference)


@pytest.mark.long
def test_memory_cells_may_count_for_longer_than_the_converters_limit(tmp_path, monkeypatch):
    """The converter limits them to 10 either way; nothing in Keras does."""
    model, spec = build(cell="lstm", bidirectional=False)
    kernel, recurrent, bias = model.recurrent[0].get_weights()
    bias[spec.model.units : 2 * spec.model.units] = 8  # nothing is forgotten: the cells add up
    model.recurrent[0].set_weights([kernel, recurrent, bias])
    arguments = (model, spec, {}, tmp_path / "m.tflite", "float32")
    converted = []
    monkeypatch.setattr(tflite, "without_clipping", lambda flatbuffer: (
        converted.append(flatbuffer) or fused.without_clipping(flatbuffer)))  # fmt: skip
    tflite.export_tflite(*arguments, lowering="fused")
    device, reference = Recognizer(tmp_path / "m.tflite"), KerasRecognizer(model, spec, {})
    found, expected = (recogniser.log_probs(speech(3)) for recogniser in (device, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(tflite, "_convert", lambda *_: converted[0])
    with pytest.raises(ModelError, match="its results are not the model's"):
        tflite.export_tflite(*arguments, lowering="fused")


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "clockwork", "depth_gated"])
def test_other_cells_are_refused_by_name(cell, tmp_path):
    model, spec = build(cell=cell)
    with pytest.raises(UsageError, match=f"for the cell lstm; this model's is {cell}"):
        tflite.export_tflite(model, spec, {}, tmp_path / "m.tflite", "float32", lowering="fused")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_lowering_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="lowering is 'unrolled'; choose nested, fused"):
        tflite.export_tflite(*build(), {}, tmp_path / "m.tflite", "float32", lowering="unrolled")


def test_a_fused_file_does_not_stream_and_says_what_does(export):
    report, out, reference = export("float16")
    assert reference.spec.streams
    model, spec = build(cell="lstm", bidirectional=False)
    with pytest.raises(UsageError, match="--lowering nested"):
        lowering.LoweredRecogniser(model, spec, lowering="fused").step()
    assert {found.form for found in report.differences} == {"whole"}
    interpreter = Interpreter(model_content=container.read(out).model_bytes)
    assert set(interpreter.get_signature_list()) == {"transcribe", "features"}
    device = Recognizer(out)
    assert not device.streams
    with pytest.raises(ModelError, match=r"whole recordings only.*--lowering nested"):
        device.stream()


def test_the_command_exports_the_fused_form(speechrnn, trained, whistles, tmp_path):
    out, clip = tmp_path / "m.tflite", whistles.parent / "u060.wav"
    assert speechrnn("export", trained, out, "--lowering", "fused")[0] == 0
    assert '"lowering": "fused"' in speechrnn("info", out, "--json")[1]
    texts = [speechrnn("transcribe", clip, "--model", model)[1] for model in (out, trained)]
    assert texts[0] == texts[1] != "\n"
    code, _, complaint = speechrnn("export", trained, out, "--lowering", "unrolled")
    assert code == 2 and "nested or fused" in complaint
