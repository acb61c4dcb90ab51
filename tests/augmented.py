"""What the tests of augmentation share: an augmenter of a section, tones, levels of a spectrum."""

from __future__ import annotations

import numpy as np

from speechrnn.augmentation import AugmentSection
from speechrnn.data.augment import Augmenter
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec

RATE = 16000
SPEC = RecogniserSpec(FeatureSpec(), AlphabetSpec(("a", "b")), ModelSpec(), None)


def augmenter(section, seed=1):
    """Of a section as a recipe writes it."""
    return Augmenter(AugmentSection.model_validate(section), SPEC, seed)


def tone(hertz, samples=RATE, level=0.5, rate=RATE):
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def spectrum_db(wave, hertz, level=0.5, rate=RATE):
    """The level of a tone in a wave, in dB of one of ``level``."""
    inner = wave[len(wave) // 8 : -len(wave) // 8]
    time, window = np.arange(len(inner)) / rate, np.hanning(len(inner))
    found = np.abs(np.sum(inner * window * np.exp(-2j * np.pi * hertz * time)))
    return 20 * np.log10(found / (0.5 * level * window.sum()) + 1e-12)
