"""Step order: what makes one loop right for every length and for both directions.

A recurrence is computed time-major, each row's first step at index 0. For a forward layer step
order is time order; a backward layer starts at each row's last valid frame. Padding follows at
the end of either, so a row's result cannot depend on its batch-mates.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


class StepOrder:
    """The way from (batch, time) to step order and back, for one batch and one direction.

    ``lengths`` (batch,) counts the valid frames of each row; None: all are.
    """

    def __init__(self, x: tf.Tensor, lengths: tf.Tensor | None, backwards: bool):
        batch, frames = tf.shape(x)[0], tf.shape(x)[1]
        self.backwards = backwards
        self.shape = (batch, frames)
        self.lengths = tf.fill([batch], frames) if lengths is None else lengths
        time = tf.range(frames)[:, None]
        # An involution: the step of a frame is found by the same rule as the frame of a step.
        mirrored = tf.where(time < self.lengths, self.lengths - 1 - time, time)
        self._frame = mirrored if backwards else tf.broadcast_to(time, [frames, batch])

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """(batch, time, width) -> (steps, batch, width)."""
        batch, frames = self.shape
        rows = tf.range(batch)
        to_steps = rows * frames + self._frame
        to_frames = tf.transpose(self._frame * batch + rows)
        return _permute(x, to_steps, to_frames)

    def leave(self, y: tf.Tensor, repeat: bool = False) -> tf.Tensor:
        """(steps, batch, width) -> (batch, time, width); past each row's end zeros, or with
        ``repeat`` its output before, which is what Keras does unless told otherwise.

        As in Keras a backward layer's output runs from the last frame (padding first, so that
        nothing stands before it to be repeated) to the first.
        """
        batch, frames = self.shape
        valid = tf.sequence_mask(self.lengths, frames)
        steps, position = self._frame, tf.range(frames)[:, None]
        if self.backwards:
            valid, steps = valid[:, ::-1], steps[::-1]
            position = frames - 1 - self._frame
        rows = tf.range(batch)
        to_frames = tf.transpose(steps * batch + rows)
        to_steps = rows * frames + position
        y_by_time = _permute(y, to_frames, to_steps)
        if repeat and not self.backwards:
            padding = self.last(y, tf.zeros_like(y_by_time[:, 0]))[:, None]
            return tf.where(valid[:, :, None], y_by_time, padding)
        return y_by_time * tf.cast(valid, y.dtype)[:, :, None]

    def last(self, y: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
        """(steps, batch, width) -> (batch, width) at each row's last valid step.

        A row without frames gives its ``initial`` state.
        """
        batch, frames = self.shape
        at = tf.maximum(self.lengths - 1, 0) * batch + tf.range(batch)
        width = y.shape[-1]
        # One more row, so that a batch without frames has something to gather from.
        flat = tf.concat([tf.reshape(y, [frames * batch, width]), initial], axis=0)
        return tf.where(self.lengths[:, None] > 0, tf.gather(flat, at), initial)


def lengths_of(mask: tf.Tensor) -> tf.Tensor:
    """(batch, time) bool -> (batch,) int32. The mask must be true up to each row's end."""
    lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    tf.debugging.assert_equal(
        mask,
        tf.sequence_mask(lengths, tf.shape(mask)[1]),
        "padding must follow the valid frames: this mask has holes or begins with padding",
    )
    return lengths


def _permute(x: tf.Tensor, forth: tf.Tensor, back: tf.Tensor) -> tf.Tensor:
    """Rearrange the rows of ``x``'s first two axes; ``back`` is the inverse of ``forth``.

    The gradient of a gather is a scatter, many times slower; of a permutation it is a gather.
    """

    @tf.custom_gradient
    def gather(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        flat = tf.reshape(x, [-1, x.shape[-1]])
        return tf.gather(flat, forth), lambda upstream: tf.gather(
            tf.reshape(upstream, [-1, x.shape[-1]]), back
        )

    return gather(x)
