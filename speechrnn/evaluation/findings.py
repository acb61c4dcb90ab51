"""What the doctor knows of an utterance, and how it says what is wrong with some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from speechrnn.corpora.manifest import Utterance
from speechrnn.evaluation.recordings import Recording, Unreadable

Severity = Literal["error", "warning", "note"]

UNUSUAL = 5.0  # robust deviations: a bell curve gives one in two million
ENOUGH = 20  # utterances that a middle and a deviation can be told from


@dataclass(frozen=True)
class Judged:
    """What a model makes of an utterance's transcript."""

    heard: str
    mismatch: float | None  # nats a symbol; None where no alignment exists


@dataclass(frozen=True)
class Case:
    """An utterance with everything known of it; ``text`` is its transcript, normalised."""

    utterance: Utterance
    text: str
    recording: Recording | Unreadable
    judged: Judged | None = None

    @property
    def name(self) -> str:
        return self.utterance.utterance_id


@dataclass(frozen=True)
class Item:
    """One utterance of a finding, and what is the matter with it."""

    utterance_id: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with the utterances that have it, worst first.

    ``code`` is what programs go by. An error spoils training or its measurement, a warning may, a
    note is worth knowing.
    """

    code: str
    severity: Severity
    title: str
    advice: str
    items: tuple[Item, ...]


def finding(
    code: str, severity: Severity, title: str, advice: str, items: Iterable[tuple[Case, str]]
) -> list[Finding]:
    """The finding of ``items`` in a list, or none where nothing has the fault."""
    found = tuple(Item(case.name, detail) for case, detail in items)
    return [Finding(code, severity, title, advice, found)] if found else []


def readable(cases: Sequence[Case]) -> list[tuple[Case, Recording]]:
    return [(case, case.recording) for case in cases if isinstance(case.recording, Recording)]


def deviations(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Each value's distance from the median in robust standard deviations: 1.4826 times the
    median distance. Of too few values nothing is unusual: zeros."""
    array = np.asarray(values, np.float64)
    if len(array) < ENOUGH:
        return np.zeros(len(array))
    distance = array - np.median(array)
    return distance / max(1.4826 * float(np.median(np.abs(distance))), 1e-9)


def alike(keyed: Iterable[tuple[Case, Hashable]]) -> list[list[Case]]:
    """Cases that share a key, in their order; keys of a single case are left out."""
    groups: dict[Hashable, list[Case]] = defaultdict(list)
    for case, key in keyed:
        groups[key].append(case)
    return [group for group in groups.values() if len(group) > 1]
