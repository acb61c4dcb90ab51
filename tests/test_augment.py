"""Augmentation is a pure function of (seed, epoch, utterance) and stays within its ranges."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from augmented import EVERYTHING, RATE, SPEC, Choir, augmenter, noise_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.data.augment import masks
from speechrnn.features import graph
from speechrnn.specs import FeatureSpec, Statistics


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """everything(seed=1, **changes): all that there is, with changes to its sections."""
    folder = tmp_path_factory.mktemp("everything")
    noisy = {"noise": {"folder": str(noise_folder(folder / "noise")), "probability": 0.7}}

    def of(seed=1, **changes):
        return augmenter(EVERYTHING | noisy | changes, seed, Choir(), folder / "cache")

    return of


@pytest.fixture
def speech():
    """(samples,) float32 of any sound: filtered noise with pauses."""
    rng = np.random.default_rng(5)
    sound = np.convolve(rng.normal(0, 0.1, RATE), np.ones(8) / 8, "same")
    sound[RATE // 3 : RATE // 2] *= 0.01
    return sound.astype(np.float32)


def batch_of(augment, waveforms, keys, epoch=3):
    samples = np.array([len(waveform) for waveform in waveforms], np.int32)
    padded = np.zeros([len(waveforms), samples.max() + 1000], np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    keys, need = np.array(keys, np.int32), np.zeros(len(keys), np.int32)
    return augment.batch(padded, samples, keys, need, np.array(epoch, np.int32))


def test_an_utterance_is_changed_alike_whatever_stands_beside_it(speech, everything):
    """Not its batch-mates, their order, the padding, nor another process decide."""
    augment, again = everything(), everything()
    waveforms, keys = [speech, speech[:9000], speech[::-1]], [7, 1234567, 99]
    together = batch_of(augment, waveforms, keys)
    backwards = [part[::-1] for part in batch_of(again, waveforms[::-1], keys[::-1])]
    for found, expected in zip(backwards, together, strict=True):
        np.testing.assert_array_equal(found, expected)
    for i, (waveform, key) in enumerate(zip(waveforms, keys, strict=True)):
        padded, lengths, *spans = batch_of(again, [waveform], [key])
        assert lengths[0] == together[1][i]
        np.testing.assert_array_equal(padded[0], together[0][i, : lengths[0]])
        assert not together[0][i, lengths[0] :].any()
        for found, expected in zip(spans, together[2:], strict=True):
            np.testing.assert_array_equal(found[0], expected[i])


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 4}, {"key": 8}])
def test_seed_epoch_and_utterance_each_change_every_draw(speech, everything, other):
    certain = {
        name: value | {"probability": 1}
        for name, value in everything().section.model_dump(mode="json").items()
        if isinstance(value, dict) and "probability" in value
    }

    def drawn(seed=1, epoch=3, key=7):
        found = everything(seed, **certain).utterance(speech, epoch, key)[1]
        assert found.pop("telephone") == "8 kHz, mu-law"
        return found

    first, second = drawn(), drawn(**other)
    names = {"speed", "tempo", "pitch_cents", "room", "babble", "noise", "gain_db", "band"}
    assert first.keys() == second.keys() == names
    for name in names:
        assert first[name] != second[name]


def test_what_else_is_switched_on_changes_no_draw(speech, everything):
    alone, among = augmenter({"band": EVERYTHING["band"]}), everything()
    found = [
        [each.utterance(speech, epoch, 7)[1].get("band") for epoch in range(20)]
        for each in (alone, among)
    ]
    assert found[0] == found[1]
    assert 0 < found[0].count(None) < 20


def test_labels_keep_the_frames_that_they_need(speech, everything):
    """Whatever speed and tempo draw together."""
    augment = everything(speed=[1.3, 1.8], tempo=[0.8, 1.8])
    full = SPEC.output_frames(len(speech))
    for need in range(full - 15, full + 1):
        found = [
            SPEC.output_frames(len(augment.utterance(speech, 0, key, need)[0])) for key in range(20)
        ]
        assert min(found) >= need
    unbound = [SPEC.output_frames(len(augment.utterance(speech, 0, k)[0])) for k in range(20)]
    assert min(unbound) < full - 15


@pytest.mark.filterwarnings("error")
@settings(max_examples=40)
@given(
    kind=st.sampled_from(["silence", "full scale", "constant", "noise", "click", "subnormal"]),
    samples=st.sampled_from([1, 2, 3, 79, 400, 401, 5000, 16001]),
    level=st.sampled_from([1e-30, 1e-4, 0.5, 1.0, 8.0]),
    epoch=st.integers(0, 3),
)
def test_features_of_finite_audio_are_finite(everything, kind, samples, level, epoch):
    time = np.arange(samples)
    wave = {
        "silence": 0.0 * time,
        "full scale": np.where(time % 9 < 4, 1.0, -1.0),
        "constant": 1.0 + 0.0 * time,
        "noise": np.random.default_rng(samples).normal(0, 0.3, samples),
        "click": np.where(time == samples // 2, 1.0, 0.0),
        "subnormal": 1e-42 * np.cos(time),
    }[kind]
    wave = (level * wave).astype(np.float32)
    padded, lengths, *spans = batch_of(everything(), [wave, wave[::-1]], [7, 8], epoch)
    assert padded.dtype == np.float32 and np.isfinite(padded).all()
    spec = SPEC.features
    frames = graph.frame_counts(tf.constant(lengths), spec)
    found = graph.features(tf.constant(padded), spec)
    for statistics in (None, Statistics((0.0,) * 80, (1.0,) * 80)):
        normalised = graph.normalise(found, frames, statistics)
        masked = masks.apply(normalised, *map(tf.constant, spans))
        assert np.isfinite(masked.numpy()).all()


def test_draws_stay_in_their_ranges_and_fill_them(speech):
    augment = augmenter({"speed": [0.9, 1.2]})
    lengths = [len(augment.utterance(speech, 0, key)[0]) for key in range(300)]
    rates = len(speech) / np.array(lengths)
    assert 0.9 <= rates.min() < 0.91 < 1.19 < rates.max() <= 1.2001  # of whole samples
    augment = augmenter({"gain_db": [-6, 3]})
    levels = [np.linalg.norm(augment.utterance(speech, 0, key)[0]) for key in range(300)]
    decibels = 20 * np.log10(levels / np.linalg.norm(speech))
    assert -6.01 <= decibels.min() < -5.8 < 2.8 < decibels.max() <= 3.01


def test_a_ramp_moves_from_its_start_to_its_end_and_stays(speech):
    ramp = {"start": [0, 0], "end": [20, 20], "by_epoch": 10}
    augment = augmenter({"gain_db": ramp})
    level = np.linalg.norm(speech)
    gains = [np.linalg.norm(augment.utterance(speech, e, 7)[0]) / level for e in (0, 5, 10, 99)]
    np.testing.assert_allclose(20 * np.log10(gains), [0, 10, 20, 20], atol=1e-4)
    often = augmenter({"telephone": {"probability": {"start": 0, "end": 1, "by_epoch": 4}}})
    counts = [
        sum(bool(often.utterance(speech, epoch, key)[1]) for key in range(100))
        for epoch in (0, 2, 4)
    ]
    assert counts[0] == 0 and counts[2] == 100
    assert 30 < counts[1] < 70  # four standard deviations of 100 even draws


# SpecAugment


def drawn_masks(section, keys=400, samples=2 * RATE, epoch=0):
    augment = augmenter(section)
    spec = FeatureSpec()
    return zip(
        *(
            masks.draw(augment.section, spec, samples, epoch, augment.draws(epoch, key, "masks"))
            for key in range(keys)
        ),
        strict=True,
    )


def test_masks_take_every_width_up_to_the_greatest():
    section = {"frequency_masks": 1, "frequency_mask_width": 9, "time_masks": 1}
    bands, stretches = drawn_masks({**section, "time_mask_ms": 120})
    for spans, widest, extent in ((bands, 9, 80), (stretches, 12, 198)):  # 198 frames in 2 s
        first, behind = np.concatenate(spans).T
        assert set(behind - first) == set(range(widest + 1))
        assert first.min() == 0 and behind.max() == extent


def test_a_stretch_is_no_longer_than_its_share_of_the_utterance():
    _, stretches = drawn_masks({"time_masks": 3, "time_mask_fraction": 0.15}, samples=RATE // 2)
    first, behind = np.concatenate(stretches).T
    assert (behind - first).max() == int(0.15 * 48)  # 48 frames in half a second


def test_masks_set_to_zero_what_they_span_and_nothing_else():
    bands = tf.constant([[[3, 5], [70, 80]], [[0, 0], [7, 7]]])
    stretches = tf.constant([[[10, 20]], [[0, 5]]])
    found = masks.apply(tf.ones([2, 50, 80]), bands, stretches).numpy()
    expected = np.ones([2, 50, 80])
    expected[0, :, 3:5] = expected[0, :, 70:] = expected[0, 10:20] = expected[1, :5] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("bands", "stretches"), [(0, 0), (0, 2), (2, 0)])
def test_masks_of_no_width_leave_the_features_alone(bands, stretches):
    section = {"frequency_masks": bands, "time_masks": stretches}
    found = drawn_masks({**section, "frequency_mask_width": 0, "time_mask_ms": 0}, keys=3)
    features = tf.random.stateless_normal([3, 198, 80], [1, 2])
    masked = masks.apply(features, *(tf.constant(np.stack(spans)) for spans in found))
    np.testing.assert_array_equal(masked, features)
