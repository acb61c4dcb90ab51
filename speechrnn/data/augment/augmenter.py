"""A batch of training audio -> the same, each utterance changed by draws of its own."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from speechrnn.augmentation import AugmentSection
from speechrnn.data import calls
from speechrnn.data.augment import masks, recordings
from speechrnn.data.augment.recordings import Recordings
from speechrnn.data.augment.steps import Moment, Surroundings, Voices, steps
from speechrnn.errors import RecipeError
from speechrnn.specs import RecogniserSpec


class Augmenter:
    """What the recipe's ``augment`` section asks for.

    All draws are a pure function of (seed, epoch, utterance) and of the name of what is drawn: they
    depend neither on batch-mates nor on what else is switched on. Waveforms are changed one by
    one in NumPy, whose kernels and soxr's run without Python's lock, and which are the same
    numbers in any batch.

    Args:
        section: the ranges.
        spec: the model, for whose output frames the labels must stay few enough.
        seed: of the whole run.
        voices: utterances that ``babble`` mixes in.
        cache: a folder for what is decoded from the section's folders.

    Raises:
        DataError: a folder of the section holds no recording that can be used.
    """

    def __init__(
        self,
        section: AugmentSection,
        spec: RecogniserSpec,
        seed: int,
        voices: Voices | None = None,
        cache: Path | None = None,
    ):
        self.section, self.spec, self.seed = section, spec, seed
        rate = spec.features.sample_rate
        self._recordings: dict[Path, Recordings] = {}
        around = Surroundings(
            self._load(section.noise.folder if section.noise else None, cache),
            self._load(section.room.folder if section.room else None, cache),
            voices,
        )
        self.steps = list(steps(section, rate, around))

    @property
    def identity(self) -> str:
        """Equal where the same recordings are mixed in."""
        names = "".join(found.identity for found in self._recordings.values())
        return hashlib.sha256(names.encode()).hexdigest() if names else ""

    @property
    def left_out(self) -> list[str]:
        """A message for each recording that cannot be mixed in."""
        return [message for found in self._recordings.values() for message in found.left_out]

    def draws(self, epoch: int, key: int, name: str) -> np.random.Generator:
        """The random numbers of one utterance in one epoch, for what is called ``name``."""
        return np.random.default_rng((self.seed, epoch, key, zlib.crc32(name.encode())))

    def utterance(
        self, waveform: np.ndarray, epoch: int, key: int, need: int = 0
    ) -> tuple[np.ndarray, dict[str, str]]:
        """(samples,) float32 -> changed, with what each step that did something did, in words.

        Args:
            key: of the utterance.
            need: output frames that its labels need; what would leave it fewer is not done.
        """
        done = {}
        least = self._least_samples(need)
        for name, step in self.steps:
            waveform, words = step(
                waveform, Moment(epoch, key, self.draws(epoch, key, name), least)
            )
            if words:
                done[name] = words
        return waveform, done

    def batch(
        self,
        waveforms: np.ndarray,
        samples: np.ndarray,
        keys: np.ndarray,
        need: np.ndarray,
        epoch: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """(batch, samples) padded waveforms -> the same changed, each one's samples, and its masks
        (batch, masks, 2) of bands and of stretches."""
        rows = zip(waveforms, samples.tolist(), keys.tolist(), need.tolist(), strict=True)
        number = int(epoch)
        changed = [self.utterance(row[:n], number, key, least)[0] for row, n, key, least in rows]
        lengths = np.array([len(waveform) for waveform in changed], np.int32)
        padded = np.zeros([len(changed), lengths.max()], np.float32)
        for row, waveform in zip(padded, changed, strict=True):
            row[: len(waveform)] = waveform
        spans = [
            masks.draw(
                self.section, self.spec.features, n, number, self.draws(number, key, "masks")
            )
            for n, key in zip(lengths.tolist(), keys.tolist(), strict=True)
        ]
        bands, stretches = (np.stack(part) for part in zip(*spans, strict=True))
        return padded, lengths, bands, stretches

    def graph(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """``batch`` as a part of a tf.data graph."""
        names = ("waveforms", "samples", "keys", "need", "epoch")
        kinds = [tf.float32, tf.int32, tf.int32, tf.int32]
        found = tf.numpy_function(calls.call(self.batch), [batch[name] for name in names], kinds)
        section = self.section
        shapes = ([None, None], [None], [None, section.frequency_masks, 2])
        for tensor, shape in zip(found, (*shapes, [None, section.time_masks, 2]), strict=True):
            tensor.set_shape(shape)
        return tuple(found)

    def _load(self, folder: Path | None, cache: Path | None) -> Recordings | tuple[()]:
        if folder is None:
            return ()
        if cache is None:
            raise RecipeError(f"augment reads {folder}, and there is no place to decode it to")
        found = recordings.load(folder, self.spec.features.sample_rate, cache)
        self._recordings[folder] = found
        return found

    def _least_samples(self, output_frames: int) -> int:
        """The fewest samples from which the model makes so many output frames."""
        features, model = self.spec.features, self.spec.model
        if output_frames == 0:
            return 1
        frames = (output_frames - 1) * model.time_stride + 1
        return (frames - 1) * features.hop_samples + features.window_samples
