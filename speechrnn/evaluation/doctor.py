"""A corpus -> what is in it, what is wrong with it, and with a model which transcripts are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.corpora import recordings as stored
from speechrnn.corpora.manifest import Utterance, without_duplicates
from speechrnn.decoding.alignment import mismatch
from speechrnn.decoding.greedy import greedy
from speechrnn.errors import AudioError, TranscriptError
from speechrnn.evaluation import recording_checks, transcript_checks
from speechrnn.evaluation.findings import Case, Finding, Item, Judged, Severity, readable
from speechrnn.evaluation.progress import progress_bar
from speechrnn.evaluation.recogniser import Recogniser
from speechrnn.evaluation.recordings import Unreadable, measure_all
from speechrnn.specs import RecogniserSpec, TextRules
from speechrnn.text import normalise

SHOWN = 8  # utterances of a finding in the text for people; the page and the JSON have all
MISMATCH = "mismatch (nats a symbol)"
LOST = 1.0  # nats a symbol, of half the transcripts: a model that has learned the corpus gives 0.1
PERCENTILES = (0, 5, 50, 95, 100)
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of a corpus."""

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...]  # errors first, then warnings and notes
    judged: bool  # whether a model was asked

    @property
    def distributions(self) -> dict[str, list[float]]:
        """Every recording's figures, by name with unit; those that could be read."""
        found = readable(self.cases)
        spoken = [r.duration_s * (1 - r.pauses) for _, r in found]
        figures = {
            "duration (s)": [r.duration_s for _, r in found],
            "level (dBFS)": [r.rms_dbfs for _, r in found],
            "pauses (%)": [100 * r.pauses for _, r in found],
            "characters a second of speech": [
                len(c.text) / s for (c, _), s in zip(found, spoken, strict=True) if s > 0
            ],
        }
        scores = [c.judged.mismatch for c in self.cases if c.judged]
        known = [score for score in scores if score is not None]
        return figures | ({MISMATCH: known} if known else {})

    def summary(self) -> dict[str, Any]:
        """What is in the corpus, plain data."""
        recordings = [r for _, r in readable(self.cases)]
        return {
            "utterances": len(self.cases),
            "readable": len(recordings),
            "hours": sum(r.duration_s for r in recordings) / 3600,
            "speakers": len({c.utterance.speaker for c in self.cases if c.utterance.speaker}),
            "splits": dict(Counter(c.utterance.split for c in self.cases)),
            "sample_rates": {
                str(k): n for k, n in Counter(r.sample_rate for r in recordings).items()
            },
            "channels": {str(k): n for k, n in Counter(r.channels for r in recordings).items()},
            "characters": dict(Counter(char for c in self.cases for char in c.text).most_common()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the summary, percentiles, findings, and the facts by utterance."""
        spread = {
            name: dict(zip(map(str, PERCENTILES), _percentiles(values), strict=True))
            for name, values in self.distributions.items()
            if values
        }
        findings = [dataclasses.asdict(found) for found in self.findings]
        cases = [_plain(case) for case in self.cases]
        return {**self.summary(), "percentiles": spread, "findings": findings, "cases": cases}

    def table(self) -> str:
        """For people: the corpus, its figures, and each finding with its first utterances."""
        told = self.summary()
        splits = ", ".join(f"{count} {name}" for name, count in told["splits"].items())
        lines = [
            f"{told['utterances']} utterances ({splits}), {told['speakers']} speakers, "
            f"{told['hours']:.2f} h",
            f"{'':30}"
            + "".join(f"{name:>9}" for name in ("least", "5 %", "middle", "95 %", "most")),
        ]
        for name, values in self.distributions.items():
            if values:
                numbers = "".join(f"{value:9.2f}" for value in _percentiles(values))
                lines.append(f"{name:30}{numbers}")
        for found in self.findings:
            lines += ["", f"{found.severity}: {found.title} ({len(found.items)}). {found.advice}"]
            lines += [f"  {item.utterance_id}: {item.detail}" for item in found.items[:SHOWN]]
            if len(found.items) > SHOWN:
                lines.append(f"  and {len(found.items) - SHOWN} more")
        return "\n".join([*lines, "", self.verdict])

    @property
    def verdict(self) -> str:
        """What was found, in a sentence, and how much a model's word counts."""
        counts = Counter(found.severity for found in self.findings)
        kinds = ", ".join(
            f"{counts[kind]} kind{'s' if counts[kind] > 1 else ''} of {kind}"
            for kind in _ORDER
            if counts[kind]
        )
        said = f"Found: {kinds}." if kinds else "Nothing found."
        middle = np.median(self.distributions.get(MISMATCH) or [0.0])
        if middle > LOST:
            said += (
                f" The model knows little of this corpus (middle mismatch {middle:.1f}): only "
                "what stands out is called wrong."
            )
        return said


def examine(
    utterances: Sequence[Utterance],
    recogniser: Recogniser | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Decode every recording, look at every transcript, and say what is wrong.

    A recording that cannot be read is a finding. ``recogniser`` judges the transcripts that its
    alphabet can write; its text rules are used, otherwise the usual ones. ``workers`` processes
    decode; ``progress`` draws a bar on stderr.

    Raises:
        ModelError: the model itself fails.
    """
    rules = recogniser.alphabet.spec.rules if recogniser else TextRules()
    listed, later = without_duplicates(utterances)
    with progress_bar(progress) as bar:
        task = bar.add_task("measuring", total=len(listed))
        recordings = measure_all(listed, workers, lambda: bar.advance(task))
        cases = [
            Case(u, normalise(u.text, rules), recording)
            for u, recording in zip(listed, recordings, strict=True)
        ]
        if recogniser:
            chosen = bar.track(cases, description="listening")
            cases = [dataclasses.replace(c, judged=_judged(c, recogniser)) for c in chosen]
    again = tuple(Item(utterance.utterance_id, message) for utterance, message in later)
    return diagnose(cases, recogniser.spec if recogniser else None, again)


def diagnose(
    cases: Sequence[Case], model: RecogniserSpec | None = None, again: Sequence[Item] = ()
) -> Diagnosis:
    """Facts -> findings. ``model`` says how many frames a second of audio has, and which symbols;
    ``again`` are the utterances whose ids stood before."""
    found = [
        *(
            [
                Finding(
                    "duplicate_id",
                    "error",
                    "ids that stand twice",
                    "Give each utterance its own; only the first was looked at.",
                    tuple(again),
                )
            ]
            if again
            else []
        ),
        *(each for check in recording_checks.CHECKS for each in check(cases)),
        *(each for check in transcript_checks.CHECKS for each in check(cases)),
        *transcript_checks.foreign(cases, model),
        *transcript_checks.unfit(cases, model),
    ]
    found.sort(key=lambda each: _ORDER.index(each.severity))
    return Diagnosis(tuple(cases), tuple(found), any(case.judged for case in cases))


def _judged(case: Case, recogniser: Recogniser) -> Judged | None:
    """What the model hears in a recording; None where there is nothing to hear or to compare."""
    if isinstance(case.recording, Unreadable) or not case.text:
        return None
    try:
        waveform = stored.load(case.utterance, recogniser.spec.features.sample_rate)
        log_probs = recogniser.log_probs(waveform)
    except AudioError:  # it was readable a minute ago
        return None
    heard = greedy(log_probs, recogniser.alphabet).text
    try:
        return Judged(heard, mismatch(log_probs, recogniser.alphabet.encode(case.text)))
    except TranscriptError:  # a finding of its own
        return Judged(heard, None)


def _plain(case: Case) -> dict[str, Any]:
    facts: Mapping[str, Any] = dataclasses.asdict(case.recording)
    judged = dataclasses.asdict(case.judged) if case.judged else {}
    told = case.utterance
    named = {"utterance_id": case.name, "split": told.split, "speaker": told.speaker}
    return {**named, "text": case.text, **judged, **facts}


def _percentiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.percentile(values, PERCENTILES)]
