"""Long recordings in parts: what is computed at once, so that memory does not grow with length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechrnn.specs import RecogniserSpec


@dataclass(frozen=True)
class Windows:
    """How a recording is computed, in seconds.

    Up to ``whole_s`` at once. What is longer gets windows that give ``kept_s`` each and read
    ``context_s`` more on either side, whose frames are discarded. A network that reads a
    recording from both ends, or from the first sample on, so hears less than all of it. With
    windows of 30 s, in ten minutes of joined AN4 utterances the shipped model wrote 7 of 1032
    words otherwise than from the whole with 2 s of context, 4 with 3 s and with 4 s, 1 with 5 s;
    then 10 of 20068 frames had another best label. Features that are normalised by utterance are
    normalised by window.

    Memory is what the longest of them takes: with the shipped model 4 MB a second, 250 MB of the
    process for 50 s, and 277 for an hour.
    """

    whole_s: float = 50.0
    kept_s: float = 40.0
    context_s: float = 5.0

    def __post_init__(self) -> None:
        if self.whole_s < 0 or self.kept_s <= 0 or self.context_s < 0:
            raise ValueError(f"{self}: kept_s must be positive, the others not negative")


def beginning(
    blocks: Iterable[np.ndarray], samples: int
) -> tuple[np.ndarray, Iterator[np.ndarray] | None]:
    """The first blocks joined, until they are more than ``samples``, and the rest; None: there is
    no more than ``samples``."""
    rest, found, count = iter(blocks), [np.zeros(0, np.float32)], 0
    for block in rest:
        found.append(block)
        count += len(block)
        if count > samples:
            return np.concatenate(found), rest
    return np.concatenate(found), None


def cut(
    waveform: np.ndarray, rest: Iterable[np.ndarray], spec: RecogniserSpec, windows: Windows
) -> Iterator[tuple[np.ndarray, slice]]:
    """A recording, its beginning and the blocks that follow -> windows of samples, and of each
    window's output frames those to keep.

    The kept ones together are the recording's frames, ``spec.output_frames(samples)``. Where
    windows lie depends on the number of samples alone, not on the blocks. The last one keeps its
    context: it has at least that much to give.
    """
    features, stride = spec.features, spec.model.time_stride
    unit = max(1, spec.model.chunk)  # a model of chunks is to find them where the whole has them
    seconds = unit * spec.seconds_per_output_frame
    kept = unit * max(1, round(windows.kept_s / seconds))
    context = unit * round(windows.context_s / seconds)
    start = done = 0  # the output frame at which the waveform begins, and the first to give
    for block in _then_nothing(rest):
        waveform = np.concatenate([waveform, block])
        while True:
            frames = done + kept + context - start
            samples = features.window_samples + (frames * stride - 1) * features.hop_samples
            if len(waveform) <= samples:
                break
            yield waveform[:samples], slice(done - start, done - start + kept)
            done += kept
            gone = max(0, done - context) - start
            start += gone
            waveform = waveform[gone * stride * features.hop_samples :]
    if spec.output_frames(len(waveform)) > done - start:
        yield waveform, slice(done - start, None)


def of_length(
    samples: int, waveform: np.ndarray, rest: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """The same samples in pieces of this length; the last one may be shorter."""
    for block in _then_nothing(rest):
        waveform = np.concatenate([waveform, block])
        while len(waveform) > samples:
            yield waveform[:samples]
            waveform = waveform[samples:]
    yield waveform


def _then_nothing(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Once around even if there is no block: the beginning may be enough for several windows."""
    yield np.zeros(0, np.float32)
    yield from blocks
