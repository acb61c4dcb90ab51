"""Where a recording is quiet, from its waveform alone. NumPy only."""

from __future__ import annotations

import numpy as np

HOP_S = 0.01
SHORTEST_S = 0.15  # what is shorter may be the closure of a stop consonant
# Quiet is what lies less than this part of the way from the recording's noise (the 5th percentile
# of its levels) up to its speech (the 95th): 20 dB below speech where there is no noise.
QUIET = 0.1


class Loudness:
    """The level of a recording, which comes in blocks of any length: 400 bytes a second."""

    def __init__(self, sample_rate: int):
        self._hop = max(1, round(HOP_S * sample_rate))
        self._sample_rate = sample_rate
        self._rest = np.zeros(0, np.float32)
        self._levels: list[np.ndarray] = []
        self._samples = 0
        self._begin = 0  # hops that were forgotten

    @property
    def duration_s(self) -> float:
        """How much has been given."""
        return self._samples / self._sample_rate

    def feed(self, block: np.ndarray) -> None:
        """The next (samples,) float32 of the recording."""
        self._samples += len(block)
        waveform = np.concatenate([self._rest, block])
        whole = len(waveform) // self._hop * self._hop
        squares = np.square(waveform[:whole].reshape(-1, self._hop))
        self._levels.append(np.sqrt(squares.mean(axis=1)))
        self._rest = waveform[whole:]

    def forget(self, before_s: float) -> None:
        """What was before this second counts no more; ``pauses`` begin there."""
        levels = np.concatenate([np.zeros(0, np.float32), *self._levels])
        hops = min(round(before_s * self._sample_rate / self._hop) - self._begin, len(levels))
        self._levels = [levels[hops:]]
        self._begin += hops

    def pauses(self) -> np.ndarray:
        """(pauses, 2) seconds [start, end), in order.

        The first begins and the last ends with the recording, however short these two are:
        between them lies all that is not quiet. Where nothing is, they are one.
        """
        levels = np.concatenate([np.zeros(0, np.float32), *self._levels])
        if not len(levels) or not levels.any():
            return np.array([[self._begin * self._hop / self._sample_rate, self.duration_s]])
        noise, speech = np.quantile(levels, [0.05, 0.95])
        loud = levels > noise + QUIET * (speech - noise)
        edges = np.flatnonzero(np.diff(loud, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]  # of what is loud
        seconds = self._hop / self._sample_rate
        pauses = np.stack([np.append(0, ends), np.append(starts, 0)], axis=1)
        pauses = (self._begin + pauses) * seconds
        pauses[-1, 1] = self.duration_s
        long = pauses[:, 1] - pauses[:, 0] >= SHORTEST_S
        long[[0, -1]] = True
        return pauses[long]
