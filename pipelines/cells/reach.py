"""How far an output of a trained recogniser feels what was heard before it, and after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from speechrnn.model import output_frames

PLACES = 8  # outputs of a clip
LEAST_PART = 0.5  # of all outputs must have so long a past, or future


@dataclass(frozen=True)
class Profile:
    """Norms of the derivative of an output's highest logit by the features of one output frame,
    as parts of the largest of all frames: the median over outputs.

    ``back[k]`` is of the features k frames before the output's own, ``ahead[k]`` of those behind
    it; both begin with its own. They end where fewer than half of the outputs have a frame.
    """

    back: tuple[float, ...]
    ahead: tuple[float, ...]


def longest(batches: Iterable[Mapping[str, tf.Tensor]]) -> Mapping[str, tf.Tensor]:
    """The batch whose clips have the most frames on average."""
    return max(
        batches, key=lambda batch: float(tf.reduce_mean(tf.cast(batch["frames"], tf.float32)))
    )


def profile(model: keras.Model, batch: Mapping[str, tf.Tensor], places: int = PLACES) -> Profile:
    """A network and a batch as ``data.batches`` makes them -> the profile over its clips.

    The outputs are spread over those at which a clip's symbols begin. Dropout is off.
    """
    spec, features = model.spec.model, tf.convert_to_tensor(batch["features"])
    frames = output_frames(batch["frames"], spec).numpy()
    logits = model(features, batch["frames"], training=False).numpy()
    at = np.stack([_places(x[:n], places) for x, n in zip(logits, frames, strict=True)])
    labels = np.take_along_axis(logits.argmax(axis=-1), at, axis=1)
    back: list[np.ndarray] = []
    ahead: list[np.ndarray] = []
    for place, label in zip(at.T, labels.T, strict=True):
        with tf.GradientTape() as tape:
            tape.watch(features)
            # The sum over clips, since they know nothing of each other.
            found = model(features, batch["frames"], training=False)
            total = tf.reduce_sum(tf.gather_nd(found, np.stack([place, label], 1), batch_dims=1))
        norms = _by_output_frame(tape.gradient(total, features).numpy(), spec.time_stride)
        for norm, middle, end in zip(norms, place, frames, strict=True):
            within = norm[:end] / max(norm[:end].max(), np.finfo(np.float32).tiny)
            back.append(within[middle::-1])
            ahead.append(within[middle:])
    return Profile(_medians(back), _medians(ahead))


def _places(logits: np.ndarray, count: int) -> np.ndarray:
    """(frames, symbols) -> (count,) frames at which a symbol begins, or any where none does."""
    best = logits.argmax(axis=1)
    starts = np.flatnonzero((best > 0) & (best != np.append(0, best[:-1])))
    among = starts if len(starts) else np.arange(len(best))
    return among[np.linspace(0, len(among) - 1, count).round().astype(int)]


def _by_output_frame(gradient: np.ndarray, stride: int) -> np.ndarray:
    """(batch, frames, dimension) -> (batch, output frames): the norm over an output's features."""
    squares = (gradient.astype(np.float64) ** 2).sum(axis=-1)
    padded = np.pad(squares, [(0, 0), (0, -squares.shape[1] % stride)])
    return np.sqrt(padded.reshape(len(padded), -1, stride).sum(axis=-1))


def _medians(profiles: Sequence[np.ndarray]) -> tuple[float, ...]:
    longest = max(map(len, profiles))
    table = np.full((len(profiles), longest), np.nan)
    for row, values in zip(table, profiles, strict=True):
        row[: len(values)] = values
    enough = np.isfinite(table).mean(axis=0) >= LEAST_PART
    kept = table[:, : enough.argmin() if not enough.all() else longest]
    return tuple(np.nanmedian(kept, axis=0).tolist())
