"""What the tests of augmentation share: an augmenter of a section, tones, levels of a spectrum."""

from __future__ import annotations

import numpy as np
import soundfile

from speechrnn.augmentation import AugmentSection
from speechrnn.data.augment import Augmenter
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec

RATE = 16000
SPEC = RecogniserSpec(FeatureSpec(), AlphabetSpec(("a", "b")), ModelSpec(), None)
EVERYTHING = {
    "speed": [0.9, 1.2],
    "tempo": [0.9, 1.2],
    "pitch_cents": [-200, 200],
    "room": {"probability": 0.7},
    "babble": {"probability": 0.7, "voices": 2},
    "gain_db": [-6, 3],
    "band": {"probability": 0.7},
    "telephone": {"probability": 0.7},
    "frequency_masks": 2,
    "frequency_mask_width": 9,
    "time_masks": 3,
    "time_mask_ms": 120,
    "time_mask_fraction": 0.15,
}


class Choir:
    """Voices: utterances of noise, of one second and other lengths."""

    keys = (7, 8, 1234567, 99, 100)

    @property
    def size(self):
        return len(self.keys)

    def key(self, number):
        return self.keys[number]

    def waveform(self, number):
        rng = np.random.default_rng(number)
        return rng.normal(0, 0.05, RATE + 1000 * number).astype(np.float32)


def augmenter(section, seed=1, voices=None, cache=None):
    """Of a section as a recipe writes it."""
    return Augmenter(AugmentSection.model_validate(section), SPEC, seed, voices, cache)


def noise_folder(folder):
    """Three recordings, of which one is half a second and one of 8 kHz."""
    rng = np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for name, seconds, rate in (("a.wav", 3, RATE), ("b.flac", 0.5, RATE), ("deep/c.wav", 2, 8000)):
        soundfile.write(folder / name, rng.normal(0, 0.1, int(seconds * rate)), rate)
    (folder / "LICENSE.txt").write_text("of no interest")
    return folder


def tone(hertz, samples=RATE, level=0.5, rate=RATE):
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def spectrum_db(wave, hertz, level=0.5, rate=RATE):
    """The level of a tone in a wave, in dB of one of ``level``."""
    inner = wave[len(wave) // 8 : -len(wave) // 8]
    time, window = np.arange(len(inner)) / rate, np.hanning(len(inner))
    found = np.abs(np.sum(inner * window * np.exp(-2j * np.pi * hertz * time)))
    return 20 * np.log10(found / (0.5 * level * window.sum()) + 1e-12)
