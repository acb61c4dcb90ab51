"""What a model's card should know of its times and confidences, from its own dev recordings."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from speechrnn.decoding.confidence import Calibration
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.timing import by_word
from speechrnn.errors import ScoringError
from speechrnn.evaluation import calibration, timing
from speechrnn.runtime import BaseRecognizer
from speechrnn.training.run import Recording


def habits(recogniser: BaseRecognizer, recordings: Sequence[Recording]) -> dict[str, Any]:
    """The card's entries ``timing`` and ``calibration``, each where the recordings allow it."""
    entries: dict[str, Any] = {}
    with contextlib.suppress(ScoringError):  # too few recordings, or a model that fits none
        pairs = [(recording.waveform, recording.text) for recording in recordings]
        entries["timing"] = timing.estimate(recogniser, pairs).to_dict()
    with contextlib.suppress(ScoringError):  # too few words, or hardly a wrong one
        entries["calibration"] = _calibration(recogniser, recordings).to_dict()
    return entries


def _calibration(recogniser: BaseRecognizer, recordings: Sequence[Recording]) -> Calibration:
    weakest: list[float] = []
    right: list[bool] = []
    speakers: list[str] = []
    for recording in recordings:
        heard = greedy(recogniser.log_probs(recording.waveform), recogniser.alphabet)
        words = [word.text for word in heard.words]
        weakest += [min(t.probability for t in tokens) for tokens in by_word(heard.tokens)]
        right += calibration.judge(words, recording.text, recogniser.alphabet.spec.rules)
        speakers += [recording.speaker or recording.utterance_id] * len(words)
    return calibration.fit(weakest, right, speakers)
