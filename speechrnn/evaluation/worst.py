"""The utterances with most errors -> how each was misheard, with its sound and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol

import numpy as np

from speechrnn.corpora import recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import DataError
from speechrnn.evaluation import page
from speechrnn.evaluation.alignment import Edit
from speechrnn.evaluation.error_rates import UtteranceScore
from speechrnn.evaluation.pictures import Picture, Stretch, picture
from speechrnn.evaluation.transcripts import given
from speechrnn.specs import RecogniserSpec

MOST_SOUND = 12_000_000  # bytes of all embedded recordings together: the page stays quick
SHOWN = "log-mel spectrum over the probabilities of the symbols"
LONGEST_S = 60.0  # a picture of more shows nothing
_MARKS = {"substitute": "S", "delete": "D", "insert": "I"}
_SPOKEN = {"substitute": "substituted", "delete": "deleted", "insert": "inserted"}


class Word(Protocol):
    """A word and its times."""

    @property
    def text(self) -> str: ...

    @property
    def start_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...


class Transcript(Protocol):
    """What a recogniser returns of one of the worst utterances."""

    @property
    def words(self) -> Sequence[Word]: ...

    @property
    def log_probs(self) -> np.ndarray: ...


class Aligned(Protocol):
    """When the words of a transcript were said."""

    @property
    def words(self) -> Sequence[Word]: ...


class Recogniser(Protocol):
    """What transcribes the worst utterances again, for their pictures."""

    @property
    def spec(self) -> RecogniserSpec: ...

    def transcribe(self, recording: Path | np.ndarray, /) -> Transcript: ...

    def align(self, recording: Path | np.ndarray, text: str, /) -> Aligned: ...


@dataclass(frozen=True)
class Look:
    """The sound and the picture of an utterance, as far as they fit."""

    seconds: float
    sound: bytes | None  # FLAC
    picture: Picture | None


def worst_utterances(
    wrong: Sequence[UtteranceScore],
    by_id: Mapping[str, Utterance],
    recogniser: Recogniser,
) -> str:
    """Scores, the worst first -> their part of the page, as HTML."""
    if not wrong:
        return page.section("The worst utterances", "", "None has an error.")
    left, cases = MOST_SOUND, []
    for score in wrong:
        look = _look(by_id[score.utterance_id], score.reference, recogniser, left)
        left -= len(look.sound or b"") if look else 0
        cases.append(_case(score, by_id[score.utterance_id], look))
    lead = (
        "Most errors first: what was said over what was heard, with S for a substituted word, D "
        "for a deleted one, I for an inserted one. The picture has the log-mel spectrum with the "
        "words that should have been heard at their best places, and below it the probability of "
        "each symbol with the words that were heard. A click in it plays from there."
    )
    return page.section(f"The {len(wrong)} worst utterances", "\n".join(cases), lead)


def _look(
    utterance: Utterance, reference: str, recogniser: Recogniser, most_bytes: int
) -> Look | None:
    """None where the recording cannot be read any more."""
    spec = recogniser.spec
    try:
        heard = recogniser.transcribe(given(utterance, recogniser))
        waveform = recordings.load(utterance, spec.features.sample_rate)
    except DataError:
        return None
    seconds = len(waveform) / spec.features.sample_rate
    if seconds > LONGEST_S or len(heard.log_probs) == 0:
        return Look(seconds, None, None)
    flac = page.flac(waveform, spec.features.sample_rate)
    said = _said(utterance, reference, recogniser)
    drawn = picture(waveform, heard.log_probs, spec, said, _stretches(heard.words))
    return Look(seconds, flac if len(flac) <= most_bytes else None, drawn)


def _said(utterance: Utterance, reference: str, recogniser: Recogniser) -> list[Stretch]:
    """When the words of the reference were said; none where they do not fit the recording."""
    try:
        return _stretches(recogniser.align(given(utterance, recogniser), reference).words)
    except DataError:
        return []


def _stretches(words: Iterable[Word]) -> list[Stretch]:
    return [Stretch(word.text, word.start_s, word.end_s) for word in words]


def _case(score: UtteranceScore, utterance: Utterance, look: Look | None) -> str:
    speaker = f" by {score.group}" if score.group else ""
    told = f"{score.errors} errors in {score.words} words" if score.errors != 1 else "1 error"
    return f"""<article class="case"><header><h3 dir="auto">{escape(score.utterance_id)}</h3>
<span class="remark">{escape(told + speaker)}</span></header>
{_alignment(score.alignment)}
{_media(look, score.utterance_id, utterance.path)}</article>"""


def _alignment(edits: Iterable[Edit]) -> str:
    items = "".join(
        f'<li class="{edit.kind}"><span dir="auto">{escape(edit.reference)}</span>'
        f'<span dir="auto">{escape(edit.hypothesis)}</span>{_mark(edit.kind)}</li>'
        for edit in edits
    )
    side = '<li class="side" aria-hidden="true"><span>said</span><span>heard</span></li>'
    return f'<ol class="alignment">{side}{items}</ol>'


def _mark(kind: str) -> str:
    if kind == "equal":
        return ""
    return f'<small title="{_SPOKEN[kind]}">{_MARKS[kind]}</small>'


def _media(look: Look | None, name: str, path: Path) -> str:
    if look is None:
        return f'<p class="remark">{escape(str(path))} cannot be read any more.</p>'
    parts = []
    if look.sound:
        parts.append(page.player(look.sound, name))
    else:
        parts.append(f'<p class="remark">Too long for this page: {escape(str(path))}</p>')
    if look.picture:
        parts.append(page.figure(look.picture, look.seconds, name, SHOWN))
    return "\n".join(parts)
