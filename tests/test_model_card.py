"""The shipped model's card: the conditions that it tells of, and where its tables go."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

PIPELINES = REPOSITORY / "pipelines"


@pytest.fixture
def card(monkeypatch):
    monkeypatch.syspath_prepend(str(PIPELINES))
    yield importlib.import_module("model_card")
    for path in PIPELINES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("snr_db", [20, 10])
def test_noise_is_so_far_below_the_speech_and_another_under_each_recording(card, snr_db):
    """Of a steady tone, whose power is the same throughout. 0.1 dB: the tone's edges."""
    tone = 0.1 * np.sin(np.arange(32_000) * 0.3).astype(np.float32)
    change = card.under_noise(snr_db)
    one, other = (change(tone, 16_000) - tone for _ in range(2))
    for noise in (one, other):
        found = 10 * np.log10(np.mean(tone**2) / np.mean(noise**2))
        assert found == pytest.approx(snr_db, abs=0.1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5
    np.testing.assert_array_equal(card.under_noise(snr_db)(tone, 16_000) - tone, one)


def test_the_shipped_card_has_a_row_for_each_condition_and_marks_for_each_table(card):
    text = (card.PRETRAINED / "README.md").read_text("utf-8")
    for name in card.CONDITIONS:
        assert f"| {name} |" in text
    for name in ("rates", "noise", "device"):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        assert "| " in text[text.index(begin) : text.index(end)]
