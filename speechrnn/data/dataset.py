"""Prepared shards -> batches of features and labels, through tf.data."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache

import numpy as np
import tensorflow as tf

from speechrnn.data import calls
from speechrnn.data.augment import Augmenter, masks
from speechrnn.data.index import Index
from speechrnn.data.plan import Plan, epoch_plan, slice_of
from speechrnn.data.prepare import prepared
from speechrnn.data.shards import waveform_of
from speechrnn.errors import DataError
from speechrnn.features import graph
from speechrnn.recipe import Recipe
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet

Batch = dict[str, tf.Tensor]

TRAIN, DEV = "train", "dev"
# Batches in the making at a time: as many as there are cores, within the memory that they take.
AT_ONCE = min(max(2, len(os.sched_getaffinity(0))), 16)


def recogniser_spec(recipe: Recipe, index: Index | None = None) -> RecogniserSpec:
    """What a model for this recipe and its prepared utterances is."""
    index = index or prepared(recipe)
    return RecogniserSpec(recipe.features, index.alphabet, recipe.model, index.statistics)


def batches(recipe: Recipe, split: str, epochs: int = 1) -> tf.data.Dataset:
    """A split, prepared first where it is not: as many epochs of training batches, each in its own
    order and with its own augmentation, or one pass over any other split as it is. See
    ``Batches`` for what a batch holds."""
    index = prepared(recipe)
    source = Batches(recipe, recogniser_spec(recipe, index), index, split)
    return source.epochs(0, epochs) if split == TRAIN else source.plain()


def payload_of_silence(samples: int) -> bytes:
    """What a shard would hold of so many samples of silence."""
    audio = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(2 * samples)]))
    example = tf.train.Example(features=tf.train.Features(feature={"audio": audio}))
    return bytes(example.SerializeToString())


class Batches:
    """The batches of one split.

    A batch is a dict: ``features`` (batch, frames, dimension) float32, normalised, zero past
    each end; ``frames`` (batch,) int32, the valid ones; ``labels`` (batch, labels) int32,
    padded with 0; ``utterances`` (batch,) int32, positions in ``rows``; ``samples`` (batch,)
    int32 of audio, after any change of speed; ``epoch`` int32; ``batch_size`` int32: the
    utterances of the whole batch, of which a worker's share may hold some or none at all.
    """

    def __init__(self, recipe: Recipe, spec: RecogniserSpec, index: Index, split: str):
        self.recipe = recipe
        self.spec = spec
        self.index = index
        self.rows = index.split(split)
        self._alphabet = Alphabet(spec.alphabet)
        self._samples = self.rows.column("samples")
        self._need = self.rows.column("frames_needed")
        self._plan = lru_cache(3)(self._new_plan)
        self._silence = np.array([payload_of_silence(spec.features.window_samples)], object)
        self._failure: DataError | None = None
        self._check_labels()

    def _check_labels(self) -> None:
        """Raise DataError if the model cannot write every text in the frames that it gives."""
        if self.spec.alphabet != self.index.alphabet:
            raise DataError(
                f"{self.index.root} was prepared with the alphabet "
                f"{''.join(self.index.alphabet.symbols)!r} and this model has "
                f"{''.join(self.spec.alphabet.symbols)!r}; prepare again with this recipe"
            )
        frames = graph.frame_counts(self._samples, self.spec.features).numpy()
        infeasible = np.flatnonzero(self._need > self.spec.model.output_frames(frames))
        if len(infeasible):
            first = self.rows[int(infeasible[0])].utterance_id
            raise DataError(
                f"{len(infeasible)} utterances have more labels than frames for this model, the "
                f"first {first}; prepare again with this recipe"
            )

    @cached_property
    def augmenter(self) -> Augmenter:
        """What changes the training audio; its voices are this split's utterances.

        Raises:
            DataError: a folder of ``augment`` holds no recording that can be used.
        """
        section, seed = self.recipe.augment, self.recipe.seed
        return Augmenter(section, self.spec, seed, self, self.recipe.prepared / "augment")

    @property
    def size(self) -> int:
        """Utterances in the split."""
        return len(self.rows)

    def key(self, number: int) -> int:
        """What an utterance's random numbers are drawn by: a hash of its id."""
        return zlib.crc32(self.rows[number].utterance_id.encode()) >> 1

    def waveform(self, number: int) -> np.ndarray:
        """(samples,) float32 of an utterance, as it was prepared.

        Raises:
            PreparedDataError: its shard is damaged.
        """
        return waveform_of(self._payload(number))

    def _payload(self, number: int) -> bytes:
        try:
            return self.index.read_payload(self.rows[number])
        except DataError as error:
            self._failure = error  # TensorFlow will pass on its message alone
            raise

    unit = "audio_seconds"

    def amount(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return float(tf.reduce_sum(batch["samples"])) / self.index.sample_rate

    def names(self, batch: Batch) -> list[str]:
        """The ids of a batch's utterances."""
        return [self.rows[i].utterance_id for i in batch["utterances"].numpy()]

    def verify(self) -> None:
        """Raise PreparedDataError, naming the shard, if one is damaged: the one that reading has
        just failed at, or else any."""
        if self._failure:
            raise self._failure
        self.index.verify()

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, as positions in ``rows``; the latest few are kept."""
        return self._plan(
            self.recipe.seed, epoch, epoch == 0 and self.recipe.training.sorted_first_epoch
        )

    def _new_plan(self, seed: int, epoch: int, sort: bool) -> Plan:
        budget = int(self.recipe.data.batch_seconds * self.index.sample_rate)
        return epoch_plan(self._samples, budget, seed, epoch, sort)

    def epochs(
        self, first: int, end: int, skip: int = 0, worker: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """Augmented batches of the epochs from ``first`` to before ``end``, one after another,
        without the first ``skip`` batches, which are not read.

        Worker number ``worker`` of ``workers`` reads its ``slice_of`` each batch; where that is
        empty, a batch of the same structure comes with no row in it.
        """
        augmenter = self.augmenter

        def steps() -> Iterator[tuple[int, int, np.ndarray]]:
            for epoch in range(first, end):
                for rows in self.plan(epoch)[skip if epoch == first else 0 :]:
                    yield epoch, len(rows), slice_of(rows, worker, workers)

        return self._dataset(steps, augmenter)

    def plain(self) -> tf.data.Dataset:
        """Each utterance once, longest batches first, without augmentation."""
        plan = self._plan(0, 0, True)
        return self._dataset(lambda: ((0, len(rows), rows) for rows in reversed(plan)), None)

    def _dataset(
        self,
        steps: Callable[[], Iterator[tuple[int, int, np.ndarray]]],
        augmenter: Augmenter | None,
    ) -> tf.data.Dataset:
        number = tf.TensorSpec([], tf.int32)
        signature = (number, number, tf.TensorSpec([None], tf.int32))

        def features(batch: Batch) -> Batch:
            found = self._features(batch, augmenter)
            rows = tf.size(batch["utterances"])  # fewer than there are where one is a stand-in
            found = {key: v[:rows] if v.shape.rank else v for key, v in found.items()}
            return {**found, "batch_size": batch["batch_size"]}

        dataset = tf.data.Dataset.from_generator(calls.stream(steps), output_signature=signature)
        as_is = tf.autograph.experimental.do_not_convert  # reading the source again takes a second
        dataset = dataset.map(as_is(self._read), num_parallel_calls=AT_ONCE)
        dataset = dataset.map(as_is(features), num_parallel_calls=AT_ONCE)
        options = tf.data.Options()
        options.threading.private_threadpool_size = AT_ONCE
        return dataset.with_options(options).prefetch(4)

    def _read(self, epoch: tf.Tensor, batch_size: tf.Tensor, utterances: tf.Tensor) -> Batch:
        payloads, samples, labels, need, keys = tf.numpy_function(
            calls.call(self._fetch),
            [utterances],
            [tf.string, tf.int32, tf.int32, tf.int32, tf.int32],
        )
        for tensor in (payloads, samples, need, keys):
            tensor.set_shape([None])
        labels.set_shape([None, None])
        audio = tf.io.parse_example(payloads, {"audio": tf.io.FixedLenFeature([], tf.string)})
        pcm = tf.io.decode_raw(audio["audio"], tf.int16, fixed_length=2 * tf.reduce_max(samples))
        return {
            "waveforms": tf.cast(pcm, tf.float32) / 32768,
            "samples": samples,
            "labels": labels,
            "need": need,
            "keys": keys,
            "utterances": utterances,
            "epoch": epoch,
            "batch_size": batch_size,
        }

    def _fetch(self, utterances: np.ndarray) -> tuple[np.ndarray, ...]:
        """Payloads, samples, labels, the frames these need, and keys. Where there is no utterance,
        one of silence stands in, so that what computes features knows no empty batch."""
        if not len(utterances):
            one = np.ones(1, np.int32)
            return self._silence, one * self.spec.features.window_samples, one[:, None], one, one
        numbers = utterances.tolist()
        payloads = [self._payload(i) for i in numbers]
        encoded = [self._alphabet.encode(self.rows[i].text) for i in numbers]
        labels = np.zeros((len(numbers), max(map(len, encoded))), np.int32)
        for padded, each in zip(labels, encoded, strict=True):
            padded[: len(each)] = each
        keys = [self.key(i) for i in numbers]
        return (
            np.array(payloads, object),
            self._samples[utterances].astype(np.int32),
            labels,
            self._need[utterances].astype(np.int32),
            np.array(keys, np.int32),
        )

    def _features(self, batch: Batch, augmenter: Augmenter | None) -> Batch:
        spec = self.spec
        waveforms, samples = batch["waveforms"], batch["samples"]
        if augmenter is not None:
            waveforms, samples, bands, stretches = augmenter.graph(batch)
        frames = graph.frame_counts(samples, spec.features)
        features = graph.features(waveforms, spec.features)
        features = graph.normalise(features, frames, spec.statistics)
        if augmenter is not None:
            features = masks.apply(features, bands, stretches)
        kept = {key: batch[key] for key in ("labels", "utterances", "epoch")}
        return {"features": features, "frames": frames, "samples": samples, **kept}
