"""The device side: a file that is whole or refused, and the recogniser that runs it."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import soundfile
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from speechrnn import runtime
from speechrnn.errors import AudioError, MissingExtra, ModelError
from speechrnn.runtime import Recognizer, container, default_model, open_model
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics

FEATURES = FeatureSpec(mels=20, fft_length=256, window_ms=16.0)
SPEC = RecogniserSpec(
    features=FEATURES,
    alphabet=AlphabetSpec((" ", "a", "β", "ש")),
    model=ModelSpec(cell="gru", units=6, layers=1, subsampling="stack", time_stride=2),
    statistics=Statistics(mean=(-5.0,) * 20, std=(3.0,) * 20),
)
CARD = {"name": "Τεστ", "dev": {"wer": 0.125}, "parameters": 42}


def flatbuffer(weights=b"weights of some length"):
    """The smallest file with TFLite's schema that has something in it."""
    model = schema.ModelT(version=3, description=b"tiny")
    model.buffers = [schema.BufferT(), schema.BufferT(np.frombuffer(weights, np.uint8))]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def recording(seconds=1.5, seed=0):
    rng = np.random.default_rng(seed)
    samples = int(16000 * seconds)
    envelope = 1.1 + np.sin(np.arange(samples) / 900)
    return (0.05 * envelope * rng.normal(size=samples)).astype(np.float32)


def test_a_device_file_gives_back_what_was_packed(tmp_path):
    (tmp_path / "m.tflite").write_bytes(container.pack(flatbuffer(), SPEC, CARD))
    found = container.read(tmp_path / "m.tflite")
    assert (found.spec, found.card) == (SPEC, CARD)
    buffers = schema.ModelT.InitFromPackedBuf(found.model_bytes).buffers
    assert bytes(buffers[1].data) == b"weights of some length"


def test_every_buffer_is_aligned_for_reading_in_place():
    for length in range(1, 40):
        weights = np.random.default_rng(length).bytes(16 + length)
        packed = container.pack(flatbuffer(weights), SPEC, CARD)
        for payload in (weights, container.describe(SPEC, CARD)):
            assert packed.count(payload) == 1
            assert packed.find(payload) % 16 == 0


def test_packing_is_reproducible():
    assert container.pack(flatbuffer(), SPEC, CARD) == container.pack(flatbuffer(), SPEC, CARD)


@pytest.mark.parametrize("damage", ["flip", "cut", "append"])
def test_no_damage_goes_unnoticed_or_reaches_the_parser(damage, tmp_path, monkeypatch):
    whole = container.pack(flatbuffer(bytes(200)), SPEC, CARD)
    path, rng = tmp_path / "m.tflite", np.random.default_rng(0)
    monkeypatch.setattr(schema.Model, "GetRootAs", lambda *_: pytest.fail("parsed before checked"))
    for _ in range(200):
        broken = bytearray(whole)
        if damage == "flip":
            broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        elif damage == "cut":
            del broken[rng.integers(len(whole)) :]
        else:
            broken += rng.bytes(rng.integers(1, 100))
        path.write_bytes(broken)
        with pytest.raises(ModelError, match=r"m\.tflite"):
            container.read(path)


def sealed(content):
    content += container.TRAILER_MAGIC
    return content + hashlib.sha256(content).digest()


def described(**changes):
    description = {**json.loads(container.describe(SPEC, CARD)), **changes}
    return container.parse_description(json.dumps(description).encode(), Path("m.tflite"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a TFLite model"),
        (b"not a model at all " * 20, "not a TFLite model"),
        (flatbuffer(), "ends without speechrnn's checksum"),
        (sealed(flatbuffer()), "no metadata 'speechrnn'"),
        (sealed(b"\xff\xff\xff\x7fTFL3" + b"\xff" * 99), "is no TFLite model"),
    ],
    ids=["empty", "text", "plain tflite", "without metadata", "no flatbuffer"],
)
def test_foreign_files_are_refused(content, message, tmp_path):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Recognizer(tmp_path / "m.tflite")


def test_other_descriptions_are_refused():
    assert described() == (SPEC, CARD)
    with pytest.raises(ModelError, match="has format 2; this version reads 1"):
        described(format=2)
    with pytest.raises(ModelError, match="not one this version reads"):
        described(spec={"features": {"kind": "wavelet"}})
    with pytest.raises(ModelError, match="description is damaged"):
        container.parse_description(b"[]", Path("m.tflite"))


@pytest.fixture(scope="module")
def keras_model():
    from speechrnn import model as network

    model = network.build(SPEC, seed=3)
    model.set_weights([2 * weight for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model_file(keras_model, tmp_path_factory):
    from speechrnn.export.tflite import export_tflite

    path = tmp_path_factory.mktemp("model") / "m.tflite"
    export_tflite(keras_model, SPEC, CARD, path, "float32")
    return path


@pytest.fixture(scope="module")
def recognizer(model_file):
    return Recognizer(model_file)


def test_words_make_up_the_text_and_lie_within_the_recording(recognizer):
    heard = recognizer.transcribe(recording(3))
    assert len(heard.words) > 1
    assert " ".join(word.text for word in heard.words) == heard.text
    times = [time for word in heard.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times) and times[0] >= 0
    assert times[-1] <= heard.duration_s == 3
    assert all(word.start_s < word.end_s for word in heard.words)
    assert 0 < heard.confidence <= 1
    assert heard.log_probs.shape == (SPEC.output_frames(48000), SPEC.alphabet.size)
    np.testing.assert_allclose(np.exp(heard.log_probs).sum(axis=1), 1, atol=1e-5)


def test_a_file_and_its_samples_give_the_same_text(recognizer, tmp_path):
    waveform = recording()
    soundfile.write(tmp_path / "clip.wav", waveform, 16000, subtype="FLOAT")
    expected = recognizer.transcribe(waveform)
    for source in (tmp_path / "clip.wav", str(tmp_path / "clip.wav")):
        found = recognizer.transcribe(source)
        assert (found.text, found.words) == (expected.text, expected.words)


def test_every_sample_type_gives_the_same_posteriors(recognizer):
    pcm = (recording() * 32767).astype(np.int16)
    expected = recognizer.log_probs(pcm)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(recognizer.log_probs(pcm.astype(dtype) / 32768), expected)


def test_calls_do_not_depend_on_each_other(recognizer, model_file):
    first = recognizer.log_probs(recording(0.8))
    recognizer.log_probs(recording(2.1))
    np.testing.assert_array_equal(recognizer.log_probs(recording(0.8)), first)
    np.testing.assert_array_equal(Recognizer(model_file).log_probs(recording(0.8)), first)


def test_threads_may_share_a_recogniser(recognizer):
    clips = [recording(0.3 + 0.1 * i, seed=i) for i in range(8)]
    alone = [recognizer.transcribe(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(recognizer.transcribe, clips * 3))
    for found, expected in zip(together, alone * 3, strict=True):
        assert (found.text, found.words) == (expected.text, expected.words)
        np.testing.assert_array_equal(found.log_probs, expected.log_probs)


@pytest.mark.parametrize("samples", [0, 1, FEATURES.window_samples - 1])
def test_less_than_a_window_is_the_empty_text(recognizer, samples):
    heard = recognizer.transcribe(np.zeros(samples, np.float32))
    assert (heard.text, heard.words, heard.log_probs.shape) == ("", (), (0, 5))


def test_one_window_is_one_frame(recognizer):
    assert recognizer.log_probs(recording()[: FEATURES.window_samples]).shape == (1, 5)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros((2, 9000), np.float32), "channels"),
        (np.zeros(9000, np.int32), "dtype"),
        (np.array([0.0, np.nan] * 4000), "non_finite"),
        (np.full(9000, np.inf, np.float32), "non_finite"),
        (np.full(9000, 1e300), "too_loud"),
        (recording() * 32768, "too_loud"),
    ],
)
def test_unusable_waveforms_are_refused(recognizer, waveform, reason):
    for call in (recognizer.log_probs, recognizer.transcribe):
        with pytest.raises(AudioError) as caught:
            call(waveform)
        assert caught.value.reason == reason


def test_plain_litert_runs_the_file_trailer_and_all(recognizer, model_file):
    run = Interpreter(model_path=str(model_file)).get_signature_runner("transcribe")
    expected = recognizer.log_probs(recording())
    np.testing.assert_array_equal(run(waveform=recording())["log_probs"], expected)


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them fails
from speechrnn.errors import MissingExtra
from speechrnn.runtime import Recognizer, open_model
print(open_model(sys.argv[1]).transcribe(sys.argv[2]).text)
try:
    open_model(sys.argv[3])
except MissingExtra as error:
    print(error)
"""


def test_the_device_needs_no_tensorflow(recognizer, model_file, tmp_path):
    clip, run = tmp_path / "clip.wav", tmp_path / "run"
    soundfile.write(clip, recording(), 16000, subtype="FLOAT")
    run.mkdir()
    (run / "model.json").write_text("{}")
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(model_file), str(clip), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    text, missing = done.stdout.splitlines()
    assert text == recognizer.transcribe(clip).text
    assert missing == str(MissingExtra("using a run directory or a SavedModel", "train"))


def test_every_form_of_a_model_opens_and_agrees(keras_model, model_file, tmp_path):
    from speechrnn.export.savedmodel import export_savedmodel
    from speechrnn.training import run

    (tmp_path / "run").mkdir()
    run.save(tmp_path / "run", 7, keras_model.get_weights(), SPEC, CARD)
    export_savedmodel(keras_model, SPEC, CARD, tmp_path / "served")
    opened = [open_model(p) for p in (tmp_path / "run", tmp_path / "served", model_file)]
    assert [recogniser.kind for recogniser in opened] == ["run", "savedmodel", "tflite"]
    expected = opened[0].transcribe(recording())
    for recogniser in opened:
        assert recogniser.spec == SPEC
        assert recogniser.card.items() >= CARD.items()
        found = recogniser.transcribe(recording())
        assert found.text == expected.text != ""
        # float32 everywhere: only the order of sums differs.
        np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-4, atol=1e-4)
        assert recogniser.transcribe(np.zeros(3, np.float32)).text == ""


def test_a_damaged_savedmodel_is_refused(keras_model, tmp_path):
    from speechrnn.export.savedmodel import export_savedmodel

    export_savedmodel(keras_model, SPEC, CARD, tmp_path / "m")
    for path in [path for path in (tmp_path / "m" / "1").rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(ModelError):
            open_model(tmp_path / "m")
        path.unlink()
        with pytest.raises(ModelError):
            open_model(tmp_path / "m")
        path.write_bytes(whole)
    open_model(tmp_path / "m")


def test_what_is_no_model_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="a run directory"):
        open_model(tmp_path / "absent")
    with pytest.raises(ModelError, match="a run directory"):
        open_model(tmp_path)
    with pytest.raises(ModelError, match="not a TFLite model"):
        open_model(tmp_path / "notes.txt")
    with pytest.raises(ModelError, match="cannot read the model"):
        Recognizer(tmp_path / "absent.tflite")


def test_the_shipped_model_is_the_only_tflite_file(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "PRETRAINED", tmp_path)
    with pytest.raises(ModelError, match=r"0 \.tflite files"):
        default_model()
    (tmp_path / "an4.tflite").touch()
    assert default_model() == tmp_path / "an4.tflite"
    (tmp_path / "other.tflite").touch()
    with pytest.raises(ModelError, match=r"2 \.tflite files"):
        default_model()
