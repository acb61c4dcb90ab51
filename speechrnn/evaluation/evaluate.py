"""A recogniser and a list of utterances -> its error rates, its speed, and what it heard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from speechrnn.corpora.manifest import Utterance, without_duplicates
from speechrnn.errors import DataError, ScoringError
from speechrnn.evaluation import breakdown, transcripts
from speechrnn.evaluation.calibration import Reliability, judge, reliability
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.evaluation.progress import progress_bar
from speechrnn.text import Alphabet

DURATION = "duration"  # the table by the recordings' lengths, whatever the manifest says of them
MOST_VALUES = 30  # a column of more is a name or a number rather than a kind
MOST_SHOWN = 8


class Recogniser(transcripts.Recogniser, Protocol):
    """Anything that turns a recording into text: a run, a SavedModel, a ``.tflite``."""

    @property
    def alphabet(self) -> Alphabet: ...


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed. It is in no error rate."""

    utterance_id: str
    path: Path
    reason: str  # the short code of the error
    message: str


@dataclass(frozen=True)
class Evaluation:
    """Error rates over what could be read, and the list of what could not.

    ``processing_seconds`` is wall time from the files' paths to their texts, reading included.
    ``seconds`` are the recordings' lengths by utterance id, ``by`` the tables: by speaker, by
    duration, and by the manifest's columns.
    """

    rates: ErrorRates
    failures: tuple[Failure, ...]
    audio_seconds: float
    processing_seconds: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    by: Mapping[str, Sequence[breakdown.Row]] = field(default_factory=dict)
    confidence: Reliability | None = None  # of its words; None where it gave none

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio."""
        return self.processing_seconds / self.audio_seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the rates' own, the speed, the tables, the most frequent
        confusions, and the failures."""
        failures = [
            {
                "utterance_id": failure.utterance_id,
                "path": str(failure.path),
                "reason": failure.reason,
                "message": failure.message,
            }
            for failure in self.failures
        ]
        speed = {
            "real_time_factor": self.real_time_factor,
            "audio_seconds": self.audio_seconds,
            "processing_seconds": self.processing_seconds,
        }
        scores = self.rates.scores
        where = {
            "by": {name: [row.to_dict() for row in rows] for name, rows in self.by.items()},
            "confusions": [asdict(each) for each in breakdown.confusions(scores)],
            "character_confusions": [asdict(c) for c in breakdown.character_confusions(scores)],
        }
        confidence = self.confidence and self.confidence.to_dict()
        rates = self.rates.to_dict()
        for row in rates["scores"]:
            row["duration_s"] = self.seconds.get(row["utterance_id"])
        return {**speed, "confidence": confidence, "failures": failures, **where, **rates}

    def table(self, by: Iterable[str] = ()) -> str:
        """The rates, the speed, the tables named in ``by`` and every failure, for people."""
        lines = [
            self.rates.table(),
            f"real-time factor {self.real_time_factor:.3f}: {self.processing_seconds:.1f} s for "
            f"{self.audio_seconds:.1f} s of audio",
        ]
        if self.confidence:
            lines.append(self.confidence.summary())
        confused = breakdown.confusions(self.rates.scores, MOST_SHOWN)
        if confused:
            lines.append(f"most frequent: {', '.join(map(str, confused))}")
        lines += [breakdown.table(f"by {name}", self.by[name]) for name in by]
        if self.failures:
            lines.append(f"{len(self.failures)} not transcribed, and in none of these figures:")
        lines += [f"  {failure.utterance_id}: {failure.message}" for failure in self.failures]
        return "\n".join(lines)


def evaluate(
    recogniser: Recogniser,
    utterances: Sequence[Utterance],
    progress: bool = True,
    by: Sequence[str] = (),
    jobs: int = 1,
) -> Evaluation:
    """Transcribe every utterance and score it under the rules of the recogniser's alphabet.

    A recording that cannot be read, or whose id stood before, becomes a ``Failure`` and the rest
    goes on: a caller for whom that is an error looks at ``failures``. Speakers are the groups of
    the interval. ``progress`` draws a bar on stderr. There are tables of all columns that tell
    two to ``MOST_VALUES`` kinds of utterances apart, and of those named in ``by`` in any case.
    With more than one of ``jobs`` so many processes read what this one's network gives, which pays
    where a beam search takes longer than the network; the recogniser then is one of ``runtime``.

    Raises:
        DataError: no utterance says anything in a column of ``by``.
        ScoringError: no utterances, or none that could be transcribed.
        ModelError: the model itself fails.
    """
    if not utterances:
        raise ScoringError("there are no utterances to evaluate; check the manifest and its split")
    utterances, later = without_duplicates(utterances)
    columns = _columns(utterances, by)
    failures = [Failure(u.utterance_id, u.path, "duplicate_id", message) for u, message in later]
    heard: dict[str, transcripts.Transcript] = {}
    with _transcripts(recogniser, utterances, jobs) as found, progress_bar(progress) as bar:
        start = time.perf_counter()
        task = bar.add_task("evaluating", total=len(utterances))
        for utterance, transcript in zip(utterances, found, strict=True):
            bar.advance(task)
            if isinstance(transcript, DataError):
                failures.append(_failure(utterance, transcript))
            else:
                heard[utterance.utterance_id] = transcripts.without_posteriors(transcript)
        processing_seconds = time.perf_counter() - start
    if not heard:
        raise ScoringError(
            f"none of {len(utterances)} recordings could be transcribed; the first: "
            f"{failures[0].utterance_id}: {failures[0].message}"
        )
    scored = [utterance for utterance in utterances if utterance.utterance_id in heard]
    rates = score(
        references={utterance.utterance_id: utterance.text for utterance in scored},
        hypotheses={name: transcript.text for name, transcript in heard.items()},
        groups={utterance.utterance_id: utterance.speaker for utterance in scored},
        rules=recogniser.alphabet.spec.rules,
    )
    seconds = {name: transcript.duration_s for name, transcript in heard.items()}
    tables = {name: breakdown.by_value(rates.scores, told) for name, told in columns.items()}
    tables[DURATION] = breakdown.by_duration(rates.scores, seconds)
    return Evaluation(
        rates=rates,
        failures=tuple(failures),
        audio_seconds=sum(seconds.values()),
        processing_seconds=processing_seconds,
        seconds=seconds,
        by=tables,
        confidence=_confidence(heard, rates),
    )


def _confidence(
    heard: Mapping[str, transcripts.Transcript], rates: ErrorRates
) -> Reliability | None:
    """How sure the recogniser was of its words, beside whether they were right."""
    confidences: list[float] = []
    right: list[bool] = []
    for each in rates.scores:
        words = getattr(heard[each.utterance_id], "words", ())
        confidences += [word.confidence for word in words]
        right += judge([word.text for word in words], each.reference, rates.rules)
    return reliability(confidences, right)


def _columns(utterances: Sequence[Utterance], wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """What the manifest says of each utterance id, column by column: those worth a table."""
    told: dict[str, dict[str, str]] = {"speaker": {}, "split": {}}
    for utterance in utterances:
        own = {"speaker": utterance.speaker, "split": utterance.split}
        for name, value in {**utterance.columns, **own}.items():
            told.setdefault(name, {})[utterance.utterance_id] = value
    told.pop(DURATION, None)
    known = {name: values for name, values in told.items() if any(values.values())}
    strange = [name for name in wanted if name != DURATION and name not in known]
    if strange:
        raise DataError(
            f"no utterance has a value in the column {strange[0]!r}; there are "
            f"{', '.join(map(repr, [*sorted(known), DURATION]))}. Name one of these"
        )

    def useful(name: str) -> bool:
        kinds = len({known[name].get(u.utterance_id, "") for u in utterances})
        return name in wanted or 1 < kinds <= MOST_VALUES or (name == "speaker" and kinds > 1)

    return {name: known[name] for name in sorted(known) if useful(name)}


@contextlib.contextmanager
def _transcripts(
    recogniser: Any, utterances: Sequence[Utterance], jobs: int
) -> Iterator[Iterator[transcripts.Transcript | DataError]]:
    if jobs == 1:
        yield transcripts.one_by_one(recogniser, utterances)
        return
    with transcripts.divided(recogniser, utterances, jobs) as found:
        yield found


def _failure(utterance: Utterance, error: DataError) -> Failure:
    return Failure(utterance.utterance_id, utterance.path, error.reason, str(error))
