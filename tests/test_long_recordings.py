"""Recordings of any length: in parts, with nothing lost or moved, in memory that does not grow."""

import io
import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from speechrnn import audio
from speechrnn.cli import transcribing
from speechrnn.errors import AudioError
from speechrnn.runtime import BaseRecognizer, Recognizer, Windows, default_model, open_model
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics

RATE = 16000
REACH = 7  # output frames on either side that a frame of Nearby reads


def spec_of(**model):
    normalised = model.pop("normalisation", "global")
    return RecogniserSpec(
        features=FeatureSpec(mels=20, fft_length=256, window_ms=16.0, normalisation=normalised),
        alphabet=AlphabetSpec((" ", "a", "b", "c")),
        model=ModelSpec(**{"units": 8, "layers": 1, "subsampling": "stack"} | model),
        statistics=Statistics((-6.0,) * 20, (3.0,) * 20) if normalised == "global" else None,
    )


class Nearby(BaseRecognizer):
    """Posteriors from the energy and the mean of each frame's samples, and those of its
    neighbours: a network that reads so far and no farther, without a network."""

    kind = "nearby"

    def __init__(self, time_stride=3, windows=None):
        super().__init__(spec_of(time_stride=time_stride), {})
        self.windows = windows or Windows()
        self.lengths = []

    def _posteriors(self, waveform):
        self.lengths.append(len(waveform))
        stride = self.spec.model.time_stride * self.spec.features.hop_samples
        frames = self.spec.output_frames(len(waveform))
        padded = np.append(waveform.astype(np.float64), np.zeros(stride))
        cells = np.stack([padded[i * stride : (i + 1) * stride][:256] for i in range(frames)])
        seen = np.stack([cells.std(axis=1), cells.mean(axis=1), cells[:, 0]], axis=1)
        for shift in (REACH, -REACH):
            seen += np.roll(np.pad(seen, [(REACH, REACH), (0, 0)]), shift, 0)[REACH:-REACH]
        scores = 9 * seen @ np.random.default_rng(0).normal(size=[3, 5])
        return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def speech(samples, seed=0):
    rng = np.random.default_rng(seed)
    envelope = 1.1 + np.sin(np.arange(samples) / 1900)
    return (0.1 * envelope * rng.normal(size=samples)).astype(np.float32)


def in_blocks(waveform, sizes):
    """Of these sizes in turn, empty ones among them, to the end."""
    start = 0
    while start < len(waveform):
        for size in [*sizes, 5000]:
            yield waveform[start : start + size]
            start += size


@settings(max_examples=60)
@given(
    samples=st.integers(0, 100_000),
    whole=st.floats(0, 2),
    kept=st.floats(0.001, 2),
    more=st.floats(0, 0.5),
    stride=st.sampled_from([1, 3, 4]),
    sizes=st.lists(st.integers(0, 30_000), max_size=4),
)
def test_windows_with_enough_context_give_the_whole(samples, whole, kept, more, stride, sizes):
    waveform = speech(samples)
    recogniser = Nearby(stride)
    frame = recogniser.spec.seconds_per_output_frame
    recogniser.windows = Windows(whole, kept, REACH * frame + frame + more)
    found = recogniser._joined(in_blocks(waveform, sizes))
    assert found.shape == (recogniser.spec.output_frames(samples), 5)
    window = kept + 2 * recogniser.windows.context_s + 3 * frame
    assert max(recogniser.lengths, default=0) <= RATE * max(whole + frame, window)
    if len(found):
        # A window that begins elsewhere sums in another order.
        np.testing.assert_allclose(found, recogniser._posteriors(waveform), atol=1e-5)


@settings(max_examples=30)
@given(
    samples=st.integers(30_000, 100_000),
    kept=st.floats(0.01, 2),
    context=st.floats(0, 1),
    sizes=st.lists(st.integers(0, 30_000), max_size=4),
)
def test_the_reader_s_blocks_change_nothing(samples, kept, context, sizes):
    waveform = speech(samples)
    recogniser = Nearby(windows=Windows(1, kept, context))
    expected = recogniser.log_probs(waveform)
    np.testing.assert_array_equal(recogniser._joined(in_blocks(waveform, sizes)), expected)
    assert len(expected) == recogniser.spec.output_frames(samples)


@pytest.mark.parametrize("samples", [15_999, 16_000, 16_001])
def test_up_to_its_limit_a_recording_is_computed_whole(samples):
    recogniser = Nearby(windows=Windows(1, 0.5, 0))
    recogniser.log_probs(speech(samples))
    assert (recogniser.lengths == [samples]) == (samples <= RATE)


def test_a_long_recording_keeps_its_words_times_and_length(tmp_path):
    waveform = speech(900_001)
    soundfile.write(tmp_path / "long.wav", waveform, RATE, subtype="FLOAT")
    recogniser = Nearby()
    assert recogniser.windows.whole_s * RATE < len(waveform)
    done = []
    heard = recogniser.transcribe(tmp_path / "long.wav", progress=done.append)
    assert len(recogniser.lengths) > 1
    whole = Nearby(windows=Windows(whole_s=100)).transcribe(waveform)
    np.testing.assert_allclose(heard.log_probs, whole.log_probs, atol=1e-5)
    assert heard.duration_s == 900_001 / RATE
    assert (heard.text, len(heard.words)) == (whole.text, len(whole.words))
    assert " ".join(word.text for word in heard.words) == heard.text
    times = [time for word in heard.words for time in (word.start_s, word.end_s)]
    assert len(times) > 100 and times == sorted(times) and times[-1] <= heard.duration_s
    assert heard.confidence == pytest.approx(whole.confidence, abs=1e-5)
    assert done == sorted(done) and len(done) == len(recogniser.lengths)
    assert done[-1] == pytest.approx(heard.duration_s, abs=0.04)


@pytest.mark.parametrize("kind", [np.int16, np.float64])
def test_an_array_is_read_in_place(kind):
    """Ten minutes: neither a copy in float32, 38 MB, nor a mask of its finite samples, 10 MB."""
    waveform = np.zeros(600 * RATE, kind)
    recogniser = Nearby()
    recogniser._posteriors = lambda window: np.zeros(
        [recogniser.spec.output_frames(len(window)), 5], np.float32
    )
    tracemalloc.start()
    heard = recogniser.transcribe(waveform)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard.log_probs.shape == (20_000, 5)
    # Four times 40 s in float32: blocks, joined, joined again with the next, and what was before.
    assert peak < 6 * recogniser.windows.whole_s * RATE * 4


def test_what_is_wrong_late_in_a_recording_is_named():
    waveform = speech(900_000)
    waveform[777_777] = np.nan
    with pytest.raises(AudioError, match="sample 777777") as caught:
        Nearby().transcribe(waveform)
    assert caught.value.reason == "non_finite"
    with pytest.raises(AudioError) as caught:
        Nearby().transcribe(np.zeros([2, 900_000], np.float32))
    assert caught.value.reason == "channels"


@pytest.mark.parametrize("wrong", [{"whole_s": -1.0}, {"kept_s": 0.0}, {"context_s": -0.1}])
def test_windows_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        Windows(**wrong)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_blocks_are_what_load_gives(tmp_path, rate):
    soundfile.write(tmp_path / "a.flac", np.stack([speech(5 * rate)] * 2, axis=1), rate)
    pieces = list(audio.blocks(tmp_path / "a.flac"))
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.concatenate(pieces), audio.load(tmp_path / "a.flac"))
    assert audio.promised_seconds(tmp_path / "a.flac") == 5


def test_a_file_is_decoded_as_it_is_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(1_000_000), RATE)
    blocks = audio.blocks(tmp_path / "a.flac")
    tracemalloc.start()
    count = sum(len(block) for block in blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 1_000_000  # a quarter of the samples


def test_no_length_is_promised_for_what_cannot_be_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no recording")
    assert audio.promised_seconds(tmp_path / "a.wav") is None
    assert audio.promised_seconds(tmp_path / "absent.wav") is None


def built(spec):
    from speechrnn import model as network

    recogniser, rng = network.build(spec, seed=1), np.random.default_rng(1)
    recogniser.set_weights(
        [
            w + rng.normal(0, 0.4, w.shape) if w.dtype == np.float32 else w
            for w in recogniser.get_weights()
        ]
    )
    return recogniser


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A file of a model that streams, with small parts."""
    from speechrnn.export.tflite import export_tflite

    spec = spec_of(bidirectional=False, subsampling="conv", conv_channels=3)
    path = tmp_path_factory.mktemp("live") / "live.tflite"
    export_tflite(built(spec), spec, {}, path, "float32")
    recogniser = Recognizer(path)
    recogniser.windows = Windows(1.0, 0.7, 0.0)
    return recogniser


@settings(max_examples=10)
@given(samples=st.integers(17_000, 80_000), sizes=st.lists(st.integers(0, 30_000), max_size=4))
def test_what_streams_gives_the_whole_without_context(live, samples, sizes):
    waveform = speech(samples)
    found = live._joined(in_blocks(waveform, sizes))
    np.testing.assert_allclose(found, live._posteriors(waveform), rtol=1e-5, atol=1e-5)


def test_a_stream_left_alone_goes_on_beside_a_long_recording(live):
    stream, waveform = live.stream(), speech(40_000)
    stream.feed(waveform[:20_000])
    live.log_probs(speech(30_000, seed=5))
    stream.feed(waveform[20_000:])
    expected = live._posteriors(waveform)
    np.testing.assert_allclose(stream.finish().log_probs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["global", "utterance"])
def test_every_form_computes_the_same_windows_each_by_itself(normalisation, tmp_path):
    from speechrnn.export.savedmodel import export_savedmodel
    from speechrnn.export.tflite import export_tflite
    from speechrnn.runtime.tensorflow import KerasRecognizer

    spec = spec_of(normalisation=normalisation)
    model = built(spec)
    export_tflite(model, spec, {}, tmp_path / "m.tflite", "float32")
    export_savedmodel(model, spec, {}, tmp_path / "served")
    opened = [
        KerasRecognizer(model, spec, {}),
        Recognizer(tmp_path / "m.tflite"),
        open_model(tmp_path / "served"),
    ]
    waveform = speech(3 * RATE)
    # Frames of 480 samples; windows of 30 and 10 on either side; features end 256 after the last
    # of three hops' beginning.
    spans = [(0, 40, 0), (20, 70, 10), (50, None, 10)]
    expected = np.concatenate(
        [
            opened[0]._posteriors(waveform[480 * a : b and 480 * b - 160 + 256])[first:][
                : 30 if b else None
            ]
            for a, b, first in spans
        ]
    )
    assert len(expected) == spec.output_frames(len(waveform))
    for recogniser in opened:
        recogniser.windows = Windows(2, 0.9, 0.3)
        # float32 everywhere: only the order of sums differs.
        np.testing.assert_allclose(recogniser.log_probs(waveform), expected, rtol=1e-4, atol=1e-4)


PEAK = """
import re, sys
from speechrnn.runtime import Recognizer
heard = Recognizer(sys.argv[1]).transcribe(sys.argv[2])
assert "tensorflow" not in sys.modules
print(len(heard.log_probs), re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="VmHWM is Linux's")
def test_ten_minutes_take_no_more_memory_than_two(tmp_path):
    peaks, path = {}, tmp_path / "noise.flac"
    for minutes in (2, 10):
        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            for minute in range(minutes):
                file.write(speech(60 * RATE, minute))
        command = [sys.executable, "-c", PEAK, str(default_model()), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        frames, kilobytes = map(int, done.stdout.split())
        assert frames == minutes * 2000
        peaks[minutes] = 1024 * kilobytes
    posteriors = 16_000 * 28 * 4  # of the eight minutes more
    # Twice, while they are joined; the rest is the allocator's, whose arenas vary by megabytes.
    assert peaks[10] - peaks[2] < 2 * posteriors + 12e6
    assert peaks[10] < 300e6


def test_the_command_shows_how_far_it_is_where_it_takes_long(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a[b].wav", np.zeros(RATE), RATE)
    screen = io.StringIO()
    monkeypatch.setattr(
        transcribing, "console", Console(file=screen, force_terminal=True, width=80)
    )
    with transcribing._progress(tmp_path / "a[b].wav") as advance:
        advance(0.5)
    assert not screen.getvalue()
    monkeypatch.setattr(transcribing, "SHORT_WAIT", 0.0)
    with transcribing._progress(tmp_path / "a[b].wav") as advance:
        advance(0.5)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "a[b].wav" in shown and "50%" in shown
