"""Which split an utterance is in: what its corpus calls it, or else drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechrnn.corpora.utterance import Utterance

_USUAL = re.compile(r"(train|dev|test|val|eval|cv)", re.IGNORECASE)
_OURS = {"val": "dev", "cv": "dev", "eval": "test"}


def usual(name: str) -> str:
    """``train``, ``dev`` or ``test`` for names that begin so, as corpora call their parts; any
    other gives no split.

    >>> usual("train-clean-100"), usual("dev_other"), usual("validation"), usual("cards")
    ('train', 'dev', 'dev', '')
    """
    found = _USUAL.match(name)
    return _OURS.get(found[1].lower(), found[1].lower()) if found else ""


def drawn(utterances: Iterable[Utterance], dev_fraction: float) -> list[Utterance]:
    """Fill the splits that are missing; whole speakers go to one side.

    By a hash of the speaker, or of the id where no speakers are told apart: an utterance's split
    does not depend on the others, except that two or more get at least one in each of train and
    dev.
    """
    utterances = list(utterances)
    unsplit = [utterance for utterance in utterances if not utterance.split]
    if not unsplit:
        return utterances
    one_speaker = len({utterance.speaker for utterance in unsplit}) == 1

    def draw(utterance: Utterance) -> float:
        """Uniform in [0, 1), the same for all utterances of a speaker."""
        key = utterance.utterance_id if one_speaker else utterance.speaker or utterance.utterance_id
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64

    draws = {draw(utterance) for utterance in unsplit}
    dev = {value for value in draws if value < dev_fraction}
    if len(unsplit) == len(utterances) and len(draws) > 1:
        dev |= {min(draws)}
        dev -= {max(draws)} if dev == draws else set()
    return [
        utterance
        if utterance.split
        else replace(utterance, split="dev" if draw(utterance) in dev else "train")
        for utterance in utterances
    ]
