"""A recording heard piece by piece gives what it gives whole; results end where speech does."""

import io
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn import cli
from speechrnn import model as network
from speechrnn.errors import AudioError, ModelError
from speechrnn.export import lowering, tflite
from speechrnn.runtime import Endpoint, Recognizer, Stream, live
from speechrnn.runtime.reading import Reader
from speechrnn.runtime.tensorflow import KerasRecognizer
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics

SYMBOLS = (" ", "a", "b", "c")


def build(**model):
    """A small recogniser with random weights, biases too."""
    features = FeatureSpec(mels=20, fft_length=256, window_ms=16.0)
    rng = np.random.default_rng(1)
    spec = RecogniserSpec(
        features=features,
        alphabet=AlphabetSpec(SYMBOLS),
        model=ModelSpec(**{"units": 8, "layers": 2, "conv_channels": 3, "bidirectional": False}
                        | model),
        statistics=Statistics(
            tuple(rng.normal(-6, 1, 20).tolist()), tuple(rng.uniform(2, 4, 20).tolist())
        ),
    )  # fmt: skip
    recogniser = network.build(spec, seed=1)
    # Dropout's random state, of integers, stays.
    weights = [
        w + rng.normal(0, 0.4, w.shape) if w.dtype == np.float32 else w
        for w in recogniser.get_weights()
    ]
    recogniser.set_weights(weights)
    return recogniser, spec


def speech(samples, seed=0):
    rng = np.random.default_rng(seed)
    envelope = 1.1 + np.sin(np.arange(samples) / 1900)
    return (0.05 * envelope * rng.normal(size=samples)).astype(np.float32)


class Recorded:
    """A stream of a lowered model, and all log_probs that it was given."""

    def __init__(self, run, state_shapes, spec):
        self.log_probs = [np.zeros([0, spec.alphabet.size], np.float32)]

        def step(waveform, state, final):
            final = tf.constant(int(final))
            tensors = {name: tf.constant(value) for name, value in state.items()}
            outputs = {
                name: value.numpy()
                for name, value in run(
                    waveform=tf.constant(waveform), final=final, **tensors
                ).items()
            }
            self.log_probs.append(outputs.pop("log_probs"))
            assert len(self.log_probs[-1]) > 0 and len(waveform) > 0
            return self.log_probs[-1], outputs

        state = {f"state_{i}": np.zeros(n, np.float32) for i, n in enumerate(state_shapes)}
        state |= {"carried": np.ones(spec.carried_samples, np.float32), "frame": np.int32(0)}
        self.stream = Stream(Reader(spec), state, step, Endpoint())


STREAMING = [
    {"cell": "lstm", "subsampling": "conv", "time_stride": 3},
    {"cell": "gru", "subsampling": "conv", "time_stride": 1},
    {"cell": "simple_rnn", "subsampling": "conv", "time_stride": 2},
    {"cell": "lstm", "subsampling": "conv", "time_stride": 4, "layer_norm": False},
    {"cell": "gru", "subsampling": "conv", "time_stride": 6},
    {"cell": "depth_gated", "subsampling": "stack", "time_stride": 1},
    {"cell": "clockwork", "subsampling": "stack", "time_stride": 3, "periods": (1, 2, 3, 7)},
    {"cell": "gru", "lookahead": 5},
    {"cell": "lstm", "bidirectional": True, "chunk": 5, "right_context": 7},
    *(
        pytest.param(case, marks=pytest.mark.long)
        for case in (
            {"cell": "depth_gated", "subsampling": "stack", "lookahead": 1},
            {"cell": "gru", "bidirectional": True, "chunk": 16, "right_context": 8},
            {"cell": "clockwork", "bidirectional": True, "chunk": 7, "right_context": 3},
            {"cell": "depth_gated", "bidirectional": True, "chunk": 3, "subsampling": "stack"},
        )
    ),
]


@pytest.fixture(scope="module", params=STREAMING, ids=lambda p: "-".join(map(str, p.values())))
def lowered(request):
    model, spec = build(**request.param)
    recogniser = lowering.LoweredRecogniser(model, spec)
    return recogniser, recogniser.step(), spec


@settings(max_examples=12, deadline=None)
@given(pieces=st.lists(st.integers(0, 9000), max_size=9), seed=st.integers(0, 9))
def test_any_pieces_give_the_posteriors_of_the_whole(lowered, pieces, seed):
    recogniser, step, spec = lowered
    waveform = speech(sum(pieces), seed)
    recorded = Recorded(step, recogniser.state_shapes, spec)
    for stop, count in zip(np.cumsum(pieces), pieces, strict=True):
        recorded.stream.feed(waveform[stop - count : stop])
    recorded.stream.finish()
    found = np.concatenate(recorded.log_probs)
    if spec.output_frames(len(waveform)) == 0:
        assert len(found) == 0
    else:
        whole = recogniser.transcribe(waveform)["log_probs"].numpy()
        assert found.shape == whole.shape
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    model, spec = build(cell="lstm")
    out = tmp_path_factory.mktemp("streaming") / "live.tflite"
    report = tflite.export_tflite(model, spec, {"name": "live"}, out, "float32")
    return Recognizer(out), KerasRecognizer(model, spec, {}), report


def words_of(heard):
    return [word for one in heard if one.is_final for word in one.words]


# However long the pauses: all that is said ends up in one result.
ONE_RESULT = Endpoint(silence_after_words=1e9, silence_at_first=1e9, longest=1e9)


@pytest.mark.parametrize("piece", [1, 160, 1000, 5120, 16000, 10**6])
def test_a_device_file_streams_what_it_gives_for_the_whole(device, piece):
    recogniser, _, _ = device
    waveform = speech(16000 if piece > 1 else 700)
    stream, heard = recogniser.stream(ONE_RESULT), []
    for start in range(0, len(waveform), piece):
        heard += stream.feed(waveform[start : start + piece])
    heard.append(stream.finish())
    whole = recogniser.transcribe(waveform)
    assert whole.text
    np.testing.assert_allclose(heard[-1].log_probs, whole.log_probs, rtol=1e-5, atol=1e-5)
    assert [one.text for one in heard if one.is_final] == [whole.text]
    for found, expected in zip(words_of(heard), whole.words, strict=True):
        assert (found.text, found.start_s, found.end_s) == (
            expected.text, expected.start_s, expected.end_s
        )  # fmt: skip
        assert found.confidence == pytest.approx(expected.confidence, abs=1e-4)


def test_int8_weights_do_not_let_one_piece_change_another(tmp_path):
    """Rounding is relative to the largest number of a frame, not of a recording."""
    model, spec = build(cell="gru", conv_channels=12, units=16, layers=1)
    model.set_weights([w * 0.5 if w.dtype == np.float32 else w for w in model.get_weights()])
    report = tflite.export_tflite(model, spec, {}, tmp_path / "int8.tflite", "int8")
    assert [found.form for found in report.differences] == ["whole", "streamed"] * 2
    recogniser = Recognizer(tmp_path / "int8.tflite")
    quiet, loud = speech(16000), 8 * speech(16000, seed=1)
    stream = recogniser.stream(ONE_RESULT)
    stream.feed(quiet)
    stream.feed(loud)
    whole = recogniser.log_probs(np.concatenate([quiet, loud]))
    np.testing.assert_allclose(stream.finish().log_probs, whole, atol=1e-5)
    alone = recogniser.log_probs(quiet)[:-3]  # the last frames read what follows
    np.testing.assert_allclose(alone, whole[: len(alone)], atol=1e-5)


def test_streams_of_one_recogniser_do_not_meet(device):
    recogniser, _, _ = device
    waveforms = [speech(16000, seed) for seed in range(3)]
    streams = [recogniser.stream(ONE_RESULT) for _ in waveforms]
    for start in range(0, 16000, 3000):
        for stream, waveform in zip(streams, waveforms, strict=True):
            stream.feed(waveform[start : start + 3000])
    # What a word's confidence is depends on every frame before it.
    found = [stream.finish().confidence for stream in streams]
    alone = [recogniser.transcribe(waveform).confidence for waveform in waveforms]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert min(np.diff(np.sort(alone))) > 1e-3


def test_streams_and_recordings_in_several_threads_do_not_meet(device):
    recogniser, _, _ = device
    waveforms = [speech(16000 + 800 * seed, seed) for seed in range(4)]

    def streamed(waveform):
        stream = recogniser.stream(ONE_RESULT)
        for start in range(0, len(waveform), 3000):
            stream.feed(waveform[start : start + 3000])
        return stream.finish().log_probs

    alone = [call(w) for w in waveforms for call in (streamed, recogniser.log_probs)]
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(call, w)
            for _ in range(3)
            for w in waveforms
            for call in (streamed, recogniser.log_probs)
        ]
    for call, expected in zip(calls, alone * 3, strict=True):
        np.testing.assert_array_equal(call.result(), expected)


def test_an_ended_stream_and_unusable_samples_are_refused(device):
    stream = device[0].stream()
    with pytest.raises(AudioError, match="must be finite"):
        stream.feed(np.array([0.0, np.nan], np.float32))
    stream.finish()
    for call in (stream.finish, lambda: stream.feed(np.zeros(3, np.float32))):
        with pytest.raises(ValueError, match="finished"):
            call()


def test_models_that_cannot_stream_say_why(device):
    model, spec = build(bidirectional=True, layers=1)
    with pytest.raises(ModelError, match="bidirectional=false"):
        KerasRecognizer(model, spec, {}).stream()
    with pytest.raises(ModelError, match=r"export a \.tflite"):
        device[1].stream()


def scripted(best, endpoint):
    """A stream whose model writes the label ``best[i]`` at frame i of 10 ms."""
    spec = build(cell="gru", layers=1, subsampling="stack", time_stride=1)[1]
    window, hop = spec.features.window_samples, spec.features.hop_samples
    given = 0

    def step(waveform, state, final):
        nonlocal given
        available = 1 + (given_samples[0] - window) // hop
        log_probs = np.log(np.full([available - given, 5], 0.01, np.float32))
        for row, label in zip(log_probs, best[given:available], strict=True):
            row[label] = np.log(0.96)
        given = available
        return log_probs, state

    given_samples = [0]
    stream = Stream(Reader(spec), {}, step, endpoint)

    def feed(frames):
        count = frames * hop + (window - hop + 1 if given_samples[0] == 0 else 0)
        given_samples[0] += count
        return stream.feed(np.zeros(count, np.float32))

    return feed, stream


def test_a_pause_ends_a_result_and_times_go_on():
    a, b, space, nothing = 2, 3, 1, 0
    best = (
        [nothing] * 10 + [a, a, nothing, b] + [space] * 10 + [nothing] * 40 + [b] + [nothing] * 35
    )
    feed, stream = scripted(best, Endpoint(silence_after_words=0.3))
    heard = [one for _ in range(20) for one in feed(5)]
    heard.append(stream.finish())
    finals = [one for one in heard if one.is_final]
    assert [one.text for one in finals] == ["ab", "b", ""]
    assert [(w.text, round(w.start_s, 2)) for w in words_of(heard)] == [("ab", 0.1), ("b", 0.64)]
    # Looked at every 0.05 s: silence, the word and 0.3 s of the pause, of which 0.01 s was heard
    # together with the word; then silence again.
    assert [one.text for one in heard[:11]] == ["", ""] + ["ab"] * 7 + ["", ""]
    assert [one.is_final for one in heard[:11]] == [False] * 8 + [True] + [False] * 2


def test_a_long_result_ends_without_a_pause():
    feed, stream = scripted([2, 0] * 50, Endpoint(longest=0.4))
    heard = [one for _ in range(10) for one in feed(10)]
    finals = [one for one in [*heard, stream.finish()] if one.is_final]
    assert [len(one.text) for one in finals] == [20, 20, 10]


def test_silence_gives_nothing():
    feed, stream = scripted([0] * 300, Endpoint(silence_at_first=0.5))
    heard = [one for _ in range(30) for one in feed(10)]
    assert {one.text for one in heard} == {""} and not any(one.is_final for one in heard)
    assert stream.finish().text == ""


@pytest.mark.parametrize("odd_byte", [b"", b"\1"])
def test_raw_samples_are_read_to_the_end_and_resampled(odd_byte):
    tone = np.sin(np.arange(22050) * 2 * np.pi * 440 / 22050)
    content = (tone * 20000).astype("<i2").tobytes() + odd_byte
    pieces = list(live.raw_pcm(io.BytesIO(content), 22050, 16000))
    assert len(pieces) > 5
    found = np.concatenate(pieces)
    assert len(found) == 16000
    expected = np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000) * 20000 / 32768
    # Away from the ends, where the filter sees silence.
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-3)


@pytest.fixture
def live_command(device, tmp_path, monkeypatch, capsys):
    """(arguments after transcribe, stdin) -> exit code, stdout, stderr."""
    report = device[2]

    def run(*arguments, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        arguments = ["speechrnn", "transcribe", *map(str, arguments), "--model", report.path]
        monkeypatch.setattr("sys.argv", arguments)
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_command_streams_raw_samples_from_stdin(device, live_command):
    pcm = (speech(32000) * 32768).astype("<i2")
    expected = device[0].transcribe(pcm.astype(np.int16)).text
    code, out, err = live_command("-", "--stream", stdin=pcm.tobytes())
    assert (code, out) == (0, f"{expected}\n"), err
    code, out, _ = live_command("-", "--stream", "--json", stdin=pcm.tobytes())
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["final"] for one in found] == [False] * (len(found) - 1) + [True]
    assert len(found) > 5
    assert found[-1]["text"] == expected
    assert found[-1]["words"][0]["text"] == expected.split()[0]


def test_the_command_streams_a_recording(device, live_command, tmp_path):
    waveform = speech(20000)
    soundfile.write(tmp_path / "a.wav", waveform, 16000, subtype="FLOAT")
    code, out, err = live_command(tmp_path / "a.wav", "--stream", "--timestamps")
    heard = device[0].transcribe(waveform)
    lines = [f"  {w.start_s:7.2f} {w.end_s:7.2f}  {w.text}" for w in heard.words]
    assert (code, out.splitlines()) == (0, [heard.text, *lines]), err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-"], 2, "needs --stream"),
        (["-", "--stream", "--rate", "10"], 2, "the rate is 10 Hz"),
        (["absent.wav", "--stream"], 3, "absent.wav does not exist"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(live_command, arguments, code, message):
    found, _, err = live_command(*arguments)
    assert found == code
    assert message in err


DEVICE_PAGE = Path(__file__).parents[1] / "docs" / "device.md"


def test_the_page_on_the_device_shows_what_runs(device, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DEVICE_PAGE.read_text("utf-8"), re.DOTALL)
    shutil.copy(device[2].path, tmp_path / "model.tflite")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(DEVICE_PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("[")


def test_the_pages_rules_are_enough_to_stream(device):
    """As somebody would who has the file, the page and no speechrnn."""
    recogniser, _, report = device
    page = DEVICE_PAGE.read_text("utf-8")
    interpreter = Interpreter(report.path, num_threads=1)
    step = interpreter.get_signature_runner("step")
    names = {*step.get_input_details(), *step.get_output_details()}
    assert all(name.startswith("state_") or f"`{name}`" in page for name in names)
    window, hop, stride = 256, 160, 3  # of ``build``
    behind, carried = 4, 4 * hop
    state = {
        name: np.zeros(details["shape"], np.float32)
        for name, details in step.get_input_details().items()
        if name.startswith("state")
    }
    state |= {"carried": np.zeros(carried, np.float32), "frame": np.int32(0)}
    waveform, pieces, waiting = speech(12345), [], np.zeros(0, np.float32)
    for stop in range(500, len(waveform) + 500, 500):
        waiting = np.concatenate([waiting, waveform[stop - 500 : stop]])
        received, final = min(stop, len(waveform)), stop >= len(waveform)
        count = 1 + (received - window) // hop
        ready = -(-count // stride) if final else (count - 1 - behind) // stride + 1
        if ready > state["frame"]:
            answer = step(waveform=waiting, final=np.int32(final), **state)
            pieces.append(answer.pop("log_probs"))
            state, waiting = answer, waiting[:0]
            assert state["frame"] == ready
    np.testing.assert_allclose(
        np.concatenate(pieces), recogniser.log_probs(waveform), rtol=1e-5, atol=1e-5
    )
