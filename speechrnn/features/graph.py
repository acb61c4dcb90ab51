"""Features as a TensorFlow graph: in the input pipeline, in the SavedModel and on the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from speechrnn.features.reference import dct_matrix, hann, mel_filters
from speechrnn.specs import FeatureSpec, Statistics

MINIMUM_STD = 1e-3  # of an utterance's dimension that hardly moves


def product(rows: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """(batch, frames, m) times (m, n) as one matrix product over all frames."""
    shape = tf.shape(rows)
    flat = tf.matmul(tf.reshape(rows, [-1, matrix.shape[0]]), matrix)
    return tf.reshape(flat, [shape[0], shape[1], matrix.shape[1]])


def power_spectrum(frames: tf.Tensor, fft_length: int) -> tf.Tensor:
    """(.., window) -> (.., fft_length / 2 + 1)."""
    spectrum = tf.signal.rfft(frames, [fft_length])
    return tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))


def features(
    waveforms: tf.Tensor,
    spec: FeatureSpec,
    product: Callable[[tf.Tensor, np.ndarray], tf.Tensor] = product,
    power_spectrum: Callable[[tf.Tensor, int], tf.Tensor] = power_spectrum,
) -> tf.Tensor:
    """(batch, samples) float32 in [-1, 1] -> (batch, frames, dimension) float32.

    Equal to ``reference.features`` row by row, to 1e-4. Less than one window is padded to one,
    which ``frame_counts`` does not count. ``product`` is the matrix product with the mel filters
    and the DCT; an export brings its own, and its own ``power_spectrum``.
    """
    missing = tf.maximum(0, spec.window_samples - tf.shape(waveforms)[1])
    waveforms = tf.pad(waveforms, [[0, 0], [0, missing]])
    frames = tf.signal.frame(waveforms, spec.window_samples, spec.hop_samples)
    power = power_spectrum(frames * hann(spec.window_samples), spec.fft_length)
    if spec.kind == "log_spectrogram":
        return _floored_log(power, spec)
    log_mel = _floored_log(product(power, mel_filters(spec)), spec)
    if spec.kind == "mfcc":
        return product(log_mel, dct_matrix(spec.mels, spec.mfccs))
    return log_mel


def _floored_log(power: tf.Tensor, spec: FeatureSpec) -> tf.Tensor:
    """log(max(power, floor)); the floor itself would be zero in a file of float16 weights."""
    return tf.maximum(tf.math.log(power), math.log(spec.floor))


def frame_counts(samples: tf.Tensor, spec: FeatureSpec) -> tf.Tensor:
    """Any shape of sample counts -> as many frame counts, int32; ``spec.frames`` as a graph."""
    samples = tf.cast(samples, tf.int32)
    return tf.maximum(0, 1 + (samples - spec.window_samples) // spec.hop_samples)


def normalise(features: tf.Tensor, frames: tf.Tensor, statistics: Statistics | None) -> tf.Tensor:
    """(batch, frames, dimension) and valid frames (batch,) -> zero mean, unit variance.

    By the training set's ``statistics``, or by each utterance's own valid frames where there
    are none. Frames past an utterance's end become zero, which is the mean.
    """
    valid = tf.sequence_mask(frames, tf.shape(features)[1], features.dtype)[:, :, None]
    if statistics is not None:
        return (features - statistics.mean) / statistics.std * valid
    count = tf.maximum(tf.reduce_sum(valid, axis=1, keepdims=True), 1.0)
    centred = features - tf.reduce_sum(features * valid, axis=1, keepdims=True) / count
    variance = tf.reduce_sum(tf.square(centred) * valid, axis=1, keepdims=True) / count
    return centred / tf.maximum(tf.sqrt(variance), MINIMUM_STD) * valid
