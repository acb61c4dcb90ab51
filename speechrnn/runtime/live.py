"""Where the pieces of a stream come from, and what is heard in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import soxr

from speechrnn import audio
from speechrnn.errors import UsageError
from speechrnn.runtime.streaming import Heard, Stream

BLOCK_SECONDS = 0.1  # between two looks at the input
RATES = range(4_000, 768_001)  # Hz, as in audio files


def raw_pcm(file: BinaryIO, rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """16-bit little-endian samples of one channel, such as ``arecord -f S16_LE -t raw`` writes,
    until the file ends -> float32 pieces at the model's ``sample_rate``.

    Raises:
        UsageError: ``rate`` is none of sound.
    """
    if rate not in RATES:
        raise UsageError(f"the rate is {rate} Hz; give {RATES.start} to {RATES.stop - 1}")
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    wanted = 2 * max(1, round(BLOCK_SECONDS * rate))
    while True:
        content = file.read(wanted)  # as much as is wanted, but at the end
        samples = np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.int16)
        is_last = len(content) < wanted
        yield resampler.resample_chunk(audio.from_pcm16(samples), last=is_last)
        if is_last:
            return


def cut(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """A recording's blocks as the pieces in which a microphone would give it, or shorter."""
    length = max(1, round(BLOCK_SECONDS * sample_rate))
    for block in blocks:
        for start in range(0, len(block), length):
            yield block[start : start + length]


def listen(stream: Stream, pieces: Iterable[np.ndarray]) -> Iterator[Heard]:
    """Feed the stream and finish it -> its results as they come; no final one is empty."""
    for piece in pieces:
        yield from stream.feed(piece)
    last = stream.finish()
    if last.text:
        yield last
