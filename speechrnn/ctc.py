"""Connectionist temporal classification (Graves et al. 2006) by each utterance's own length."""

from __future__ import annotations

import tensorflow as tf

from speechrnn.text import BLANK


def loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p(labels | logits) in nats for each utterance, (batch,) float32.

    Args:
        logits: (batch, frames, symbols) float32, unnormalised; symbol 0 is the blank.
        frames: (batch,) int32, the valid frames; what follows them changes nothing.
        labels: (batch, labels) int32, padded with 0.

    Each row needs ``text.frames_needed(labels)`` frames: TensorFlow's sparse kernel, which is
    ten times faster than the dense form and is used here, raises InvalidArgumentError
    otherwise. Preparation rejects such utterances by name.
    """
    # The kernel goes through its rows one after the other. Two halves of the batch are two
    # kernels, which run side by side on the two inter-op threads that training has. A half has
    # one row at least: of a batch of one, the first half's is computed in vain.
    batch = tf.shape(logits)[0]
    half = batch // 2
    first, second = slice(0, tf.maximum(half, 1)), slice(half, None)
    losses = [_loss(logits[part], frames[part], labels[part]) for part in (first, second)]
    return tf.concat([losses[0][:half], losses[1]], axis=0)


def _loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.ctc_loss(
        labels=tf.sparse.from_dense(labels),
        logits=tf.transpose(logits, [1, 0, 2]),
        label_length=None,
        logit_length=frames,
        blank_index=BLANK,
    )
