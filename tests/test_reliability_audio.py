"""Damaged and hostile recordings and archives: the reliability experiments in a small form."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY

from speechrnn import audio, containers
from speechrnn.errors import AudioError

sys.path.insert(0, str(REPOSITORY / "pipelines" / "reliability"))
import archives as hostile_tars
import audio_files
import hostile_audio

SLOW_BOMBS = {"20 million FLAC blocks", "seven hours of MP3", "ten minutes of silence"}  # to make


def reason(path: Path, **limits: float) -> str:
    with pytest.raises(AudioError) as caught:
        audio.load(path, **limits)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_mutated_recordings_are_refused_or_give_bounded_audio() -> None:
    tried, peak = audio_files.fuzz(100, first=50_000, bombs=())
    assert [each for each in tried if each.problem] == []
    assert len(tried) == 200  # as files and in tars
    assert {each.outcome for each in tried} >= {"audio", "truncated", "unreadable"}
    assert 0 < peak <= audio_files.MOST_BYTES


def test_a_crash_is_one_recordings_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment would find one: here the process ends itself at a recording."""
    script = tmp_path / "child.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(Path(audio_files.__file__).parent)!r})
import audio_files
made = audio_files._made
audio_files._made = lambda name, folder: os.abort() if name == "50001" else made(name, folder)
audio_files.main()
""")
    monkeypatch.setattr(audio_files, "CHILD", (sys.executable, str(script)))
    tried, _ = audio_files.fuzz(3, first=50_000, bombs=())
    assert [each.name for each in tried if each.outcome == "crash"] == ["50001"]
    assert {each.name for each in tried} >= {"50000", "50002"}


@pytest.mark.parametrize("name", [n for n in hostile_audio.BOMBS if n not in SLOW_BOMBS])
def test_bombs_are_refused_or_give_bounded_audio(name: str, tmp_path: Path) -> None:
    suffix, make = hostile_audio.BOMBS[name]
    path = tmp_path / f"bomb.{suffix}"
    make(path)
    try:
        waveform = audio.load(path, max_seconds=20.0)
    except AudioError as error:
        assert str(path) in str(error)
    else:
        assert len(waveform) <= 20 * 16_000 + 1
        assert np.isfinite(waveform).all()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SLOW_BOMBS))
def test_bombs_that_take_long_to_make(name: str, tmp_path: Path) -> None:
    test_bombs_are_refused_or_give_bounded_audio(name, tmp_path)


def test_hostile_archives_touch_nothing_outside() -> None:
    outcomes, broken = hostile_tars.attack(100)
    assert broken == []
    assert outcomes["refused"] > 100
    assert outcomes["error"] == 0


def test_what_an_archive_plants_would_be_found(tmp_path: Path) -> None:
    """The experiment sees a file that appears, and one that changes, outside."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "canary").write_bytes(b"untouched")
    before = hostile_tars._seen(tmp_path, inside)
    (inside / "corpus").touch()
    assert hostile_tars._seen(tmp_path, inside) == before
    (outside / "planted").touch()
    assert hostile_tars._seen(tmp_path, inside) != before
    (outside / "planted").unlink()
    os.link(outside / "canary", inside / "hard")
    assert hostile_tars._seen(tmp_path, inside) != before


# What libsndfile would take without a word, or never end with


@pytest.mark.parametrize("kind", ["MAT4", "MAT5", "CAF", "VOC", "W64", "IRCAM", "PVF", "HTK"])
def test_formats_that_no_corpus_is_kept_in_never_reach_libsndfile(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 16_000, format=kind, subtype="PCM_16")
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_: pytest.fail("it was parsed"))
    assert reason(path) == "unreadable"


@pytest.mark.parametrize("tag", [0, 5_000])
def test_an_id3_tag_does_not_hide_a_format(tmp_path: Path, tag: int) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(1000), 16_000, format="MAT4", subtype="PCM_16")
    size = bytes((0, 0, tag >> 7, tag & 0x7F))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3\x04\x00\x00" + size + bytes(tag) + sound.getvalue())
    assert reason(path) == "unreadable"
    path.write_bytes(b"ID3\x04\x00\x00" + size + bytes(tag) + hostile_audio.sound("mp3", 0))
    assert len(audio.load(path)) > 0


@pytest.mark.parametrize(("kind", "endian"), [("AU", "BIG"), ("RF64", "FILE"), ("NIST", "FILE")])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_further_formats_are_refused_where_they_are_cut(
    tmp_path: Path, kind: str, endian: str, part: float
) -> None:
    path = tmp_path / "a.audio"
    wave = hostile_audio.speechlike(0)
    soundfile.write(path, wave, 16_000, format=kind, subtype="PCM_16", endian=endian)
    np.testing.assert_allclose(audio.load(path), wave, atol=1 / 32_768)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(part * len(whole))])
    assert reason(path) == "truncated"


def test_an_mp3_of_hours_is_refused_before_it_is_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(hostile_audio.sound("mp3", 0) + bytes(4_000_000))
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_: pytest.fail("it was parsed"))
    assert reason(path, max_seconds=20) == "too_long"


def test_rate_and_channels_are_bounded_together(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros([1000, 8], np.int16), 192_000)
    assert len(audio.load(path, 192_000)) == 1000
    soundfile.write(path, np.zeros([1000, 9], np.int16), 192_000)
    assert reason(path) == "channels"


def test_a_window_is_a_file_of_its_own_that_never_raises() -> None:
    inner = b"".join(struct.pack(">H", n) for n in range(100))
    window = containers.Window(io.BytesIO(b"before" + inner + b"behind"), 6, len(inner))
    plain = io.BytesIO(inner)
    for offset, whence in ((5, 0), (10, 1), (-7, 2), (-3, 1), (0, 2), (0, 0)):
        assert window.seek(offset, whence) == plain.seek(offset, whence)
        assert window.read(9) == plain.read(9)
        assert window.tell() == plain.tell()
    assert window.seek(-5) == 0
    assert window.seek(10_000) == len(inner)
    buffer = memoryview(bytearray(8))
    assert (window.readinto(buffer), window.seek(0), window.readinto(buffer)) == (0, 0, 8)
    assert bytes(buffer) == inner[:8]
