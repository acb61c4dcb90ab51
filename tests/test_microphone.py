"""A microphone is heard until Ctrl-C, and what is lost of it is told."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types

import numpy as np
import pytest
import soxr
from test_streaming import build, speech

from speechrnn.errors import UsageError
from speechrnn.export.tflite import export_tflite
from speechrnn.runtime import Recognizer, live

RATE = 16000


class FakeDevice:
    """Hears the blocks at once, each with whether some before it was lost; then nothing."""

    def __init__(self, blocks, sample_rate=RATE):
        self.blocks, self.sample_rate, self.is_open = blocks, sample_rate, False

    def open(self, receive):
        self.is_open = True
        for block, lost in self.blocks:
            receive(block, lost)

    def close(self):
        self.is_open = False


def heard(device, sample_rate=RATE):
    """All that a microphone which is stopped after its device's blocks gives, and its losses."""
    losses = []
    microphone = live.LiveMicrophone(device, sample_rate, losses.append)
    pieces = iter(microphone)
    first = next(pieces)
    assert device.is_open
    microphone.stop()
    found = np.concatenate([first, *pieces])
    assert not device.is_open
    return found, losses


@pytest.mark.parametrize("block", [100, 1600, 20000])
def test_all_that_was_heard_is_given_at_the_models_rate(block):
    wave = speech(48000)
    device = FakeDevice([(part, False) for part in np.split(wave, range(block, 48000, block))])
    found, losses = heard(device)
    np.testing.assert_allclose(found, wave, atol=1e-6)
    device.sample_rate = 48000
    found, _ = heard(device)
    assert len(found) == 16000
    expected = soxr.resample(wave, 48000, 16000, "HQ")
    # In pieces or at once: the same filter, in float32.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert losses == []


def test_lost_input_is_told_with_its_time():
    blocks = [(speech(1600), False), (speech(800), True), (speech(1600), False)]
    found, losses = heard(FakeDevice(blocks))
    assert (len(found), losses) == (4000, [0.1])


def test_what_recognition_is_too_slow_for_is_dropped_and_told(monkeypatch):
    monkeypatch.setattr(live, "BACKLOG_SECONDS", 1.0)
    losses = []
    microphone = live.LiveMicrophone(FakeDevice([(speech(1600), False)] * 20), RATE, losses.append)
    pieces = iter(microphone)
    assert len(next(pieces)) == 1600  # ten more blocks wait, nine were dropped
    microphone._receive(speech(1600), False)  # there is room again
    microphone.stop()
    assert sum(map(len, pieces)) == 11 * 1600
    assert losses == [1.1]


def test_a_microphone_that_gives_nothing_at_all_is_an_error(monkeypatch):
    monkeypatch.setattr(live, "DEAD_SECONDS", 0.01)
    device = FakeDevice([(speech(1600), False)])
    with pytest.raises(UsageError, match="has given nothing for"):
        list(live.LiveMicrophone(device, RATE, print))
    assert not device.is_open


@pytest.fixture
def interruptible():
    """As in a terminal: a shell starts what runs in the background with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_stops_and_the_second_interrupts(interruptible):
    before, stopped = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), live.first_interrupt(lambda: stopped.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert stopped == [1]
        signal.raise_signal(signal.SIGINT)
    with live.first_interrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert (stopped, signal.getsignal(signal.SIGINT)) == ([1], before)


# The command


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    model, spec = build(cell="lstm")
    path = tmp_path_factory.mktemp("microphone") / "live.tflite"
    export_tflite(model, spec, {}, path, "float32")
    return path


@pytest.fixture
def sounddevice(monkeypatch):
    """A stand-in for the package: "desk" hears two seconds in a thread, then Ctrl-C is pressed."""
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})
    module.overflows_at = None

    class InputStream:
        def __init__(self, *, callback, samplerate, channels, dtype, device):
            assert (samplerate, channels, dtype, device) == (RATE, 1, "float32", "desk")
            self.thread = threading.Thread(target=self.hear, args=[callback])

        def hear(self, callback):
            buffer = np.empty((800, 1), np.float32)  # which PortAudio uses again
            for start in range(0, 32000, 800):
                buffer[:, 0] = speech(32000)[start : start + 800]
                status = types.SimpleNamespace(input_overflow=start == module.overflows_at)
                callback(buffer, 800, None, status)
            os.kill(os.getpid(), signal.SIGINT)

        def start(self):
            self.thread.start()

        def stop(self):
            self.thread.join()

        def close(self):
            module.closed = True

    def query_devices(name=None, kind=None):
        devices = [{"name": "desk", "max_input_channels": 1, "default_samplerate": 16000.0}]
        if kind and name != "desk":
            raise ValueError(name)
        return devices[0] if kind else devices

    module.InputStream, module.query_devices = InputStream, query_devices
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_the_command_hears_a_microphone_until_ctrl_c(speechrnn, sounddevice, model_file):
    listen = ("transcribe", "--stream", "--microphone", "--device", "desk", "--model", model_file)
    expected = Recognizer(model_file).transcribe(speech(32000)).text
    code, out, err = speechrnn(*listen)
    assert (code, out) == (0, f"{expected}\n"), err
    assert sounddevice.closed and "warning" not in err
    code, out, err = speechrnn(*listen, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["final"] for one in found] == [False] * (len(found) - 1) + [True]
    assert len(found) > 5
    assert {one["path"] for one in found} == {"microphone"}
    assert (code, found[-1]["text"]) == (0, expected), err


def test_the_command_tells_what_was_lost(speechrnn, sounddevice, model_file):
    sounddevice.overflows_at = 16000
    listen = ("transcribe", "--stream", "--microphone", "--device", "desk", "--model", model_file)
    code, out, err = speechrnn(*listen)
    assert code == 0 and out
    assert err.count("warning: sound was lost after 1.0 s") == 1


def test_an_unknown_microphone_is_answered_with_those_there_are(speechrnn, sounddevice, model_file):
    listen = ("transcribe", "--stream", "--microphone", "--device", "attic", "--model", model_file)
    code, out, err = speechrnn(*listen)
    assert (code, out) == (2, "")
    assert "no microphone 'attic'; there are: desk" in err


def test_without_sounddevice_the_command_names_its_extra(speechrnn, monkeypatch, model_file):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    code, out, err = speechrnn("transcribe", "--stream", "--microphone", "--model", model_file)
    assert (code, out) == (2, "")
    assert 'pip install "speechrnn[microphone]"' in err


def test_a_model_that_cannot_stream_hears_no_microphone(speechrnn, sounddevice):
    code, out, err = speechrnn("transcribe", "--stream", "--microphone", "--device", "desk")
    assert (code, out) == (4, "")
    assert "model.bidirectional=false" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "--stream", "--microphone"], "give AUDIO or --microphone, not both"),
        (["-", "--stream", "--microphone"], "give AUDIO or --microphone, not both"),
        (["--microphone"], "--microphone needs --stream"),
        (["a.wav", "--stream", "--device", "desk"], "--device needs --stream --microphone"),
        ([], "give audio files, or --stream --microphone"),
        (["--stream"], "give audio files, or --stream --microphone"),
    ],
)
def test_it_must_be_clear_what_is_to_be_heard(speechrnn, monkeypatch, arguments, message):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = speechrnn("transcribe", *arguments)
    assert (code, out) == (2, "")
    assert message in err
