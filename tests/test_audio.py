from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechrnn import audio
from speechrnn.errors import AudioError

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def reason(path: Path, **limits: float) -> str:
    with pytest.raises(AudioError) as caught:
        audio.load(path, **limits)
    assert str(path) in str(caught.value)
    return caught.value.reason


def patched(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return path


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """One second of 16-bit mono: a 44-byte header, rate at 24, channels at 22, data size at 40."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), RATE)
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_lossless_files_load_sample_exactly(tmp_path: Path, suffix: str) -> None:
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, 3 * RATE, dtype=np.int16)
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, pcm, RATE)
    waveform = audio.load(path)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, pcm / 32_768)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_files_load_with_their_length_and_power(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE)
    waveform = audio.load(path)
    assert len(waveform) == RATE
    assert np.std(waveform) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)  # a coder's ripple


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), 0 * tone()], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(path), tone() / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_its_duration(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(10, rate), rate, subtype="FLOAT")  # several blocks
    waveform = audio.load(path)
    assert abs(len(waveform) - 10 * RATE) <= 1
    inner = slice(RATE // 10, -RATE // 10)  # away from the filter's onset
    # The passband ripple and the phase of soxr's HQ filter are far below 1e-3.
    np.testing.assert_allclose(waveform[inner], tone(10)[: len(waveform)][inner], atol=1e-3)


def test_a_missing_file_a_folder_and_a_pipe_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "none.wav") == "missing"
    assert reason(tmp_path) == "unreadable"
    assert reason(tmp_path / "pipe.wav") == "unreadable"  # opening it would wait for ever


def test_files_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio " * 99)
    (tmp_path / "samples.raw").write_bytes(bytes(3_200))
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
    assert reason(tmp_path / "empty.wav") == "empty"
    assert reason(tmp_path / "text.wav") == "unreadable"
    assert reason(tmp_path / "samples.raw") == "unreadable"
    assert reason(tmp_path / "none.wav") == "empty"


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 5 * RATE), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(part * len(whole))])
    assert reason(path) == "truncated"


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_F000])
def test_streamed_wavs_of_unknown_size_load_whole(wav: Path, size: int) -> None:
    patched(wav, 40, struct.pack("<I", size))
    np.testing.assert_allclose(audio.load(wav), tone(), atol=1 / 32_768)


def test_a_wav_that_was_never_closed_loads_whole(wav: Path) -> None:
    patched(patched(wav, 4, struct.pack("<I", 8)), 40, struct.pack("<I", 0))
    assert len(audio.load(wav)) == RATE


def test_chunks_before_the_audio_do_not_hide_a_cut(wav: Path) -> None:
    data = wav.read_bytes()
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # padded to an even size
    wav.write_bytes(data[:36] + odd + data[36:])
    assert len(audio.load(wav)) == RATE
    wav.write_bytes(wav.read_bytes()[:-2])
    assert reason(wav) == "truncated"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(tmp_path: Path, bad: float) -> None:
    waveform = tone(8, 44_100)
    waveform[-5] = bad
    for rate in (RATE, 44_100):
        soundfile.write(tmp_path / "bad.wav", waveform, rate, subtype="FLOAT")
        assert reason(tmp_path / "bad.wav") == "non_finite"


@pytest.mark.parametrize("rate", [0, 1_000, 3_999, 10**9])
def test_impossible_sample_rates_are_refused(wav: Path, rate: int) -> None:
    assert reason(patched(wav, 24, struct.pack("<I", rate))) == "sample_rate"


def test_a_thousand_channels_are_refused(wav: Path) -> None:
    patched(wav, 22, struct.pack("<H", 1_024))
    assert reason(patched(wav, 32, struct.pack("<H", 2_048))) == "channels"


def test_decoding_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(600):  # ten minutes: 38 MB as float32
            file.write(np.zeros(RATE, np.int16))
    tracemalloc.start()
    try:
        assert reason(path, max_seconds=20) == "too_long"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6  # 20 s are 1.3 MB, and a block is 0.26 MB


def test_the_limit_itself_is_allowed(wav: Path) -> None:
    assert len(audio.load(wav, max_seconds=1.0)) == RATE


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), suffix=st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff"]))
def test_damaged_files_load_finite_and_bounded_or_raise_audio_error(
    tmp_path: Path, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(0.25), RATE)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 200)))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        waveform = audio.load(path, max_seconds=2)
    except AudioError as error:
        assert error.reason != "unexpected"
    else:
        assert np.isfinite(waveform).all()
        assert len(waveform) <= 2 * RATE + 1


def test_check_accepts_quiet_speech_and_names_each_fault() -> None:
    audio.check(tone() * 1e-3, min_seconds=1, max_seconds=1)
    faults = {
        "empty": tone(0),
        "too_short": tone(0.05),
        "too_long": tone(3),
        "silent": np.full(RATE, 0.3, np.float32),  # an offset without a signal
        "non_finite": np.append(tone(), np.float32(np.nan)),
        "too_loud": 32_768 * tone(),
        "channels": np.stack([tone(), tone()]),
    }
    for expected, waveform in faults.items():
        with pytest.raises(AudioError, match=r"clip\.wav") as caught:
            audio.check(waveform, RATE, min_seconds=0.1, max_seconds=2, name="clip.wav")
        assert caught.value.reason == expected


def test_dither_alone_is_silence() -> None:
    dither = np.random.default_rng(0).integers(-2, 3, RATE).astype(np.int16)
    with pytest.raises(AudioError, match="silent"):
        audio.check(audio.from_pcm16(dither))


def test_every_pcm16_value_survives_the_round_trip() -> None:
    pcm = np.arange(-(2**15), 2**15, dtype=np.int16)
    np.testing.assert_array_equal(audio.to_pcm16(audio.from_pcm16(pcm)), pcm)


def test_pcm16_rounds_to_nearest_and_clips() -> None:
    waveform = np.array([0.6, -0.6, 0.4], np.float32) / 32_768
    assert audio.to_pcm16(waveform).tolist() == [1, -1, 0]
    assert audio.to_pcm16(np.array([1.0, 7.0, -7.0], np.float32)).tolist() == [
        32_767,
        32_767,
        -32_768,
    ]
