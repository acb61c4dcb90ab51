"""Recordings that mean harm, made up from seeds: mutations of sound ones, and bombs."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
FORMATS = {  # suffix -> soundfile's format and subtype
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_HEADER = 256  # bytes from the start where most fields are
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


def speechlike(seed: int, seconds: float = 1.5, rate: int = RATE) -> np.ndarray:
    """(samples,) float32: voiced stretches of gliding pitch and formants, hiss and pauses."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voiced = sum(np.sin(k * phase) / k for k in range(1, 20))
    loud = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time + rng.uniform(0, 6)), 0, 1)
    hiss = rng.normal(0, 0.02, len(time))
    return (0.1 * loud * voiced + hiss).astype(np.float32)


@cache
def sound(suffix: str, seed: int) -> bytes:
    """A recording that is as it should be, one of a few for each format."""
    kind, subtype = FORMATS[suffix]
    rate = (16_000, 8_000, 48_000)[seed % 3]
    wave = speechlike(seed, rate=rate)
    if seed % 2:
        wave = np.stack([wave, wave[::-1]], axis=1)
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def mutated(seed: int) -> tuple[str, bytes]:
    """The suffix and the bytes of a recording that was damaged, by one to three of ``_CHANGES``;
    the same for the same seed."""
    rng = np.random.default_rng([7, seed])
    suffix = list(FORMATS)[seed % len(FORMATS)]
    content = bytearray(sound(suffix, int(rng.integers(6))))
    for _ in range(rng.integers(1, 4)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(content, rng)
    return suffix, bytes(content)


def _flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(2 ** rng.integers(0, 7)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def _flip_header(content: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 5)):
        content[rng.integers(min(_HEADER, len(content)))] ^= 1 << rng.integers(8)
    return content


def _cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: rng.integers(1, len(content) + 1)]


def _set_field(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A number that parsers stumble over, in one to eight bytes of the header, in either order."""
    size = int(2 ** rng.integers(0, 4))
    number = _NUMBERS[rng.integers(len(_NUMBERS))] % 2 ** (8 * size)
    at = int(rng.integers(min(_HEADER, len(content))))
    content[at : at + size] = number.to_bytes(size, "little" if rng.integers(2) else "big")
    return content


def _splice(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A part of another recording, of any format, put in or written over."""
    other = sound(list(FORMATS)[rng.integers(len(FORMATS))], int(rng.integers(6)))
    start, end = sorted(rng.integers(0, len(other), 2))
    at = int(rng.integers(len(content)))
    over = int(end - start) if rng.integers(2) else 0
    content[at : at + over] = other[start:end]
    return content


def _zeros(content: bytearray, rng: np.random.Generator) -> bytearray:
    at, size = int(rng.integers(len(content))), int(2 ** rng.integers(0, 14))
    size = min(size, len(content) - at)
    content[at : at + size] = bytes(size)
    return content


def _repeat(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, end = sorted(int(n) for n in rng.integers(0, len(content), 2))
    content[end:end] = content[start:end] * int(rng.integers(1, 4))
    return content


_CHANGES = (_flip, _flip_header, _cut, _set_field, _splice, _zeros, _repeat)


# Bombs: small or sparse files that promise, or are, more than they should.


def _written(path: Path, wave: np.ndarray, rate: int, kind: str, subtype: str) -> None:
    soundfile.write(path, wave, rate, format=kind, subtype=subtype)


def _hour_of_silence(path: Path) -> None:
    _written(path, np.zeros(3600 * RATE, np.int16), RATE, "FLAC", "PCM_16")


def _silent_opus(path: Path) -> None:
    _written(path, np.zeros(600 * 48_000, np.int16), 48_000, "OGG", "OPUS")


def _wav(
    path: Path,
    *,
    size: int,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    before: bytes = b"",
    real: int = 64_000,
) -> None:
    """A WAV header that says so, and ``real`` bytes of audio, which are holes of the file."""
    align = channels * bits // 8 % 65_536
    fields = (1, channels % 65_536, rate, rate * align % 2**32, align, bits)
    form = b"fmt " + struct.pack("<IHHIIHH", 16, *fields)
    head = b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVE" + form + before
    with path.open("wb") as file:
        file.write(head + b"data" + struct.pack("<I", size))
        file.truncate(file.tell() + real)


def _rf64(path: Path) -> None:
    sizes = struct.pack("<QQQI", 2**40, 2**40, 2**39, 0)
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", 28) + sizes
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    path.write_bytes(head + form + b"data\xff\xff\xff\xff" + bytes(64_000))


def _sparse_rf64(path: Path) -> None:
    """An RF64 that keeps its promise of 4 GB: more than a day of silence."""
    real = 2**32
    sizes = struct.pack("<QQQI", real + 80, real, real // 2, 0)
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", 28) + sizes
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    with path.open("wb") as file:
        file.write(head + form + b"data\xff\xff\xff\xff")
        file.truncate(file.tell() + real)


def _w64(path: Path) -> None:
    _written(path, speechlike(0), RATE, "W64", "PCM_16")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack("<Q", 2**62)
    path.write_bytes(content)


def _aiff(path: Path) -> None:
    rate = struct.pack(">HQ", 16_397, 0xFA00 << 48)  # 16,000 as an 80-bit float
    common = b"COMM" + struct.pack(">IhIh", 18, 1, 2**32 - 1, 16) + rate
    audio = b"SSND" + struct.pack(">III", 2**31 - 1, 0, 0) + bytes(64_000)
    path.write_bytes(b"FORM" + struct.pack(">I", 2**31 - 1) + b"AIFF" + common + audio)


def _giant_id3(path: Path) -> None:
    path.write_bytes(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + sound("mp3", 0))


def _many_id3(path: Path) -> None:
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x00" * 200_000 + sound("mp3", 0))


def _giant_xing(path: Path) -> None:
    """The Xing header that says 2^32 - 1 frames; without one, one is made of the first frame."""
    content = bytearray(sound("mp3", 0))
    at = max(content.find(b"Xing"), content.find(b"Info"), 36)
    content[at : at + 16] = b"Xing" + struct.pack(">III", 3, 2**32 - 1, 2**32 - 1)
    path.write_bytes(content)


def _hours_of_mp3(path: Path) -> None:
    """100 MB of sound frames: libsndfile reads them all to know their number."""
    frames = sound("mp3", 0)
    path.write_bytes(frames * (100_000_000 // len(frames)))


def _sparse_mp3(path: Path) -> None:
    with path.open("wb") as file:
        file.write(sound("mp3", 0))
        file.truncate(2**32)


def _granule(path: Path) -> None:
    """An Ogg whose last page says that 2^62 samples end there; its checksum is made right."""
    content = bytearray(sound("ogg", 0))
    page = content.rfind(b"OggS")
    content[page + 6 : page + 14] = struct.pack("<Q", 2**62)
    content[page + 22 : page + 26] = bytes(4)
    content[page + 22 : page + 26] = struct.pack("<I", _ogg_crc(bytes(content[page:])))
    path.write_bytes(content)


def _ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 2**31 else 0)) & 0xFFFF_FFFF
    return crc


def _sparse_ogg(path: Path) -> None:
    with path.open("wb") as file:
        file.write(sound("ogg", 0))
        file.truncate(2**32)


def _sandwich_ogg(path: Path) -> None:
    """Holes of 4 GB between an Ogg's first pages and its last."""
    content = sound("ogg", 0)
    page = content.rfind(b"OggS")
    with path.open("wb") as file:
        file.write(content[:page])
        file.seek(2**32)
        file.write(content[page:])


def _riff_chunks(path: Path) -> None:
    _wav(path, size=64_000, before=(b"junk" + bytes(4)) * 3_000_000)


def _aiff_chunks(path: Path) -> None:
    chunks = (b"NAME" + bytes(4)) * 3_000_000
    path.write_bytes(b"FORM" + struct.pack(">I", len(chunks) + 4) + b"AIFF" + chunks)


def _flac_blocks(path: Path) -> None:
    """Twenty million empty blocks of padding before the frames."""
    content = sound("flac", 0)
    end = 8 + int.from_bytes(content[5:8])
    padding = b"\x01\x00\x00\x00" * 20_000_000
    path.write_bytes(content[:4] + b"\x00" + content[5:end] + padding + content[end:])


def _many_channels(path: Path) -> None:
    """A minute of 32 channels at 48 kHz, as much as is accepted, in 184 MB of holes."""
    _wav(path, size=184_320_000, rate=48_000, channels=32, real=184_320_000)


def _fast_flac(path: Path) -> None:
    """Eight silent channels at 192 kHz, the most a second that is accepted of FLAC."""
    _written(path, np.zeros([192_000 * 19, 8], np.int16), 192_000, "FLAC", "PCM_16")


def _foreign(kind: str, subtype: str) -> Callable[[Path], None]:
    return lambda path: _written(path, speechlike(0), RATE, kind, subtype)


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "an hour of silence": ("flac", _hour_of_silence),
    "ten minutes of silence": ("opus", _silent_opus),
    "2^31 frames": ("wav", lambda path: _wav(path, size=2**32 - 2, real=64_000)),
    "2^31 - 2 bytes": ("wav", lambda path: _wav(path, size=2**31 - 8_192, real=64_000)),
    "4 GB of holes": ("wav", lambda path: _wav(path, size=2**32 - 2, real=2**32 - 2)),
    "1,024 channels": ("wav", lambda path: _wav(path, size=64_000, channels=1_024)),
    "65,535 channels": ("wav", lambda path: _wav(path, size=64_000, channels=65_535)),
    "1 Hz": ("wav", lambda path: _wav(path, size=64_000, rate=1)),
    "768,001 Hz": ("wav", lambda path: _wav(path, size=64_000, rate=768_001)),
    "2^32 - 1 Hz": ("wav", lambda path: _wav(path, size=64_000, rate=2**32 - 1)),
    "32 channels at 48 kHz": ("wav", _many_channels),
    "8 channels at 192 kHz": ("flac", _fast_flac),
    "RF64 of a terabyte": ("wav", _rf64),
    "RF64 of 4 GB": ("wav", _sparse_rf64),
    "W64 of 2^62 bytes": ("w64", _w64),
    "AIFF of 2^32 frames": ("aiff", _aiff),
    "3 million RIFF chunks": ("wav", _riff_chunks),
    "3 million AIFF chunks": ("aiff", _aiff_chunks),
    "20 million FLAC blocks": ("flac", _flac_blocks),
    "an ID3 tag of 256 MB": ("mp3", _giant_id3),
    "200,000 ID3 tags": ("mp3", _many_id3),
    "a Xing header of 2^32 frames": ("mp3", _giant_xing),
    "seven hours of MP3": ("mp3", _hours_of_mp3),
    "an MP3 and 4 GB of holes": ("mp3", _sparse_mp3),
    "a granule of 2^62": ("ogg", _granule),
    "an Ogg and 4 GB of holes": ("ogg", _sparse_ogg),
    "an Ogg around 4 GB of holes": ("ogg", _sandwich_ogg),
    "MATLAB 4": ("mat", _foreign("MAT4", "PCM_16")),
    "MATLAB 5": ("mat", _foreign("MAT5", "PCM_16")),
    "Core Audio": ("caf", _foreign("CAF", "PCM_16")),
    "VOC": ("voc", _foreign("VOC", "PCM_16")),
    "IRCAM": ("sf", _foreign("IRCAM", "PCM_16")),
    "PVF": ("pvf", _foreign("PVF", "PCM_16")),
    "HTK": ("htk", _foreign("HTK", "PCM_16")),
    "Ensoniq PARIS": ("paf", _foreign("PAF", "PCM_16")),
    "Amiga SVX": ("svx", _foreign("SVX", "PCM_16")),
}
