"""Noise, voices and rooms: the drawn ratio is the one that is there, the drawn decay is heard."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile
from augmented import RATE, Choir, augmenter, noise_folder, tone
from scipy import signal

from speechrnn.data.augment import noise, recordings, room
from speechrnn.data.augment.steps import MADE
from speechrnn.errors import DataError, RecipeError


def speech(pause=0):
    """A second of modulated noise, and ``pause`` seconds of near silence."""
    rng = np.random.default_rng(3)
    loud = rng.normal(0, 0.1, RATE) * (1 + 0.5 * np.sin(np.arange(RATE) / 900))
    quiet = rng.normal(0, 1e-5, int(pause * RATE))
    return np.concatenate([loud, quiet]).astype(np.float32)


# Levels


def test_the_level_of_speech_does_not_depend_on_its_pauses():
    alone = noise.active_power(speech(), RATE)
    # All 50 frames of the second are active: the definition is the plain mean square.
    assert alone == pytest.approx(np.mean(np.square(speech(), dtype=np.float64)), rel=1e-5)
    for pause in (0.5, 5):
        assert noise.active_power(speech(pause), RATE) == pytest.approx(alone, rel=1e-5)
    assert noise.active_power(np.zeros(1000, np.float32), RATE) == 0


def test_an_excerpt_begins_again_at_the_end():
    recording = np.arange(10)
    for start in range(10):
        for samples in (1, 9, 10, 11, 35):
            expected = [(start + i) % 10 for i in range(samples)]
            assert noise.excerpt(recording, samples, start).tolist() == expected


@pytest.mark.parametrize("made", [False, True], ids=["recorded", "made"])
@pytest.mark.parametrize("pause", [0, 2])
def test_the_drawn_ratio_of_speech_to_noise_is_there(tmp_path, pause, made):
    folder = {} if made else {"folder": str(noise_folder(tmp_path / "noise"))}
    section = {"noise": {**folder, "snr_db": [3, 20], "probability": 1}}
    augment = augmenter(section, cache=tmp_path / "cache")
    wave, ratios = speech(pause), []
    clean = np.mean(np.square(speech(), dtype=np.float64))
    for key in range(100):
        changed, words = augment.utterance(wave, 0, key)
        assert len(changed) == len(wave)
        added = np.mean(np.square(changed.astype(np.float64) - wave))
        ratio = 10 * np.log10(clean / added)
        told = float(words["noise"].split(", ")[1].split(" dB")[0])
        assert ratio == pytest.approx(told, abs=0.06)  # told to a tenth
        ratios.append(ratio)
    assert 2.9 < min(ratios) < 4 and 19 < max(ratios) < 20.1


@pytest.mark.parametrize("samples", [1, 2, 399, 20_000])
def test_noise_is_made_for_recordings_of_any_length(samples):
    augment = augmenter({"noise": {"probability": 1}})
    wave, kinds = np.full(samples, 0.1, np.float32), set()
    for key in range(60):
        changed, words = augment.utterance(wave, 0, key)
        assert changed.shape == wave.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        kinds.add(words["noise"].split(",")[0])
    assert kinds == set(MADE)


def test_the_drawn_ratio_of_speech_to_another_voice_is_there():
    choir = Choir()
    augment = augmenter({"babble": {"snr_db": [10, 10], "probability": 1}}, voices=choir)
    wave = speech()
    changed, words = augment.utterance(wave, 0, 7)
    assert words == {"babble": "another voice 10.0 dB below"}
    added = changed - wave
    ratio = np.mean(np.square(wave)) / np.mean(np.square(added))
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.2)  # of an excerpt of stationary noise


def test_an_utterance_is_never_mixed_with_itself():
    asked = []

    class Pair(Choir):
        keys = (1, 2)

        def waveform(self, number):
            asked.append(number)
            return super().waveform(number)

    augment = augmenter({"babble": {"probability": 1, "voices": 4}}, voices=Pair())
    for epoch in range(10):
        augment.utterance(speech(), epoch, key=1)
    assert asked == [1] * 40


def test_silence_stays_silent(tmp_path):
    section = {"noise": {"folder": str(noise_folder(tmp_path / "noise")), "probability": 1}}
    section |= {"babble": {"probability": 1}, "room": {"probability": 1}}
    augment = augmenter(section, voices=Choir(), cache=tmp_path / "cache")
    changed, _ = augment.utterance(np.zeros(RATE, np.float32), 0, 7)
    assert not changed.any()


# Recordings


def test_a_folders_recordings_are_decoded_in_order_and_once(tmp_path, monkeypatch):
    folder, cache = noise_folder(tmp_path / "noise"), tmp_path / "cache"
    found = recordings.load(folder, RATE, cache)
    assert [len(found[i]) for i in range(len(found))] == [3 * RATE, RATE // 2, 2 * RATE]
    expected, _ = soundfile.read(folder / "a.wav", dtype="float32")
    expected = expected / np.abs(expected).max()
    np.testing.assert_allclose(found[0] / 32768, expected, atol=1 / 32768)
    monkeypatch.setattr(recordings, "_decode", None)
    again = recordings.load(folder, RATE, cache)
    assert again.identity == found.identity
    np.testing.assert_array_equal(again[2], found[2])


def test_identity_is_that_of_names_bytes_and_rate(tmp_path):
    folder, cache = noise_folder(tmp_path / "noise"), tmp_path / "cache"
    seen = {recordings.load(folder, RATE, cache).identity, ""}
    (folder / "b.flac").rename(folder / "d.flac")
    seen.add(recordings.load(folder, RATE, cache).identity)
    data = bytearray((folder / "a.wav").read_bytes())
    data[5000] ^= 1
    (folder / "a.wav").write_bytes(data)
    seen.add(recordings.load(folder, RATE, cache).identity)
    seen.add(recordings.load(folder, 8000, cache).identity)
    assert len(seen) == 5


def test_a_damaged_cache_is_made_again(tmp_path):
    folder, cache = noise_folder(tmp_path / "noise"), tmp_path / "cache"
    expected = recordings.load(folder, RATE, cache)[0].copy()
    (samples,) = cache.glob("*.pcm16")
    data = bytearray(samples.read_bytes())
    data[100] ^= 4
    samples.write_bytes(data)
    np.testing.assert_array_equal(recordings.load(folder, RATE, cache)[0], expected)
    samples.write_bytes(data[:-2])
    np.testing.assert_array_equal(recordings.load(folder, RATE, cache)[0], expected)


def test_bad_recordings_are_told_and_the_others_used(tmp_path):
    folder = noise_folder(tmp_path / "noise")
    (folder / "bad.wav").write_bytes(b"RIFF of nothing")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    found = recordings.load(folder, RATE, tmp_path / "cache")
    assert len(found) == 3
    assert (
        sorted("bad.wav" in m or "silent.wav is silent" in m for m in found.left_out) == [True] * 2
    )
    section = {"noise": {"folder": str(folder)}}
    assert augmenter(section, cache=tmp_path / "cache").left_out == list(found.left_out)


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(DataError, match="holds no recordings"):
        recordings.load(tmp_path, RATE, tmp_path / "cache")


def test_a_folder_of_nothing_is_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "holds no recordings"), ("absent", "is no folder")):
        with pytest.raises(DataError, match=f"{name} {words}"):
            recordings.load(tmp_path / name, RATE, tmp_path / "cache")
    (tmp_path / "empty" / "only.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 recordings .*only\.wav is an empty file"):
        recordings.load(tmp_path / "empty", RATE, tmp_path / "cache")
    with pytest.raises(RecipeError, match="no place to decode"):
        augmenter({"noise": {"folder": str(tmp_path)}})


def test_of_a_long_recording_the_beginning_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "LONGEST_S", 1.5)
    found = recordings.load(noise_folder(tmp_path / "noise"), RATE, tmp_path / "cache")
    assert [len(found[i]) for i in range(3)] == [int(1.5 * RATE), RATE // 2, int(1.5 * RATE)]


# Rooms


def decay_s(response):
    """RT60 by Schroeder's backward integration (JASA 37, 1965): the line from -5 to -25 dB."""
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    inside = np.flatnonzero((level < -5) & (level > -25))
    slope, _ = np.polyfit(inside / RATE, level[inside], 1)
    return -60 / slope


@pytest.mark.parametrize("rt60", [0.15, 0.4, 1.0])
def test_a_simulated_room_decays_as_long_as_drawn(rt60):
    click = np.zeros(2 * RATE, np.float32)
    click[1000] = 1
    found = []
    for seed in range(8):
        response = room.simulated(rt60, 0.0, RATE, np.random.default_rng(seed))
        heard = room.reverberate(click, response, RATE)
        assert np.argmax(np.abs(heard)) == 1000  # the direct sound arrives when it did
        assert np.abs(heard[:1000]).max() < 1e-5
        found.append(decay_s(heard[1000 + 48 :]))  # of the reflections, 3 ms later
    assert np.mean(found) == pytest.approx(rt60, rel=0.05)  # of eight rooms of noise


@pytest.mark.parametrize("direct_db", [-6, 0, 10])
def test_direct_sound_stands_over_the_reflections_as_drawn(direct_db):
    response = room.simulated(0.3, direct_db, RATE, np.random.default_rng(0)).astype(np.float64)
    assert response[0] == 1
    assert -10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(direct_db, abs=1e-3)


def test_a_room_keeps_length_and_level():
    wave = speech(pause=1)
    response = room.simulated(0.5, 0, RATE, np.random.default_rng(0))
    heard = room.reverberate(wave, response, RATE)
    assert heard.dtype == np.float32 and len(heard) == len(wave)
    assert np.linalg.norm(heard) == pytest.approx(np.linalg.norm(wave), rel=1e-5)


@pytest.mark.parametrize("delay", [0, 5, 700])
def test_a_recorded_response_leaves_the_direct_sound_in_its_place(delay):
    wave = speech()
    response = np.zeros(RATE // 4, np.float32)
    response[delay] = -0.5
    np.testing.assert_allclose(room.reverberate(wave, response, RATE), -wave, atol=1e-6)


@pytest.mark.parametrize("taps", [1, 2, 1000, 6400, 40000])
@pytest.mark.parametrize("samples", [1, 100, 16001])
def test_convolution_is_that_of_scipy(taps, samples):
    rng = np.random.default_rng(0)
    wave, response = (rng.normal(0, 0.1, n).astype(np.float32) for n in (samples, taps))
    expected = signal.fftconvolve(wave.astype(float), response.astype(float))
    np.testing.assert_allclose(room.convolve(wave, response), expected[:samples], atol=1e-5)


def test_responses_of_a_folder_are_used(tmp_path):
    folder = tmp_path / "rooms"
    folder.mkdir()
    response = np.zeros(4000)
    response[100], response[1100] = 0.9, 0.45
    soundfile.write(folder / "echo.wav", response, RATE)
    augment = augmenter({"room": {"folder": str(folder), "probability": 1}}, cache=tmp_path / "c")
    wave = np.zeros(RATE, np.float32)
    wave[2000] = 0.8
    heard, words = augment.utterance(wave, 0, 1)
    assert words == {"room": "impulse response 1"}
    assert np.flatnonzero(np.abs(heard) > 0.01).tolist() == [2000, 3000]
    assert heard[3000] / heard[2000] == pytest.approx(0.5, abs=1e-4)  # of 16 bits


def test_tones_meet_no_folding_in_a_room():
    """A linear change: a tone stays one."""
    heard = room.reverberate(
        tone(1000, 2 * RATE), room.simulated(0.2, 0, RATE, np.random.default_rng(0)), RATE
    )[RATE:]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    spectrum[990:1011] = 0
    assert spectrum.max() < 1e-3 * len(heard) / 8
