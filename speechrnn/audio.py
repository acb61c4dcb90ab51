"""One recording -> a checked mono waveform: decoded in blocks, bounded, resampled.

No input takes more memory than the audio asked for, and none is believed: libsndfile loads a
truncated WAV without a word, and a damaged header may promise any rate or channel count.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from speechrnn.errors import AudioError

MIN_SAMPLE_RATE = 4_000  # Hz: below, hardly the first formant is left
MAX_SAMPLE_RATE = 768_000  # Hz: the fastest converters sold
MAX_CHANNELS = 32
SILENCE = 1e-4  # half the peak-to-peak range: three 16-bit steps, just above dither (-80 dBFS)
LOUDEST = 8.0  # 18 dB over full scale: resampling never gets there, integers in a float file do

_BLOCK = 65_536  # frames decoded at a time: 8 MiB at MAX_CHANNELS
_UNKNOWN_SIZE = 0x7FFF_F000  # from here on, what sox and ffmpeg write when they cannot seek back
_MAX_CHUNKS = 1_000
_MP3_SLACK = 2 * 1_152  # frames: encoders count their padding in different ways
_CHUNKED = {b"RIFF": ("<I", b"data"), b"FORM": (">I", b"SSND")}  # WAV and AIFF


def load(
    path: str | os.PathLike[str], sample_rate: int = 16_000, max_seconds: float | None = None
) -> np.ndarray:
    """Any file soundfile reads -> (samples,) float32 mono at ``sample_rate``, full scale 1.

    Channels are averaged; resampling is soxr's HQ. Decoding stops at ``max_seconds``, so an
    hour of silence in a small FLAC costs no more than that.

    Raises:
        AudioError: with ``reason`` missing, empty, unreadable, truncated, non_finite, too_long,
            sample_rate or channels.
    """
    waveform = np.concatenate(list(blocks(path, sample_rate, max_seconds)))
    _require_finite(waveform, str(path))
    return waveform


def blocks(
    path: str | os.PathLike[str], sample_rate: int = 16_000, max_seconds: float | None = None
) -> Iterator[np.ndarray]:
    """``load`` in pieces of any length, empty ones too, decoded as they are asked for: a file of
    hours takes no more memory than one of seconds.

    Raises:
        AudioError: as ``load`` does, with the first piece that is asked for; truncated and
            non_finite only when that place is reached.
    """
    path = Path(path)
    _require_recording(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(file, path)
            yield from _resampled(_mono_blocks(file, path, max_seconds), file, sample_rate)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw
        if "SF_INFO struct incomplete" in str(error):  # libsndfile's words for a rate of 0
            raise AudioError(f"{path} says 0 Hz; correct its header", "sample_rate") from error
        raise AudioError(
            f"{path} is no recording that can be read ({error}); give WAV, FLAC, Ogg, Opus or MP3"
        ) from error


def promised_seconds(path: str | os.PathLike[str]) -> float | None:
    """What a recording's header says of its length, for a progress bar; None: nothing to go by."""
    try:
        found = soundfile.info(path)
    except (soundfile.SoundFileError, TypeError):
        return None
    return found.frames / found.samplerate if 0 < found.frames < _UNKNOWN_SIZE else None


def check(
    waveform: np.ndarray,
    sample_rate: int = 16_000,
    *,
    min_seconds: float = 0.0,
    max_seconds: float | None = None,
    name: str = "the waveform",
) -> None:
    """Refuse a (samples,) waveform that speech cannot be in.

    Silent means that the signal leaves its mean by less than ``SILENCE``: a constant offset is
    as silent as zeros.

    Raises:
        AudioError: with ``reason`` channels, empty, too_short, too_long, non_finite, silent or
            too_loud.
    """
    if np.ndim(waveform) != 1:
        shape = "x".join(map(str, np.shape(waveform)))
        raise AudioError(f"{name} is {shape}; give one channel: (samples,)", "channels")
    if len(waveform) == 0:
        raise AudioError(f"{name} holds no samples; record it again", "empty")
    seconds = len(waveform) / sample_rate
    if seconds < min_seconds:
        raise AudioError(
            f"{name} lasts {seconds:.3f} s; at least {min_seconds:g} s are needed. "
            "Record it again, or lower data.min_seconds",
            "too_short",
        )
    if max_seconds is not None and seconds > max_seconds:
        raise _too_long(name, max_seconds)
    _require_finite(waveform, name)
    low, high = float(waveform.min()), float(waveform.max())
    if (high - low) / 2 < SILENCE:
        raise AudioError(
            f"{name} is silent: its samples stay within {low:.6f} to {high:.6f}; "
            "check the microphone and record it again",
            "silent",
        )
    if max(-low, high) > LOUDEST:
        raise AudioError(
            f"{name} peaks at {max(-low, high):.4g} where full scale is 1; "
            "scale its samples to -1 to 1",
            "too_loud",
        )


def to_pcm16(waveform: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> int16, rounded to nearest; what lies outside is clipped.

    Invariant: ``to_pcm16(from_pcm16(pcm)) == pcm`` for every int16.
    """
    return np.clip(np.rint(waveform * np.float32(32_768)), -32_768, 32_767).astype(np.int16)


def from_pcm16(pcm: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32_768)


def _require_recording(path: Path) -> None:
    """Refuse what libsndfile would misreport: no file, a folder, a pipe, nothing, half a file."""
    if not os.path.exists(path):  # Path.exists raises where a folder may not be searched
        raise AudioError(f"{path} does not exist; correct the path", "missing")
    if not os.path.isfile(path):
        raise AudioError(f"{path} is a folder or a device; name a recording", "unreadable")
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                raise AudioError(f"{path} is an empty file; record or copy it again", "empty")
            promised = _promised_size(stream, size)
    except OSError as error:
        raise AudioError(f"{path} cannot be opened: {error.strerror}") from error
    if promised > size:
        raise _truncated(path, f"{size} of at least {promised} bytes")


def _promised_size(stream: BinaryIO, size: int) -> int:
    """Bytes that the container says the file has up to the end of its audio; 0: it does not say.

    Only for the containers that libsndfile loads silently when they are cut.
    """
    magic = stream.read(12)[:4]
    if magic in _CHUNKED:
        return _promised_by_chunk(stream, *_CHUNKED[magic])
    if magic == b"OggS":
        return _promised_by_last_page(stream, size)
    return 0


def _promised_by_chunk(stream: BinaryIO, size_format: str, audio_chunk: bytes) -> int:
    for _ in range(_MAX_CHUNKS):
        header = stream.read(8)
        if len(header) < 8:
            break
        (size,) = struct.unpack(size_format, header[4:])
        if header[:4] == audio_chunk:
            return stream.tell() + size if 0 < size < _UNKNOWN_SIZE else 0
        stream.seek(size + size % 2, os.SEEK_CUR)  # chunks are padded to even sizes
    return 0


def _promised_by_last_page(stream: BinaryIO, size: int) -> int:
    """An Ogg page (RFC 3533): a 27-byte header, its count of segments last; sizes; segments."""
    start = max(0, size - 2 * 65_536)  # a page is shorter than 64 KiB
    stream.seek(start)
    tail = stream.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return 0
    sizes = tail[page + 27 : page + 27 + tail[page + 26]]
    return start + page + 27 + tail[page + 26] + sum(sizes)


def _check_header(file: soundfile.SoundFile, path: Path) -> None:
    rate, channels = file.samplerate, file.channels
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{path} says {rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are accepted. "
            "Correct its header or convert it",
            "sample_rate",
        )
    if channels > MAX_CHANNELS:
        raise AudioError(
            f"{path} says {channels} channels; at most {MAX_CHANNELS} are accepted. "
            "Correct its header or mix it down",
            "channels",
        )


def _mono_blocks(
    file: soundfile.SoundFile, path: Path, max_seconds: float | None
) -> Iterator[np.ndarray]:
    """(frames,) float32 blocks at the file's own rate; at least one frame in all."""
    decoded = 0
    while True:
        try:
            block = file.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise _truncated(path, f"decoding stopped after {decoded} frames: {error}") from error
        if len(block) == 0:
            break
        decoded += len(block)
        if max_seconds is not None and decoded > max_seconds * file.samplerate:
            raise _too_long(str(path), max_seconds)
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1)
        _require_finite(mono, str(path))
        yield mono
    slack = _MP3_SLACK if file.format == "MP3" else 0
    if decoded + slack < file.frames:
        raise _truncated(path, f"{decoded} of {file.frames} frames")
    if decoded == 0:
        raise AudioError(f"{path} holds no samples; record it again", "empty")


def _resampled(
    blocks: Iterator[np.ndarray], file: soundfile.SoundFile, sample_rate: int
) -> Iterator[np.ndarray]:
    if file.samplerate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _require_finite(waveform: np.ndarray, name: str) -> None:
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name} holds NaN or infinite samples; convert it again", "non_finite")


def _truncated(path: Path, found: str) -> AudioError:
    return AudioError(f"{path} is truncated or damaged ({found}); copy it again", "truncated")


def _too_long(name: str, max_seconds: float) -> AudioError:
    return AudioError(
        f"{name} is longer than {max_seconds:g} s; cut it, or raise data.max_seconds", "too_long"
    )
