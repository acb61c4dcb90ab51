"""The graph, the NumPy reference and librosa agree; batch-mates and padding change nothing."""

import librosa
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.errors import AudioError
from speechrnn.features import graph, reference
from speechrnn.specs import FeatureSpec, Statistics

KINDS = [FeatureSpec(kind=kind) for kind in ("log_mel", "mfcc", "log_spectrogram")]


def noise(samples, seed=0, level=0.1):
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


@pytest.mark.parametrize(
    "spec",
    [
        FeatureSpec(low_hz=0, high_hz=8000),
        FeatureSpec(mels=40, low_hz=80, high_hz=7000),
        FeatureSpec(sample_rate=8000, mels=30, mfccs=13, fft_length=256, high_hz=3800),
    ],
)
def test_mel_filters_equal_librosas(spec):
    expected = librosa.filters.mel(
        sr=spec.sample_rate,
        n_fft=spec.fft_length,
        n_mels=spec.mels,
        fmin=spec.low_hz,
        fmax=spec.high_hz,
    ).T
    np.testing.assert_allclose(reference.mel_filters(spec), expected, atol=1e-5 * expected.max())


def test_mfcc_is_librosas_dct_of_the_log_mel():
    log_mel = reference.features(noise(8000), FeatureSpec())
    mfcc = reference.features(noise(8000), FeatureSpec(kind="mfcc", mfccs=20))
    expected = librosa.feature.mfcc(S=log_mel.T, n_mfcc=20, dct_type=2, norm="ortho").T
    np.testing.assert_allclose(mfcc, expected, atol=1e-3)  # sums of 80 values of about 10


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
@settings(max_examples=10, deadline=None)
@given(samples=st.integers(400, 5000), level=st.floats(1e-4, 1), seed=st.integers(0, 99))
def test_graph_equals_reference(spec, samples, level, seed):
    waveform = np.clip(noise(samples, seed, level), -1, 1)
    ours = graph.features(waveform[None], spec)[0].numpy()
    expected = reference.features(waveform, spec)
    # Relative to the size of the numbers: an mfcc adds up 80 of them.
    assert np.abs(ours - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("samples", [399, 400, 559, 560, 16000])
def test_frame_counts_are_those_of_the_spec_and_of_the_features(samples):
    spec = FeatureSpec()
    assert graph.frame_counts(tf.constant(samples), spec) == spec.frames(samples)
    # Less than a window still gives a frame of padding, which no count includes.
    frames = graph.features(noise(samples)[None], spec).shape[1]
    assert frames == max(1, spec.frames(samples))


def test_less_than_a_window_is_refused_with_what_is_needed():
    with pytest.raises(AudioError, match="needs 400"):
        reference.features(noise(399), FeatureSpec())


@pytest.mark.parametrize("statistics", [Statistics((-5.0,) * 80, (3.0,) * 80), None])
def test_batch_mates_and_padding_do_not_change_an_utterance(statistics):
    spec = FeatureSpec()
    quiet, loud = noise(4000, 1, 0.001), noise(9000, 2, 0.5)

    def normalised(waveforms, samples):
        frames = graph.frame_counts(tf.constant(samples), spec)
        return graph.normalise(graph.features(waveforms, spec), frames, statistics).numpy()

    batch = np.zeros((2, 9000), np.float32)
    batch[0, :4000], batch[1] = quiet, loud
    frames = spec.frames(4000)
    alone = normalised(quiet[None], [4000])[0]
    together = normalised(batch, [4000, 9000])[0]
    # A matrix product's blocking moves with its size: the last bits of float32.
    np.testing.assert_allclose(together[:frames], alone, atol=2e-5)
    assert not together[frames:].any()


def test_utterance_normalisation_gives_zero_mean_and_unit_variance():
    spec = FeatureSpec(normalisation="utterance")
    features = graph.features(noise(16000)[None], spec)
    normal = graph.normalise(features, tf.constant([features.shape[1]]), None).numpy()[0]
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=1e-4)
