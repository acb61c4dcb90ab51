"""SpecAugment: bands and stretches of features that are set to zero, which is their mean.

Park et al. 2019, arXiv 1904.08779, without its time warp, which brought them least and costs most.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from speechrnn.augmentation import AugmentSection
from speechrnn.specs import FeatureSpec


def draw(
    section: AugmentSection, spec: FeatureSpec, samples: int, epoch: int, draws: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """-> bands (masks, 2) and stretches (masks, 2), int32: first masked position, first behind.

    Widths are uniform from 0 to the greatest allowed; a stretch is at most ``time_mask_ms`` and
    ``time_mask_fraction`` of the utterance long.
    """
    frames = spec.frames(samples)
    widest = min(int(section.frequency_mask_width.at(epoch)), spec.dimension)
    longest = int(
        min(
            section.time_mask_ms.at(epoch) / spec.hop_ms,
            section.time_mask_fraction.at(epoch) * frames,
        )
    )
    return (
        _spans(draws, section.frequency_masks, widest, spec.dimension),
        _spans(draws, section.time_masks, longest, frames),
    )


def _spans(draws: np.random.Generator, count: int, widest: int, extent: int) -> np.ndarray:
    width = draws.integers(0, widest, count, endpoint=True)
    start = draws.integers(0, extent - width, endpoint=True)
    return np.stack([start, start + width], axis=1).astype(np.int32)


def apply(features: tf.Tensor, bands: tf.Tensor, stretches: tf.Tensor) -> tf.Tensor:
    """(batch, frames, dimension) features and each row's masks -> the features without them."""
    size = tf.shape(features)
    keep_bands, keep_stretches = _outside(bands, size[2]), _outside(stretches, size[1])
    return features * keep_bands[:, None, :] * keep_stretches[:, :, None]


def _outside(spans: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """(batch, masks, 2) -> (batch, size): 0 within any mask, 1 outside."""
    position = tf.range(size)
    inside = (position >= spans[:, :, :1]) & (position < spans[:, :, 1:])
    return 1 - tf.cast(tf.reduce_any(inside, axis=1), tf.float32)
