"""A recogniser and a list of utterances -> its error rates, its speed, and what it heard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from speechrnn.corpora.manifest import Utterance, without_duplicates
from speechrnn.errors import DataError, ScoringError
from speechrnn.evaluation.calibration import Reliability, judge, reliability
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.text import Alphabet


class Transcript(Protocol):
    """What a recogniser returns, as far as scoring is concerned."""

    @property
    def text(self) -> str: ...

    @property
    def duration_s(self) -> float: ...


class Recogniser(Protocol):
    """Anything that turns a recording into text: a run, a SavedModel, a ``.tflite``."""

    @property
    def alphabet(self) -> Alphabet: ...

    def transcribe(self, recording: Path, /) -> Transcript: ...


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

    ``processing_seconds`` is wall time from a file's path to its text, reading included.
    """

    rates: ErrorRates
    failures: tuple[Failure, ...]
    audio_seconds: float
    processing_seconds: float
    confidence: Reliability | None = None  # of its words; None where it gave none

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio."""
        return self.processing_seconds / self.audio_seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the rates' own, the speed, and the failures."""
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
        confidence = self.confidence and self.confidence.to_dict()
        return {
            **speed,
            "confidence": confidence,
            "failures": failures,
            **self.rates.to_dict(),
        }

    def table(self) -> str:
        """The rates, the speed and every failure, for people."""
        lines = [
            self.rates.table(),
            f"real-time factor {self.real_time_factor:.3f}: {self.processing_seconds:.1f} s for "
            f"{self.audio_seconds:.1f} s of audio",
        ]
        if self.confidence:
            lines.append(self.confidence.summary())
        if self.failures:
            lines.append(f"{len(self.failures)} not transcribed, and in none of these figures:")
        lines += [f"  {failure.utterance_id}: {failure.message}" for failure in self.failures]
        return "\n".join(lines)


def evaluate(
    recogniser: Recogniser, utterances: Sequence[Utterance], progress: bool = True
) -> Evaluation:
    """Transcribe every utterance and score it under the rules of the recogniser's alphabet.

    A recording that cannot be read, or whose id stood before, becomes a ``Failure`` and the rest
    goes on: a caller for whom that is an error looks at ``failures``. Speakers are the groups of
    the interval. ``progress`` draws a bar on stderr.

    Raises:
        ScoringError: no utterances, or none that could be transcribed.
        ModelError: the model itself fails.
    """
    if not utterances:
        raise ScoringError("there are no utterances to evaluate; check the manifest and its split")
    utterances, later = without_duplicates(utterances)
    failures = [Failure(u.utterance_id, u.path, "duplicate_id", message) for u, message in later]
    hypotheses: dict[str, str] = {}
    confidences: list[float] = []
    right: list[bool] = []
    audio_seconds = processing_seconds = 0.0
    with _bar(enabled=progress) as bar:
        for utterance in bar.track(utterances, description="evaluating"):
            start = time.perf_counter()
            try:
                transcript = recogniser.transcribe(utterance.path)
            except DataError as error:
                failures.append(_failure(utterance, error))
                continue
            processing_seconds += time.perf_counter() - start
            audio_seconds += transcript.duration_s
            hypotheses[utterance.utterance_id] = transcript.text
            words = getattr(transcript, "words", ())
            confidences += [word.confidence for word in words]
            rules = recogniser.alphabet.spec.rules
            right += judge([word.text for word in words], utterance.text, rules)
    if not hypotheses:
        raise ScoringError(
            f"none of {len(utterances)} recordings could be transcribed; the first: "
            f"{failures[0].utterance_id}: {failures[0].message}"
        )
    scored = [utterance for utterance in utterances if utterance.utterance_id in hypotheses]
    rates = score(
        references={utterance.utterance_id: utterance.text for utterance in scored},
        hypotheses=hypotheses,
        groups={utterance.utterance_id: utterance.speaker for utterance in scored},
        rules=recogniser.alphabet.spec.rules,
    )
    return Evaluation(
        rates,
        tuple(failures),
        audio_seconds,
        processing_seconds,
        reliability(confidences, right),
    )


def _failure(utterance: Utterance, error: DataError) -> Failure:
    return Failure(utterance.utterance_id, utterance.path, error.reason, str(error))


def _bar(enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not enabled,
    )
