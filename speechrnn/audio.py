"""One recording -> a checked mono waveform: decoded in blocks, bounded, resampled.

No input takes more memory than the audio asked for, and none is believed: libsndfile loads a
truncated WAV without a word, and a damaged header may promise any rate or channel count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import soundfile
import soxr

from speechrnn import containers
from speechrnn.containers import Source
from speechrnn.errors import AudioError

MIN_SAMPLE_RATE = 4_000  # Hz: below, hardly the first formant is left
MAX_SAMPLE_RATE = 768_000  # Hz: the fastest converters sold
MAX_CHANNELS = 32
MAX_SAMPLES_A_SECOND = 1_536_000  # of all channels: 32 at 48 kHz, 2 at 768 kHz
SILENCE = 1e-4  # half the peak-to-peak range: three 16-bit steps, just above dither (-80 dBFS)
LOUDEST = 8.0  # 18 dB over full scale: resampling never gets there, integers in a float file do

OVERSHOOT_S = 0.5  # by which a part's end may miss the recording's, as in Kaldi's segments

_BLOCK = 65_536  # frames decoded at a time: 8 MiB at MAX_CHANNELS
_UNKNOWN_FRAMES = 0x7FFF_F000  # from here on, what a WAV says whose writer could not seek back
_MP3_SLACK = 2 * 1_152  # frames: encoders count their padding in different ways


def load(
    source: Source,
    sample_rate: int = 16_000,
    max_seconds: float | None = None,
    *,
    name: str | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> np.ndarray:
    """WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU or SPHERE -> (samples,) float32 mono at
    ``sample_rate``, full scale 1.

    Channels are averaged; resampling is soxr's HQ. Decoding stops at ``max_seconds``, so an
    hour of silence in a small FLAC costs no more than that.

    Args:
        source: a path, a file's bytes, or a binary file that can be sought in.
        name: what messages call it; default: the path.
        start_s: read from here on.
        end_s: read to here; default: all. May lie ``OVERSHOOT_S`` behind the recording's end.

    Raises:
        AudioError: with ``reason`` missing, empty, unreadable, truncated, non_finite, too_long,
            sample_rate or channels.
    """
    name = name or _named(source)
    pieces = blocks(source, sample_rate, max_seconds, name=name, start_s=start_s, end_s=end_s)
    return joined(pieces, name)


def joined(pieces: Iterable[np.ndarray], name: str) -> np.ndarray:
    """What ``blocks`` gives, as one waveform; finite, which resampling may have changed."""
    waveform = np.concatenate(list(pieces))
    _require_finite(waveform, name)
    return waveform


def blocks(
    source: Source,
    sample_rate: int = 16_000,
    max_seconds: float | None = None,
    *,
    name: str | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Iterator[np.ndarray]:
    """``load`` in pieces of any length, empty ones too, decoded as they are asked for: a file of
    hours takes no more memory than one of seconds.

    Raises:
        AudioError: as ``load`` does, with the first piece that is asked for; truncated and
            non_finite only when that place is reached.
    """
    name = name or _named(source)
    whole = start_s == 0 and end_s is None  # of a part, the file's length says nothing
    with _opened(source, name, max_seconds if whole else None) as file:
        start = round(start_s * file.samplerate)
        end = None if end_s is None else round(end_s * file.samplerate)
        pieces = _mono_blocks(file, name, max_seconds, start, end)
        yield from _resampled(pieces, file.samplerate, sample_rate)


def decoded_blocks(
    samples: np.ndarray, rate: int, sample_rate: int, max_seconds: float | None, *, name: str
) -> Iterator[np.ndarray]:
    """``blocks`` of a recording that is decoded already: (samples,) float32 at ``rate``.

    Raises:
        AudioError: with ``reason`` empty, non_finite, too_long or sample_rate.
    """
    _check_rate(rate, 1, name)
    if len(samples) == 0:
        raise AudioError(f"{name} holds no samples; record it again", "empty")
    if max_seconds is not None and len(samples) > max_seconds * rate:
        raise _too_long(name, max_seconds)
    _require_finite(samples, name)
    yield from _resampled(iter([samples]), rate, sample_rate)


def header(source: Source, name: str | None = None) -> tuple[int, int]:
    """The sample rate in Hz and the channels that a recording's header says.

    Raises:
        AudioError: as ``load`` does.
    """
    with _opened(source, name or _named(source), None) as file:
        return file.samplerate, file.channels


def promised_seconds(path: str | os.PathLike[str]) -> float | None:
    """What a recording's header says of its length, for a progress bar; None: nothing to go by."""
    try:
        found = soundfile.info(path)
    except (soundfile.SoundFileError, TypeError):
        return None
    return found.frames / found.samplerate if 0 < found.frames < _UNKNOWN_FRAMES else None


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


@contextmanager
def _opened(source: Source, name: str, max_seconds: float | None) -> Iterator[soundfile.SoundFile]:
    """The decoder of a recording whose format and promised length are checked."""
    with containers.opened(source, name) as file:
        containers.check(file, name, max_seconds)
        # By its path where it has one: libsndfile then reads it without asking Python.
        given = os.fspath(source) if isinstance(source, str | os.PathLike) else file
        try:
            decoder = soundfile.SoundFile(given)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw
            if "SF_INFO struct incomplete" in str(error):  # libsndfile's words for a rate of 0
                raise AudioError(f"{name} says 0 Hz; correct its header", "sample_rate") from error
            raise AudioError(
                f"{name} is no recording that can be read ({error}); give WAV, FLAC, Ogg, Opus "
                "or MP3"
            ) from error
        with decoder:
            if decoder.format not in containers.FORMATS:
                raise AudioError(f"{name} is {decoder.format}; convert it to WAV or FLAC")
            _check_rate(decoder.samplerate, decoder.channels, name)
            yield decoder


def _named(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the recording"


def _check_rate(rate: int, channels: int, name: str) -> None:
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name} says {rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are accepted. "
            "Correct its header or convert it",
            "sample_rate",
        )
    if channels > MAX_CHANNELS or channels * rate > MAX_SAMPLES_A_SECOND:
        raise AudioError(
            f"{name} says {channels} channels at {rate} Hz; at most {MAX_CHANNELS} and together "
            f"{MAX_SAMPLES_A_SECOND} samples a second are accepted. Correct its header or mix it "
            "down",
            "channels",
        )


def _mono_blocks(
    file: soundfile.SoundFile, name: str, max_seconds: float | None, start: int, end: int | None
) -> Iterator[np.ndarray]:
    """(frames,) float32 blocks at the file's own rate; at least one frame in all."""
    decoded = 0
    for block in _decoded(file, name, start, end):
        decoded += len(block)
        if max_seconds is not None and decoded > max_seconds * file.samplerate:
            raise _too_long(name, max_seconds)
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1)
        _require_finite(mono, name)
        yield mono
    slack = _MP3_SLACK if file.format == "MP3" else 0
    if end is not None:
        slack = round(OVERSHOOT_S * file.samplerate)
    promised = (file.frames if end is None else end) - start
    if decoded + slack < promised:
        raise _truncated(name, f"{decoded} of {promised} frames")
    if decoded == 0:
        raise AudioError(f"{name} holds no samples; record it again", "empty")


def _decoded(
    file: soundfile.SoundFile, name: str, start: int, end: int | None
) -> Iterator[np.ndarray]:
    """(frames, channels) float32 blocks of the frames from ``start`` to before ``end``."""
    at = 0
    try:
        if 0 < start < file.frames and file.seekable() and file.format != "MP3":
            at = file.seek(start)  # of an MP3 it would be inexact
        while end is None or at < end:
            most = _BLOCK if end is None else min(_BLOCK, end - at)
            block = file.read(most, dtype="float32", always_2d=True)
            if len(block) == 0:
                return
            wanted = block[max(0, start - at) :]
            at += len(block)
            if len(wanted):
                yield wanted
    except soundfile.SoundFileError as error:
        raise _truncated(name, f"decoding stopped after {at} frames: {error}") from error


def _resampled(blocks: Iterator[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _require_finite(waveform: np.ndarray, name: str) -> None:
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name} holds NaN or infinite samples; convert it again", "non_finite")


def _truncated(name: str, found: str) -> AudioError:
    return AudioError(f"{name} is truncated or damaged ({found}); copy it again", "truncated")


def _too_long(name: str, max_seconds: float) -> AudioError:
    return AudioError(
        f"{name} is longer than {max_seconds:g} s; cut it, or raise data.max_seconds", "too_long"
    )
