"""Where the pieces of a stream come from, and what is heard in them."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np
import soxr

from speechrnn import audio
from speechrnn.corpora.record import Receive
from speechrnn.errors import UsageError
from speechrnn.runtime.streaming import Heard, Stream

BLOCK_SECONDS = 0.1  # between two looks at the input
RATES = range(4_000, 768_001)  # Hz, as in audio files
BACKLOG_SECONDS = 30.0  # heard and not yet recognised; more is dropped
DEAD_SECONDS = 5.0  # without a sample: a microphone in a silent room gives zeros


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


class Device(Protocol):
    """What records, as ``corpora.record.SoundDevice`` does."""

    sample_rate: int

    def open(self, receive: Receive) -> None: ...

    def close(self) -> None: ...


class LiveMicrophone:
    """The pieces that a microphone hears, at the model's ``sample_rate``, until ``stop``.

    ``report_loss`` is told, as seconds of sound heard before it, where sound was lost: the
    machine did not fetch it in time, or recognition is more than ``BACKLOG_SECONDS`` behind.

    Raises:
        UsageError: in iterating: the microphone failed, or fell silent altogether.
    """

    def __init__(self, device: Device, sample_rate: int, report_loss: Callable[[float], None]):
        self._device, self._sample_rate, self._report_loss = device, sample_rate, report_loss
        # Of samples, and whether some before them were lost; None ends. Unlike Queue, it may be
        # put to by a signal handler that interrupts a get.
        self._heard: queue.SimpleQueue[tuple[np.ndarray, bool] | None] = queue.SimpleQueue()
        self._dropped = False  # since the last block that was kept
        self._samples = 0

    def stop(self) -> None:
        """End the pieces with what was heard until now; from any thread or signal handler."""
        self._heard.put(None)

    def __iter__(self) -> Iterator[np.ndarray]:
        rate = self._device.sample_rate
        resampler = soxr.ResampleStream(rate, self._sample_rate, 1, dtype="float32", quality="HQ")
        self._device.open(self._receive)
        try:
            is_last = False
            while not is_last:
                samples, is_last = self._gather(round(BLOCK_SECONDS * rate))
                yield resampler.resample_chunk(samples, last=is_last)
        finally:
            self._device.close()

    def _receive(self, samples: np.ndarray, lost: bool) -> None:
        waiting = self._heard.qsize() * len(samples)
        if waiting > BACKLOG_SECONDS * self._device.sample_rate:
            self._dropped = True
            return
        self._heard.put((samples, lost or self._dropped))
        self._dropped = False

    def _gather(self, wanted: int) -> tuple[np.ndarray, bool]:
        """At least ``wanted`` samples, or the last ones and True."""
        blocks = [np.zeros(0, np.float32)]
        while sum(map(len, blocks)) < wanted:
            try:
                found = self._heard.get(timeout=DEAD_SECONDS)
            except queue.Empty as error:
                raise UsageError(
                    f"the microphone has given nothing for {DEAD_SECONDS:g} s; check that it is "
                    "plugged in, or name another"
                ) from error
            if found is None:
                return np.concatenate(blocks), True
            samples, lost = found
            if lost:
                self._report_loss(self._samples / self._device.sample_rate)
            self._samples += len(samples)
            blocks.append(samples)
        return np.concatenate(blocks), False


@contextmanager
def first_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first Ctrl-C calls ``stop``; another one interrupts as usual."""

    def stop_once(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, stop_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def listen(stream: Stream, pieces: Iterable[np.ndarray]) -> Iterator[Heard]:
    """Feed the stream and finish it -> its results as they come; no final one is empty."""
    for piece in pieces:
        yield from stream.feed(piece)
    last = stream.finish()
    if last.text:
        yield last
