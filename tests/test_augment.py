"""Augmentation is a pure function of (seed, epoch, utterance) and stays within its ranges."""

import numpy as np
import pytest
import tensorflow as tf

from speechrnn.data.augment import Augmenter, change_speed
from speechrnn.recipe import AugmentSection
from speechrnn.specs import FeatureSpec

SECTION = AugmentSection(
    speed=(0.9, 1.2),
    gain_db=(-6, 3),
    frequency_masks=2,
    frequency_mask_width=9,
    time_masks=3,
    time_mask_ms=120,
    time_mask_fraction=0.15,
)
KEYS = tf.constant([7, 1234567, 99], tf.int32)


def draw(seed=1, epoch=3, keys=KEYS):
    return Augmenter(SECTION, FeatureSpec(), seed).draw(tf.constant(epoch), keys).numpy()


def test_draws_depend_on_seed_epoch_and_utterance_alone():
    np.testing.assert_array_equal(draw(), draw())
    np.testing.assert_array_equal(draw(keys=KEYS[::-1])[::-1], draw())  # not on batch-mates
    for other in (draw(seed=2), draw(epoch=4)):
        assert not np.isclose(other, draw()).any()
    assert len(np.unique(draw())) == draw().size


def test_draws_stay_in_their_ranges_and_fill_them():
    augmenter = Augmenter(SECTION, FeatureSpec(), 0)
    draws = augmenter.draw(tf.constant(0), tf.range(500))
    rates, gains = augmenter.rates(draws).numpy(), augmenter.gains(draws).numpy()
    assert 0.9 <= rates.min() < 0.91 < 1.19 < rates.max() <= 1.2
    decibels = 20 * np.log10(gains)
    assert -6.01 <= decibels.min() < -5.8 < 2.8 < decibels.max() <= 3.01


def test_masks_are_as_many_and_as_wide_as_allowed():
    augmenter = Augmenter(SECTION, FeatureSpec(), 0)
    frames = tf.constant([40, 200, 100])
    masked = augmenter.mask(tf.ones([3, 200, 80]), frames, draw()).numpy()
    for utterance, length in zip(masked, frames.numpy(), strict=True):
        bands = np.sum(~utterance.any(axis=0))
        stretches = np.sum(~utterance[:length].any(axis=1))
        assert bands <= 2 * 9
        assert stretches <= 3 * min(12, 0.15 * length)  # 120 ms are 12 frames
    assert not masked.all()


@pytest.mark.parametrize(("bands", "stretches"), [(0, 0), (0, 2), (2, 0)])
def test_masks_of_no_width_leave_the_features_alone(bands, stretches):
    section = AugmentSection(
        frequency_masks=bands, frequency_mask_width=0, time_masks=stretches, time_mask_ms=0
    )
    augmenter = Augmenter(section, FeatureSpec(), 0)
    features = tf.random.stateless_normal([3, 50, 80], [1, 2])
    draws = augmenter.draw(tf.constant(0), KEYS)
    masked = augmenter.mask(features, tf.constant([50, 20, 5]), draws)
    np.testing.assert_array_equal(masked, features)


@pytest.mark.parametrize("rate", [0.85, 1.0, 1.1])
def test_speed_scales_length_and_pitch_and_nothing_else(rate):
    hertz, samples = 700.0, 8000
    wave = np.zeros((2, 9000), np.float32)
    wave[0, :samples] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16000)
    changed, lengths = change_speed(
        tf.constant(wave), tf.constant([samples, 9000]), tf.constant([rate, 1.0])
    )
    length = int(lengths[0])
    assert length == int(samples / rate)
    expected = 0.5 * np.sin(2 * np.pi * hertz * rate * np.arange(length) / 16000)
    inner = slice(2, length - 2)  # the ends have neighbours of silence
    np.testing.assert_allclose(changed[0, inner], expected[inner], atol=5e-3)
    assert not changed[0, length:].numpy().any()


@pytest.mark.parametrize(("hertz", "below_db"), [(500, 75), (2000, 40), (3000, 30)])
def test_speed_change_distorts_as_little_as_it_says(hertz, below_db):
    phase = 2 * np.pi * hertz / 16000
    wave = np.sin(phase * np.arange(16000)).astype(np.float32)
    rate = np.float32(1.1)
    changed, _ = change_speed(tf.constant(wave[None]), tf.constant([16000]), tf.constant([rate]))
    heard = changed.numpy()[0][50:-50]
    angle = phase * float(rate) * np.arange(len(heard))
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    tone = basis @ np.linalg.lstsq(basis, heard, rcond=None)[0]
    error_db = 10 * np.log10(np.mean((heard - tone) ** 2) / np.mean(tone**2))
    assert error_db < -below_db


def test_batch_mates_do_not_change_a_changed_speed():
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    batch = np.zeros((2, 4500), np.float32)
    batch[0, :4000] = wave
    rate = tf.constant([0.9, 1.1])
    alone, _ = change_speed(tf.constant(wave[None]), tf.constant([4000]), rate[:1])
    together, lengths = change_speed(tf.constant(batch), tf.constant([4000, 4500]), rate)
    np.testing.assert_array_equal(together[0, : lengths[0]], alone[0])


def test_masks_reach_their_greatest_width():
    section = AugmentSection(
        frequency_masks=1, frequency_mask_width=9, time_masks=1, time_mask_ms=120
    )
    augmenter = Augmenter(section, FeatureSpec(), 0)
    draws = augmenter.draw(tf.constant(0), tf.range(400))
    masked = augmenter.mask(tf.ones([400, 200, 80]), tf.fill([400], 200), draws).numpy()
    bands, stretches = (~masked.any(axis=1)).sum(axis=1), (~masked.any(axis=2)).sum(axis=1)
    assert set(bands) == set(range(10))
    assert set(stretches) == set(range(13))
