"""Random changes to training audio, each a pure function of (seed, epoch, utterance)."""

from speechrnn.data.augment.augmenter import Augmenter

__all__ = ["Augmenter"]
