"""Bands and the telephone: what passes, what does not, and G.711's levels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from augmented import RATE, spectrum_db, tone

from speechrnn.data.augment.channel import band_limit, mu_law, telephone


@pytest.mark.parametrize("hertz", [300, 1000, 3400])
def test_within_the_band_nothing_changes(hertz):
    wave = tone(hertz)
    inner = slice(800, -800)
    np.testing.assert_allclose(band_limit(wave, RATE, 300, 3400)[inner], wave[inner], atol=5e-3)
    assert abs(spectrum_db(band_limit(wave, RATE, 300, 3400), hertz)) < 0.05


@pytest.mark.parametrize("hertz", [50, 200, 250, 3950, 5000, 7900])
def test_beyond_the_band_60_db_are_gone(hertz):
    assert spectrum_db(tone(hertz), hertz) > -0.01
    assert spectrum_db(band_limit(tone(hertz), RATE, 300, 3400), hertz) < -60


def test_a_band_of_everything_changes_nothing():
    wave = np.random.default_rng(0).normal(0, 0.1, 5001).astype(np.float32)
    np.testing.assert_allclose(band_limit(wave, RATE, 0, RATE / 2), wave, atol=1e-6)


def test_mu_law_gives_the_numbers_of_another_implementation_of_g_711():
    """libsndfile's, for every 16-bit sample. It cuts off at 14 bits before it looks the interval
    up, so a sample within a step of an interval's edge may land in the next one."""
    pcm = np.arange(-32768, 32768)
    file = io.BytesIO()
    soundfile.write(file, pcm.astype(np.int16), 8000, format="WAV", subtype="ULAW")
    file.seek(0)
    expected = soundfile.read(file, dtype="int16")[0].astype(int)
    found = np.rint(mu_law((pcm / 32768).astype(np.float32)) * 32768).astype(int)
    assert set(found) == set(expected)  # the same 255 levels
    levels = sorted(set(expected))
    apart = np.searchsorted(levels, found) - np.searchsorted(levels, expected)
    assert np.abs(apart).max() <= 1
    assert np.mean(apart != 0) < 0.02


def test_mu_law_keeps_36_db_over_a_wide_range_of_levels():
    for level in (0.02, 0.1, 0.5):
        wave = tone(440.3, level=level)
        noise = np.mean((mu_law(wave) - wave) ** 2)
        assert 10 * np.log10(np.mean(wave**2) / noise) > 36


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_the_telephone_passes_speech_at_any_rate_and_nothing_above_4_khz(rate):
    wave = tone(1000, rate, rate=rate)
    heard = telephone(wave, rate)
    assert heard.dtype == np.float32 and len(heard) == len(wave)
    assert abs(spectrum_db(heard, 1000, rate=rate)) < 0.1
    if rate > 10000:
        assert spectrum_db(telephone(tone(4400, rate, rate=rate), rate), 4400, rate=rate) < -60


def test_the_telephone_moves_nothing_in_time():
    wave = np.zeros(RATE, np.float32)
    wave[5000] = 0.5
    assert np.argmax(np.abs(telephone(wave, RATE))) == 5000


def test_the_telephone_clips_what_is_too_loud():
    assert np.abs(telephone(tone(500, level=4.0), RATE)).max() < 1.5  # of a square wave's overshoot
