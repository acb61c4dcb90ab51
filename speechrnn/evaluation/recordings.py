"""Recordings -> the facts of each that tell good from bad: length, level, clipping, content."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from speechrnn import audio
from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import AudioError, DataError

LOUD_PERCENTILE = 95  # of the pieces' levels: what counts as the recording's speech
PAUSE_DB = 25.0  # below that level a piece is a pause
FULL_SCALE = 0.999  # of both signs: 16-bit converters end at 32767 / 32768
FLAT_TOP = 3  # equal samples at a block's extreme: a wave that is not cut has one or two
LOUD_ENOUGH = 0.1  # a block's peak: quieter waves are flat at their tops by rounding
_PIECE_S = 0.02
_LOWEST_DB = -120.0
_FEW = 32  # recordings that one process measures before a pool of them has started


@dataclass(frozen=True)
class Recording:
    """What was measured in one recording, at its own sample rate, its channels averaged."""

    duration_s: float
    sample_rate: int  # Hz, of the file
    channels: int
    rms_dbfs: float  # the mean removed; full scale is 0 dB, a full-scale sine -3 dB
    peak: float  # full scale is 1
    offset: float  # the mean sample
    clipped: float  # share of the samples in flat tops or at full scale
    pauses: float  # share of 20 ms pieces more than PAUSE_DB below the loud ones
    silent: bool  # as ``audio.check`` has it
    sha256: str  # of the decoded samples in 16 bits: the same for a lossless copy


@dataclass(frozen=True)
class Unreadable:
    """Why a recording could not be measured."""

    reason: str  # the short code of the error
    message: str


def measure(utterance: Utterance) -> Recording | Unreadable:
    """Decode one recording, of any length, in blocks. Never raises."""
    try:
        rate, channels = recordings.header(utterance)
        return _measured(recordings.blocks(utterance, rate), rate, channels)
    except AudioError as error:
        return Unreadable(error.reason, str(error))
    except Exception as error:  # one recording never stops the others
        message = f"{utterance.where}: {type(error).__name__}: {error}"
        return Unreadable("unexpected", message)


def measure_all(
    utterances: Sequence[Utterance],
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Recording | Unreadable]:
    """``measure`` of each, in their order, by ``workers`` processes (default: one a core).

    Args:
        advance: called after each recording.

    Raises:
        DataError: a worker process died.
    """
    workers = min(workers or os.cpu_count() or 1, 1 + len(utterances) // _FEW)
    found = []
    for recording in _each(utterances, workers):
        found.append(recording)
        advance()
    return found


def _each(utterances: Sequence[Utterance], workers: int) -> Iterator[Recording | Unreadable]:
    if workers == 1:
        yield from map(measure, utterances)
        return
    spawn = multiprocessing.get_context("spawn")  # not forked: a model has threads
    # Ctrl-C is the parent's business.
    pool = ProcessPoolExecutor(
        workers, spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield from pool.map(measure, utterances, chunksize=8)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that measures recordings died. In a script, call this under "
            '`if __name__ == "__main__":`, or give the machine more memory'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _measured(blocks: Iterator[np.ndarray], rate: int, channels: int) -> Recording:
    samples, clipped, total, squares = 0, 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    levels, digest, piece = [], hashlib.sha256(), max(1, round(_PIECE_S * rate))
    for block in blocks:
        exact = block.astype(np.float64)
        samples += len(block)
        total += exact.sum()
        squares += np.square(exact).sum()
        low, high = min(low, exact.min()), max(high, exact.max())
        clipped += _clipped(block)
        digest.update(audio.to_pcm16(block).astype("<i2").tobytes())
        whole = exact[: len(exact) // piece * piece].reshape(-1, piece)
        levels.append(whole.var(axis=1))
    mean = total / samples
    return Recording(
        duration_s=samples / rate,
        sample_rate=rate,
        channels=channels,
        rms_dbfs=decibels(squares / samples - mean**2),
        peak=float(max(high, -low)),
        offset=float(mean),
        clipped=clipped / samples,
        pauses=_pauses(np.concatenate(levels)),
        silent=bool((high - low) / 2 < audio.SILENCE),
        sha256=digest.hexdigest(),
    )


def decibels(power: float) -> float:
    """Mean squared samples -> dBFS; nothing is below -120."""
    return max(_LOWEST_DB, 10 * float(np.log10(max(power, 1e-12))))


def _clipped(block: np.ndarray) -> int:
    """Samples of a block at full scale, or in a flat top: ``FLAT_TOP`` equal ones in a row at the
    block's extreme, which stay when a clipped recording is made quieter."""
    flat = np.abs(block) >= FULL_SCALE
    for extreme in (block.max(), block.min()):
        if abs(extreme) < LOUD_ENOUGH:
            continue
        edges = np.flatnonzero(np.diff(block == extreme, prepend=False, append=False))
        for start, end in edges.reshape(-1, 2):
            if end - start >= FLAT_TOP:
                flat[start:end] = True
    return int(flat.sum())


def _pauses(powers: np.ndarray) -> float:
    if len(powers) == 0:
        return 0.0
    loud = np.percentile(powers, LOUD_PERCENTILE)
    return float(np.mean(powers < loud * 10 ** (-PAUSE_DB / 10))) if loud > 0 else 1.0
