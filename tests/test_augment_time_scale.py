"""Speed, tempo and pitch: what each moves, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from augmented import RATE, spectrum_db, tone

from speechrnn.data.augment.time_scale import change_pitch, change_speed, change_tempo


def hertz_of(wave):
    """The frequency of a tone: its spectrum's peak, to a hundredth of a Hz."""
    inner = wave[2000:-2000]
    size = 1 << 20
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), size))
    return np.argmax(spectrum) * RATE / size


def cents(hertz, of):
    return 1200 * np.log2(hertz / of)


@pytest.mark.parametrize("rate", [0.5, 0.85, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("hertz", [300, 3000])
def test_speed_scales_length_and_pitch_and_keeps_the_level(rate, hertz):
    wave = tone(hertz)
    changed = change_speed(wave, rate)
    assert changed.dtype == np.float32 and len(changed) == int(len(wave) / rate)
    expected = tone(hertz * rate, len(changed))
    inner = slice(1000, -1000)  # what resamples has neighbours of silence at the ends
    np.testing.assert_allclose(changed[inner], expected[inner], atol=2e-4)  # 68 dB below


def test_speed_keeps_the_level_up_to_7_khz():
    for hertz in (1000, 5000, 7000):
        assert abs(spectrum_db(change_speed(tone(hertz, 2 * RATE), 0.9), 0.9 * hertz)) < 0.01


def test_a_faster_tone_that_no_frequency_is_left_for_does_not_fold_back():
    assert spectrum_db(tone(7500), 7500) > -0.01
    changed = change_speed(tone(7500), 1.2)  # to 9 kHz, of which 7 kHz would remain
    assert np.abs(changed[1000:-1000]).max() < 0.5 * 1e-4  # 80 dB below


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.97, 1.15, 2.0])
@pytest.mark.parametrize("hertz", [110, 440, 2500])
def test_tempo_keeps_a_tones_pitch_and_level_and_changes_its_length(rate, hertz):
    changed = change_tempo(tone(hertz, 2 * RATE), rate, RATE)
    assert changed.dtype == np.float32 and len(changed) == int(2 * RATE / rate)
    assert abs(cents(hertz_of(changed), hertz)) < 5  # hardly anybody hears less
    inner = changed[1000:-1000]
    assert abs(np.sqrt(2 * np.mean(inner**2)) / 0.5 - 1) < 0.02


def test_tempo_moves_every_sound_to_its_place():
    wave = np.zeros(2 * RATE, np.float32)
    for start in (4000, 12000, 24000):
        wave[start : start + 800] = tone(500, 800)
    changed = change_tempo(wave, 0.8, RATE)
    level = np.convolve(np.square(changed), np.ones(800), "same")
    for middle in (4400, 12400, 24400):
        place = int(middle / 0.8)
        near = slice(place - 800, place + 800)
        # Within the 10 ms that a window may be moved by and its half length.
        assert abs(np.argmax(level[near]) - 800) < 0.03 * RATE


@pytest.mark.parametrize("shift", [-300, -50, 100, 400])
@pytest.mark.parametrize("hertz", [220, 1000])
def test_pitch_moves_a_tone_by_its_cents_and_keeps_the_length(shift, hertz):
    changed = change_pitch(tone(hertz, 2 * RATE), shift, RATE)
    assert changed.dtype == np.float32 and len(changed) == 2 * RATE
    assert abs(cents(hertz_of(changed), hertz) - shift) < 5


def test_no_change_is_none():
    wave = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    for same in (
        change_speed(wave, 1.0),
        change_tempo(wave, 1.0, RATE),
        change_pitch(wave, 0, RATE),
    ):
        np.testing.assert_array_equal(same, wave)
