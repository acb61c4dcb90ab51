"""The order of an epoch: batches of utterance numbers, a pure function of its inputs.

Nothing else decides what a training step sees, so any step can be resumed at once, and each of
several workers knows its part of every batch without being told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

JITTER = 0.1  # of a duration, so that batches of similar lengths differ between epochs
_STARTS = 1 << 18  # first utterances looked at together: bounds the memory, not the result


@dataclass(frozen=True, eq=False)
class Plan(Sequence[np.ndarray]):
    """Batches, each an array of utterance numbers; 4 bytes an utterance and 16 a batch.

    Batch i is ``utterances[starts[b] : starts[b + 1]]`` with b = ``order[i]``. A slice is a plan.
    """

    utterances: np.ndarray  # int32
    starts: np.ndarray  # int64, one more than there are batches
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, i: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, i: slice) -> Plan: ...
    def __getitem__(self, i: int | slice) -> np.ndarray | Plan:
        if isinstance(i, slice):
            return Plan(self.utterances, self.starts, self.order[i])
        batch = self.order[i]
        return self.utterances[self.starts[batch] : self.starts[batch + 1]]


def epoch_plan(
    samples: np.ndarray, batch_samples: int, seed: int, epoch: int, sort: bool = False
) -> Plan:
    """Batches of utterances of similar length, in random order.

    Every utterance is in exactly one batch; longest utterance x batch size stays within
    ``batch_samples``, except that an utterance longer than that is a batch alone. In the order
    of their jittered lengths, each batch holds as many as may be.

    Args:
        samples: (utterances,) int, the length of each.
        batch_samples: samples in a batch, padding included.
        seed, epoch: the same two give the same plan, on any machine with the same NumPy.
        sort: no jitter, and the batches in order of length: short ones first, a gentle start.
    """
    rng = np.random.default_rng([seed, epoch])
    if sort:
        key = samples
    else:
        key = rng.uniform(-JITTER, JITTER, len(samples))
        key += 1
        key *= samples
    utterances = np.argsort(key, kind="stable").astype(np.int32)
    starts = _cut(samples[utterances], batch_samples)
    batches = len(starts) - 1
    return Plan(utterances, starts, np.arange(batches) if sort else rng.permutation(batches))


def slice_of(batch: np.ndarray, worker: int, workers: int) -> np.ndarray:
    """The part of a global batch that worker number ``worker`` of ``workers`` takes.

    The parts, one after the other, are the batch; their sizes differ by one at most, so that
    some are empty where a batch has fewer utterances than there are workers.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}; they are numbered from 0")
    bounds = len(batch) * worker // workers, len(batch) * (worker + 1) // workers
    return batch[slice(*bounds)]


def _cut(samples: np.ndarray, budget: int) -> np.ndarray:
    """Lengths in the order of the batches -> where each batch starts, and the end of the last.

    The sizes of the batches that would start at each utterance are found for many at once; a
    step from batch to batch then finds those that do start there.
    """
    starts, at = [], 0
    while at < len(samples):
        sizes = _sizes(samples[at:], budget).tolist()
        first, end = at, at + len(sizes)
        while at < end:
            starts.append(at)
            at += sizes[at - first]
    return np.array([*starts, len(samples)], np.int64)


def _sizes(samples: np.ndarray, budget: int) -> np.ndarray:
    """The size of the largest batch that starts at each of the first utterances, at least 1.

    Longest x size never falls when an utterance is added, so the size is found bit by bit from
    the highest, with the maxima of 1, 2, 4, ... lengths from each place on.
    """
    count = min(len(samples), _STARTS)
    most = max(1, budget // max(1, int(samples[:count].min())))
    seen = samples[: count + most].astype(np.int64)
    maxima = [seen]
    while 1 << len(maxima) < most and len(maxima[-1]) > (step := 1 << (len(maxima) - 1)):
        maxima.append(np.maximum(maxima[-1][:-step], maxima[-1][step:]))
    first = np.arange(count)
    size, longest = np.ones(count, np.int64), seen[:count]
    for bit in reversed(range(len(maxima))):
        there = first + size < len(maxima[bit])
        following = maxima[bit][np.minimum(first + size, len(maxima[bit]) - 1)]
        longer, larger = np.maximum(longest, following), size + (1 << bit)
        fits = there & (longer * larger <= budget)
        size, longest = np.where(fits, larger, size), np.where(fits, longer, longest)
    return size
