"""The order of an epoch: a list of batches of utterance numbers, a pure function of its inputs.

Nothing else decides what a training step sees, so any step can be resumed at once.
"""

from __future__ import annotations

import numpy as np

JITTER = 0.1  # of a duration, so that batches of similar lengths differ between epochs


def epoch_plan(
    samples: np.ndarray, batch_samples: int, seed: int, epoch: int, sort: bool = False
) -> list[np.ndarray]:
    """Batches of utterances of similar length, in random order.

    Every utterance is in exactly one batch; longest utterance x batch size stays within
    ``batch_samples``, except that an utterance longer than that is a batch alone.

    Args:
        samples: (utterances,) int, the length of each.
        batch_samples: samples in a batch, padding included.
        seed, epoch: the same two give the same plan, on any machine.
        sort: no jitter, and the batches in order of length: short ones first, a gentle start.
    """
    rng = np.random.default_rng([seed, epoch])
    jitter = 0 if sort else rng.uniform(-JITTER, JITTER, len(samples))
    batches: list[list[int]] = []
    longest = 0
    for utterance in np.argsort(samples * (1 + jitter), kind="stable"):
        longest = max(longest, int(samples[utterance]))
        if not batches or longest * (len(batches[-1]) + 1) > batch_samples:
            batches.append([])
            longest = int(samples[utterance])
        batches[-1].append(int(utterance))
    order = np.arange(len(batches)) if sort else rng.permutation(len(batches))
    return [np.array(batches[i]) for i in order]
