"""What a one-way model hears of the frames to come: the row convolution of Deep Speech 2."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("speechrnn")
class Lookahead(keras.layers.Layer):
    """y_t = sum over j = 0 .. n of w_j * h_(t + j), each unit by itself.

    Amodei et al. 2015, "Deep Speech 2", arXiv 1512.02595, section 3.7. Frames behind an
    utterance's end count as zeros. At first w_0 is 1 and all else 0: the layer changes nothing.

    Args:
        frames: n, how many frames behind its own an output reads; at least 1.

    Call arguments:
        x: (batch, time, units).
        mask: (batch, time) bool, true up to each row's end; None: all is valid.

    Weight: kernel (n + 1, units).
    """

    def __init__(self, frames: int, **kwargs: Any):
        super().__init__(**kwargs)
        if frames < 1:
            raise ValueError(f"Lookahead has {frames} frames; it needs at least 1")
        self.frames = frames
        self.supports_masking = True

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel", shape=(self.frames + 1, shape[-1]), initializer=_first_row_of_ones
        )

    def call(self, x: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        if mask is not None:
            x = x * tf.cast(mask, x.dtype)[:, :, None]
        x = tf.pad(x, [[0, 0], [0, self.frames], [0, 0]])
        kernel = tf.cast(self.kernel, x.dtype)[:, None, :, None]
        return tf.nn.depthwise_conv2d(x[:, :, None], kernel, [1, 1, 1, 1], "VALID")[:, :, 0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "frames": self.frames}


def _first_row_of_ones(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    return tf.concat([tf.ones([1, shape[1]], dtype), tf.zeros([shape[0] - 1, shape[1]], dtype)], 0)
