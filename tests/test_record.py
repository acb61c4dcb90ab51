from __future__ import annotations

import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.corpora import manifest
from speechrnn.corpora.phrases import Phrase
from speechrnn.corpora.record import SoundDevice, find_fault, record
from speechrnn.errors import ManifestError, MissingExtra, UsageError

RATE = 8000
PHRASES = [Phrase("yes"), Phrase("no", "test"), Phrase("stop")]


def tone(level: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 200 * t)).astype(np.float32)


GOOD, QUIET, CLIPPED, SHORT = tone(0.3), tone(0.001), np.clip(tone(3.0), -1, 1), tone(0.3, 0.1)


class FakeMicrophone:
    """Hears the given takes in turn, then good ones."""

    sample_rate = RATE

    def __init__(self, *takes: np.ndarray):
        self.takes = list(takes)
        self.listening = False

    def start(self) -> None:
        assert not self.listening
        self.listening = True

    def stop(self) -> np.ndarray:
        assert self.listening
        self.listening = False
        return self.takes.pop(0) if self.takes else GOOD


def answering(*answers: str) -> Callable[[str], str]:
    """Gives the answers in turn, then just Enter; keeps the prompts."""
    left = list(answers)

    def ask(prompt: str) -> str:
        ask.prompts.append(prompt)
        return left.pop(0) if left else ""

    ask.prompts = []
    return ask


def texts(path) -> list[str]:
    return [utterance.text for utterance in manifest.read(path)]


def test_every_phrase_is_recorded_into_the_manifest(tmp_path):
    outcome = record(
        PHRASES, tmp_path, speaker="ada", device=FakeMicrophone(tone(0.5)), ask=answering()
    )
    assert (outcome.recorded, outcome.missing) == (3, 0)
    first, second, third = manifest.read(outcome.manifest)
    assert [u.text for u in (first, second, third)] == ["yes", "no", "stop"]
    assert second.split == "test"
    assert {u.speaker for u in (first, second, third)} == {"ada"}
    waveform, rate = soundfile.read(first.path, dtype="float32")
    assert rate == RATE
    # Half a step of 16 bits.
    np.testing.assert_allclose(waveform, tone(0.5), atol=0.51 / 32768)


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        (QUIET, "come nearer"),
        (CLIPPED, "lower the level"),
        (SHORT, "at least 0.3 s"),
        (np.zeros(0, np.float32), "no samples"),
        (np.full(RATE, np.nan, np.float32), "NaN"),
    ],
)
def test_a_bad_take_is_asked_for_again_with_advice(tmp_path, bad, advice):
    ask = answering()
    outcome = record([Phrase("yes")], tmp_path, speaker="a", device=FakeMicrophone(bad), ask=ask)
    assert outcome.recorded == 1
    assert sum(advice in prompt for prompt in ask.prompts) == 1
    assert sum("[1/1] yes" in prompt for prompt in ask.prompts) == 2
    (utterance,) = manifest.read(outcome.manifest)
    assert len(soundfile.read(utterance.path)[0]) == len(GOOD)


def test_a_good_take_has_no_fault_at_any_usual_level():
    for level in (0.03, 0.3, 0.9):
        assert find_fault(tone(level), RATE) == ""


def test_skipped_and_misspoken_phrases_are_not_kept(tmp_path):
    wrong = tone(0.1, 2.0)
    ask = answering("s", "", "r")  # skip "yes", begin "no", say it again
    outcome = record(PHRASES, tmp_path, speaker="a", device=FakeMicrophone(wrong), ask=ask)
    assert texts(outcome.manifest) == ["no", "stop"]
    assert (outcome.recorded, outcome.missing) == (2, 1)
    for utterance in manifest.read(outcome.manifest):
        assert len(soundfile.read(utterance.path)[0]) == len(GOOD)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["", "s", "q", "r"]), max_size=20), st.data())
def test_any_sessions_end_with_each_phrase_once(tmp_path_factory, answers, data):
    out = tmp_path_factory.mktemp("sessions")
    wanted = [Phrase("yes"), Phrase("no"), Phrase("yes")]
    cut = data.draw(st.integers(0, len(answers)))
    for part in (answers[:cut], answers[cut:], []):
        device = FakeMicrophone()
        outcome = record(wanted, out, speaker="a", device=device, ask=answering(*part))
        assert not device.listening
    assert outcome.missing == 0
    assert sorted(texts(outcome.manifest)) == ["no", "yes", "yes"]
    assert len(list((out / "audio").iterdir())) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_session_loses_no_recording(tmp_path, error):
    answers = iter(["", "", ""])

    def ask(prompt: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise error from None

    device = FakeMicrophone()
    with pytest.raises(error):
        record(PHRASES, tmp_path, speaker="a", device=device, ask=ask)
    assert not device.listening
    assert texts(tmp_path / "manifest.tsv") == ["yes"]
    record(PHRASES, tmp_path, speaker="a", device=device, ask=answering())
    assert texts(tmp_path / "manifest.tsv") == ["yes", "no", "stop"]


def test_a_second_speaker_adds_to_the_folder(tmp_path):
    for speaker in ("ada", "bob"):
        record(PHRASES, tmp_path, speaker=speaker, device=FakeMicrophone(), ask=answering())
    utterances = list(manifest.read(tmp_path / "manifest.tsv"))
    assert [u.speaker for u in utterances] == ["ada"] * 3 + ["bob"] * 3
    assert len({u.utterance_id for u in utterances}) == 6


def test_a_later_session_does_not_pin_the_splits_of_an_earlier_one(tmp_path):
    for phrases in (PHRASES, [*PHRASES, Phrase("go")]):
        record(phrases, tmp_path, speaker="ada", device=FakeMicrophone(), ask=answering())
    header, *rows = (tmp_path / "manifest.tsv").read_text(encoding="utf-8").splitlines()
    split = header.split("\t").index("split")
    assert [row.split("\t")[split] for row in rows] == ["", "test", "", ""]


def test_a_manifest_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "manifest.tsv"
    path.write_text("path\ttext\nx.wav\tyes\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="other columns"):
        record(PHRASES, tmp_path, speaker="ada", device=FakeMicrophone(), ask=answering())
    assert path.read_text(encoding="utf-8") == "path\ttext\nx.wav\tyes\n"


@pytest.mark.parametrize("speaker", ["", "../ada", "a b", ".hidden"])
def test_a_speaker_that_is_no_file_name_is_refused(tmp_path, speaker):
    with pytest.raises(UsageError, match="the speaker is"):
        record(PHRASES, tmp_path, speaker=speaker, device=FakeMicrophone(), ask=answering())


def test_the_end_of_input_stops_the_session(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "readline", lambda: "")
    outcome = record(PHRASES, tmp_path, speaker="a", device=FakeMicrophone())
    assert (outcome.recorded, outcome.missing) == (0, 3)
    printed = capsys.readouterr()
    assert printed.out == "" and "[1/3] yes" in printed.err


def test_without_sounddevice_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtra, match=r"speechrnn\[microphone\]"):
        SoundDevice()


@pytest.fixture
def sounddevice(monkeypatch):
    """A stand-in for the package: one microphone at 48 kHz that hears two blocks."""
    module = types.ModuleType("sounddevice")

    class InputStream:
        def __init__(self, *, callback, samplerate, channels, dtype, device):
            assert (samplerate, channels, dtype) == (48000, 1, "float32")
            self.callback = callback

        def start(self) -> None:
            block = np.empty((4, 1), np.float32)
            for value in (0.25, 0.5):
                block[:] = value  # PortAudio reuses its buffer too
                self.callback(block, len(block), None, None)

        def stop(self) -> None: ...

        def close(self) -> None: ...

    def query_devices(name=None, kind=None):
        devices = [
            {"name": "desk", "max_input_channels": 1, "default_samplerate": 48000.0},
            {"name": "speaker", "max_input_channels": 0, "default_samplerate": 44100.0},
        ]
        if kind is None:
            return devices
        if name not in (None, "desk"):
            raise ValueError(f"No input device matching {name!r}")
        return devices[0]

    module.InputStream = InputStream
    module.query_devices = query_devices
    module.PortAudioError = type("PortAudioError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.mark.usefixtures("sounddevice")
def test_a_sound_device_returns_what_it_heard_since_its_start():
    device = SoundDevice("desk")
    assert device.sample_rate == 48000
    for _ in range(2):
        device.start()
        np.testing.assert_array_equal(device.stop(), np.repeat(np.float32([0.25, 0.5]), 4))


@pytest.mark.usefixtures("sounddevice")
def test_an_unknown_microphone_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match=r"no microphone 'attic'; there are: desk$"):
        SoundDevice("attic")


@pytest.mark.usefixtures("sounddevice")
@pytest.mark.parametrize("moment", ["start", "stop"])
def test_a_microphone_that_fails_is_an_error_of_ours_and_is_closed(monkeypatch, moment):
    package = sys.modules["sounddevice"]
    closed = []

    def fail(_stream: object) -> None:
        raise package.PortAudioError("device unplugged")

    monkeypatch.setattr(package.InputStream, moment, fail)
    monkeypatch.setattr(package.InputStream, "close", lambda stream: closed.append(stream))
    device = SoundDevice("desk")
    with pytest.raises(UsageError, match=r"microphone 'desk' failed \(device unplugged\)"):
        device.start()
        device.stop()
    assert len(closed) == 1
