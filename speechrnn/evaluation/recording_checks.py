"""What is wrong with recordings: one check a fault, pure functions of what was measured.

Limits are chosen so that AN4 and LibriSpeech, which are well kept, give no error; each is a
constant with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from speechrnn.evaluation.findings import (
    UNUSUAL,
    Case,
    Finding,
    alike,
    deviations,
    finding,
    readable,
)
from speechrnn.evaluation.recordings import Unreadable

MIN_SECONDS, MAX_SECONDS = 0.2, 20.0  # what ``prepare`` takes unless its recipe says otherwise
CLIPPED = 1e-3  # share of samples: one syllable's peaks
OFFSET = 0.02  # of full scale: no sound card that works is so far off
MOSTLY_PAUSE = 0.9  # share of the recording
QUIET_DBFS = -55.0  # a 16-bit recording then uses about seven of its bits
UNUSUAL_DB = 12.0  # and so much louder or quieter than the middle
WRONG_LENGTH_S = 0.25  # and a tenth: durations in manifests are rounded


def unreadable(cases: Sequence[Case]) -> list[Finding]:
    bad = [(c, c.recording.message) for c in cases if isinstance(c.recording, Unreadable)]
    return finding(
        "unreadable",
        "error",
        "recordings that cannot be read",
        "Mend or copy them again; prepare leaves them out.",
        bad,
    )


def silent(cases: Sequence[Case]) -> list[Finding]:
    bad = [(c, f"peak {r.peak:.5f}") for c, r in readable(cases) if r.silent]
    return finding(
        "silent",
        "error",
        "recordings with nothing in them",
        "Record them again; prepare leaves them out.",
        bad,
    )


def lengths(cases: Sequence[Case]) -> list[Finding]:
    found = readable(cases)
    short = [(c, f"{r.duration_s:.3f} s") for c, r in found if r.duration_s < MIN_SECONDS]
    long = sorted(
        ((c, r) for c, r in found if r.duration_s > MAX_SECONDS), key=lambda x: -x[1].duration_s
    )
    wrong = [
        (c, f"{told:.2f} s in the manifest, {r.duration_s:.2f} s in the file")
        for c, r in found
        if (told := c.utterance.duration_s) is not None
        and abs(told - r.duration_s) > max(WRONG_LENGTH_S, 0.1 * r.duration_s)
    ]
    return [
        *finding(
            "too_short",
            "error",
            f"recordings under {MIN_SECONDS:g} s",
            "Record them again; prepare leaves them out (data.min_seconds).",
            short,
        ),
        *finding(
            "too_long",
            "warning",
            f"recordings over {MAX_SECONDS:g} s",
            "Cut them, or raise data.max_seconds; prepare leaves them out.",
            ((c, f"{r.duration_s:.1f} s") for c, r in long),
        ),
        *finding(
            "wrong_duration",
            "warning",
            "the manifest gives another duration than the recording has",
            "Look whether the right file is named, and whether it is whole.",
            wrong,
        ),
    ]


def levels(cases: Sequence[Case]) -> list[Finding]:
    found = [(c, r) for c, r in readable(cases) if not r.silent]
    scores = deviations([r.rms_dbfs for _, r in found])
    middle = float(np.median([r.rms_dbfs for _, r in found])) if found else 0.0
    unusual = sorted(
        (
            (c, r)
            for (c, r), score in zip(found, scores, strict=True)
            if r.rms_dbfs < QUIET_DBFS
            or (abs(score) > UNUSUAL and abs(r.rms_dbfs - middle) > UNUSUAL_DB)
        ),
        key=lambda x: -abs(x[1].rms_dbfs - middle),
    )
    return finding(
        "level",
        "warning",
        f"recordings far from the usual level of {middle:.0f} dBFS",
        "Listen to them; a microphone may have been off or too near.",
        ((c, f"{r.rms_dbfs:.1f} dBFS") for c, r in unusual),
    )


def waveforms(cases: Sequence[Case]) -> list[Finding]:
    """What a recording's samples show whatever the others are like."""
    found = [(c, r) for c, r in readable(cases) if not r.silent]
    clipped = sorted(((c, r) for c, r in found if r.clipped > CLIPPED), key=lambda x: -x[1].clipped)
    offset = [(c, f"mean {r.offset:+.3f}") for c, r in found if abs(r.offset) > OFFSET]
    pauses = sorted(
        ((c, r) for c, r in found if r.pauses > MOSTLY_PAUSE), key=lambda x: -x[1].pauses
    )
    return [
        *finding(
            "clipped",
            "warning",
            "recordings that are clipped",
            "Record with a lower gain; what was cut off cannot be had back.",
            ((c, f"{100 * r.clipped:.1f} % of samples, peak {r.peak:.2f}") for c, r in clipped),
        ),
        *finding(
            "offset",
            "warning",
            "recordings with a constant offset",
            "Filter out what is below 20 Hz, and look at the sound card.",
            offset,
        ),
        *finding(
            "mostly_pause",
            "warning",
            "recordings that are nearly all pause",
            "Cut the silence; the speech may be missing.",
            ((c, f"{100 * r.pauses:.0f} % pause") for c, r in pauses),
        ),
    ]


def formats(cases: Sequence[Case]) -> list[Finding]:
    """Rates and channels that few recordings have, beside what most have."""
    found = readable(cases)
    kinds = Counter((r.sample_rate, r.channels) for _, r in found)
    if len(kinds) < 2:
        return []
    usual = kinds.most_common(1)[0][0]
    other = [
        (c, f"{r.sample_rate} Hz, {_channels(r.channels)}")
        for c, r in found
        if (r.sample_rate, r.channels) != usual
    ]
    return finding(
        "format",
        "note",
        f"recordings of another form than {usual[0]} Hz, {_channels(usual[1])}",
        "They are resampled and mixed down. A telephone's 8000 Hz among wider ones sounds "
        "different to a model: keep such speakers in all splits.",
        other,
    )


def _channels(count: int) -> str:
    return "mono" if count == 1 else f"{count} channels"


def duplicate_audio(cases: Sequence[Case]) -> list[Finding]:
    """The same samples twice: with one text, with several, and across splits."""
    same: list[tuple[Case, str]] = []
    other: list[tuple[Case, str]] = []
    leaks: list[tuple[Case, str]] = []
    for first, *rest in alike((case, r.sha256) for case, r in readable(cases) if not r.silent):
        for case in rest:
            told = f"the audio of {first.name}"
            if case.text != first.text:
                other.append((case, f"{told}: {case.text!r} here, {first.text!r} there"))
            elif case.utterance.split == first.utterance.split:
                same.append((case, told))
            if case.utterance.split != first.utterance.split:
                leaks.append(
                    (case, f"{told}, {case.utterance.split} here, {first.utterance.split} there")
                )
    return [
        *finding(
            "same_audio_other_text",
            "error",
            "one recording with two transcripts",
            "One of them is wrong: listen.",
            other,
        ),
        *finding(
            "same_audio_two_splits",
            "error",
            "one recording in two splits",
            "Take it out of one: what was trained on is no test.",
            leaks,
        ),
        *finding(
            "same_audio",
            "warning",
            "one recording listed twice",
            "Keep one, unless its weight is meant.",
            same,
        ),
    ]


CHECKS = (unreadable, silent, lengths, levels, waveforms, formats, duplicate_audio)
