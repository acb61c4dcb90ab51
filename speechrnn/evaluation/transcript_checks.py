"""What is wrong with transcripts, alone and beside their recordings: one check a fault, pure
functions of what is known."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from speechrnn.evaluation.findings import (
    UNUSUAL,
    Case,
    Finding,
    Severity,
    deviations,
    finding,
    readable,
)
from speechrnn.specs import FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.text import frames_needed

UNUSUAL_RATE = 2.0  # times faster or slower than the middle, beside being UNUSUAL
RARE_IN = 2  # utterances: from so few no model learns a symbol
RARE_OF = 50  # utterances: among fewer every symbol is rare
# Nats a symbol by which the transcript is less likely than what the model hears. With the shipped
# model all of 48 exchanged transcripts of AN4 were above 7.8, and all true ones of its dev split
# below 3.2.
WRONG = 4.0
_JOINERS = "\u200c\u200d"  # spelling in Persian, Hindi, Bengali
_DIRECTION_MARKS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LOOK_ALIKE = {"LATIN", "CYRILLIC", "GREEK"}


def empty(cases: Sequence[Case]) -> list[Finding]:
    bad = [(c, repr(c.utterance.text)) for c in cases if not c.text]
    return finding(
        "empty_text",
        "error",
        "transcripts with nothing in them",
        "Write what is said; prepare leaves them out.",
        bad,
    )


def characters(cases: Sequence[Case]) -> list[Finding]:
    """Characters as they are written, before normalisation."""
    written = [(c, c.utterance.text) for c in cases]
    strange = [(c, _named(found)) for c, text in written if (found := _strange(text))]
    mixed = [(c, repr(word)) for c, text in written for word in text.split() if _mixes(word)]
    digits = [(c, repr(text)) for c, text in written if any(char.isdecimal() for char in text)]
    return [
        *finding(
            "control_characters",
            "warning",
            "transcripts with control characters or damaged ones",
            "Remove them, or read the source again with the right encoding.",
            strange,
        ),
        *finding(
            "mixed_scripts",
            "warning",
            "words with letters of two scripts",
            "Letters that look alike are different symbols; use those of one script.",
            mixed,
        ),
        *finding(
            "digits",
            "warning",
            "transcripts with digits",
            "Write numbers as they are spoken: a model learns letters from sounds.",
            digits,
        ),
        *_capitals(written),
        *_rare(cases),
    ]


def _strange(text: str) -> set[str]:
    """Control, private and unassigned characters, and the mark of a failed conversion; marks of
    direction where nothing is written from right to left."""
    turns = any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)
    return {
        char
        for char in text
        if char not in _JOINERS
        and not (turns and char in _DIRECTION_MARKS)
        and (unicodedata.category(char) in ("Cc", "Cf", "Co", "Cn") or char == "\ufffd")
    }


def _named(characters: set[str]) -> str:
    return ", ".join(
        f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip() for char in sorted(characters)
    )


def _mixes(word: str) -> bool:
    scripts = {unicodedata.name(char, "").split(" ")[0] for char in word if char.isalpha()}
    return len(scripts & _LOOK_ALIKE) > 1


def _capitals(written: Sequence[tuple[Case, str]]) -> list[Finding]:
    cased = [(c, text) for c, text in written if text.lower() != text.upper()]
    having = [(c, text) for c, text in cased if text != text.lower()]
    lacking = [(c, text) for c, text in cased if text == text.lower()]
    fewer = min(having, lacking, key=len)
    kind = "with capitals" if fewer is having else "without capitals"
    return finding(
        "capitals",
        "note",
        f"transcripts {kind}, where most are not so",
        "Nothing to do unless the recipe keeps case (text.case=keep).",
        ((c, repr(text)) for c, text in fewer),
    )


def _rare(cases: Sequence[Case]) -> list[Finding]:
    if len(cases) < RARE_OF:
        return []
    having: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for char in set(case.text):
            having[char].append(case)
    rare = {char: having[char] for char in sorted(having) if len(having[char]) <= RARE_IN}
    return finding(
        "rare_characters",
        "warning",
        "characters that hardly any transcript has",
        "Write them with others, or say the words more often: each is a symbol to be learned.",
        (
            (case, f"{char!r} ({_named({char})}), in {len(found)} of {len(cases)} utterances")
            for char, found in rare.items()
            for case in found
        ),
    )


def foreign(cases: Sequence[Case], model: RecogniserSpec | None) -> list[Finding]:
    """Characters that a model does not know."""
    known = set(model.alphabet.symbols) if model else set()
    bad = [(c, _named(set(c.text) - known)) for c in cases if model and set(c.text) - known]
    return finding(
        "unknown_characters",
        "error",
        "transcripts with characters that the model does not know",
        "Correct them, or train with an alphabet that has them (data.alphabet).",
        bad,
    )


def unfit(cases: Sequence[Case], model: RecogniserSpec | None) -> list[Finding]:
    """Transcripts with more symbols than CTC can write in the recording's frames."""
    features, network = (model.features, model.model) if model else (FeatureSpec(), ModelSpec())
    bad = []
    for case, recording in readable(cases):
        samples = round(recording.duration_s * features.sample_rate)
        frames = network.output_frames(features.frames(samples))
        needed = frames_needed([ord(char) for char in case.text])
        if needed > frames:
            bad.append(
                (case, f"{needed} frames needed, {recording.duration_s:.2f} s give {frames}")
            )
    return finding(
        "too_many_labels",
        "error",
        "transcripts too long for their recordings",
        "Look whether text and recording belong together; prepare leaves them out.",
        bad,
    )


def rates(cases: Sequence[Case]) -> list[Finding]:
    """Characters in a second of speech, pauses left out, far from the middle."""
    found = [
        (case, len(case.text) / spoken)
        for case, recording in readable(cases)
        if case.text and (spoken := recording.duration_s * (1 - recording.pauses)) > 0
    ]
    logs = np.log([rate for _, rate in found])
    scores = deviations(logs)
    far = np.abs(logs - np.median(logs)) > np.log(UNUSUAL_RATE) if found else logs
    order = np.argsort(-np.abs(scores))
    odd = [found[i] for i in order if abs(scores[i]) > UNUSUAL and far[i]]
    middle = float(np.exp(np.median(logs))) if found else 0.0
    return finding(
        "speaking_rate",
        "warning",
        f"transcripts far from the usual {middle:.1f} characters a second of speech",
        "Listen: the transcript may be another's, or half of it missing.",
        ((case, f"{rate:.1f} characters a second") for case, rate in odd),
    )


def wrong(cases: Sequence[Case]) -> list[Finding]:
    """Transcripts that a model finds far less likely than what it hears."""
    scores = {
        c.name: c.judged.mismatch for c in cases if c.judged and c.judged.mismatch is not None
    }
    if not scores:
        return []
    # A model that knows the corpus badly doubts everything: then only what stands out counts.
    limit = max(WRONG, WRONG * float(np.median(list(scores.values()))))
    bad = sorted(
        (c for c in cases if scores.get(c.name, 0.0) > limit), key=lambda c: -scores[c.name]
    )
    return finding(
        "wrong_transcript",
        "error",
        "transcripts that are probably wrong, as a model hears it",
        "Listen to them, worst first.",
        (
            (c, f"{scores[c.name]:.1f} nats a symbol: {c.text!r}, heard {c.judged.heard!r}")
            for c in bad
            if c.judged
        ),
    )


def speakers(cases: Sequence[Case]) -> list[Finding]:
    return _in_two_splits(
        "speaker_two_splits",
        "error",
        "speakers in two splits",
        "Keep each in one: a model does better on voices that it was trained on.",
        [(c, c.utterance.speaker) for c in cases if c.utterance.speaker],
    )


def repeated(cases: Sequence[Case]) -> list[Finding]:
    return _in_two_splits(
        "same_text_two_splits",
        "note",
        "texts in two splits",
        "As it should be for a fixed list of commands; otherwise a test that is too easy.",
        [(c, c.text) for c in cases if c.text],
    )


def _in_two_splits(
    code: str, severity: Severity, title: str, advice: str, keyed: Sequence[tuple[Case, str]]
) -> list[Finding]:
    """What stands in several splits, each once, under the first utterance of the smallest part."""
    groups: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case, key in keyed:
        groups[key][case.utterance.split].append(case)
    shared = {key: splits for key, splits in groups.items() if len(splits) > 1}
    return finding(
        code,
        severity,
        title,
        advice,
        (
            (
                min(splits.values(), key=len)[0],
                f"{key!r}: " + ", ".join(f"{len(s)} in {name}" for name, s in splits.items()),
            )
            for key, splits in sorted(
                shared.items(), key=lambda x: -sum(len(s) for s in x[1].values())
            )
        ),
    )


CHECKS = (empty, characters, rates, wrong, speakers, repeated)
