"""How a model's symbols lie in time, from recordings and transcripts without any word times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speechrnn.decoding.alignment import align
from speechrnn.decoding.greedy import Token
from speechrnn.decoding.pauses import Loudness
from speechrnn.decoding.timing import Timing, by_word
from speechrnn.errors import DataError, ScoringError
from speechrnn.evaluation.recogniser import Recogniser

LEAST = 10  # recordings that fit, and junctions
MOST = 200  # recordings that are looked at, evenly chosen
# Nats a symbol: what fits worse has symbols in the wrong places, which say nothing of the habit.
# Where words are parted by pauses in all that the model heard, it finds no space at a junction, and
# few fit so well: then the best do that fit at all.
MOST_MISMATCH, AT_ALL = 0.5, 3.0


@dataclass(frozen=True)
class _Clip:
    """A recording and the samples [start, end) between its first and last sound."""

    waveform: np.ndarray
    text: str
    start: int
    end: int

    @property
    def level(self) -> float:
        return float(np.sqrt(np.mean(np.square(self.waveform[self.start : self.end]))))


def estimate(recogniser: Recogniser, utterances: Sequence[tuple[np.ndarray, str]]) -> Timing:
    """Waveforms that ``log_probs`` takes with their transcripts -> the model's ``Timing``.

    Where a recording's sound begins and ends is heard from its level. Where one word ends and the
    next begins within speech is made: each recording is cut behind its last sound and another one,
    cut before its first, put there at the same level. Symbols lie relative to that cut as they do
    to the words' borders of one speaker: on synthetic speech whose times are known, the medians
    were 55 ms and 45 ms for one model.

    Raises:
        ScoringError: fewer than ``LEAST`` fit their transcripts.
    """
    rate = recogniser.spec.features.sample_rate
    step = -(-len(utterances) // MOST) or 1
    clips = [clip for pair in utterances[::step] if (clip := _clip(*pair, rate))]
    leads, trails = [], []
    for clip in clips:
        for _, words in _fitting(recogniser, clip.waveform, clip.text, MOST_MISMATCH):
            leads.append(_middle(words[0][0], recogniser) - clip.start / rate)
            trails.append(clip.end / rate - _middle(words[-1][-1], recogniser))
    found = sorted(one for pair in _pairs(clips) for one in _junction(recogniser, *pair))
    well = sum(mismatch <= MOST_MISMATCH for mismatch, _ in found)
    inner = [seconds for _, seconds in found[: max(LEAST, well)]]
    if min(len(leads), len(inner)) < LEAST:
        raise ScoringError(
            f"{len(leads)} recordings and {len(inner)} pairs of them fit their transcripts; "
            f"{LEAST} are needed to tell how a model's symbols lie in time"
        )
    return Timing(
        inner_s=round(float(np.median(inner)), 4),
        lead_s=round(float(np.median(leads)), 4),
        trail_s=round(float(np.median(trails)), 4),
        junctions=len(inner),
        recordings=len(leads),
    )


def _clip(waveform: np.ndarray, text: str, rate: int) -> _Clip | None:
    """None where there is no sound."""
    loudness = Loudness(rate)
    loudness.feed(waveform)
    pauses = loudness.pauses()
    if len(pauses) < 2:
        return None
    return _Clip(waveform, text, round(pauses[0, 1] * rate), round(pauses[-1, 0] * rate))


def _pairs(clips: Sequence[_Clip]) -> Iterator[tuple[_Clip, _Clip]]:
    """Each with its neighbour in the list, often of the same speaker, and with a far one."""
    half = len(clips) // 2
    return itertools.chain(itertools.pairwise(clips), zip(clips[:half], clips[half:], strict=False))


def _junction(recogniser: Recogniser, one: _Clip, other: _Clip) -> Iterator[tuple[float, float]]:
    """The mismatch, and the seconds by which the middle between two words' symbols is later than
    their border; nothing where they do not fit at all."""
    begin = one.waveform[: one.end]
    gain = one.level / other.level
    joined = np.concatenate([begin, other.waveform[other.start :] * np.float32(gain)])
    text = f"{one.text} {other.text}"
    for mismatch, words in _fitting(recogniser, np.clip(joined, -1, 1), text, AT_ALL):
        before = len(_normalised(recogniser, one.text))
        last, first = words[before - 1][-1], words[before][0]
        middle = (_middle(last, recogniser) + _middle(first, recogniser)) / 2
        yield mismatch, middle - one.end / recogniser.spec.features.sample_rate


def _normalised(recogniser: Recogniser, text: str) -> list[str]:
    return recogniser.alphabet.decode(recogniser.alphabet.encode(text)).split()


def _fitting(
    recogniser: Recogniser, waveform: np.ndarray, text: str, most: float
) -> Iterator[tuple[float, list[list[Token]]]]:
    """Mismatch and words' tokens of the aligned transcript; nothing where that fits worse."""
    try:
        found = align(recogniser.log_probs(waveform), recogniser.alphabet.encode(text))
    except DataError:  # a transcript that the dev split may have, and training would leave out
        return
    if found.mismatch <= most:
        yield found.mismatch, by_word(found.hypothesis(recogniser.alphabet).tokens)


def _middle(token: Token, recogniser: Recogniser) -> float:
    return (token.start_frame + token.end_frame) / 2 * recogniser.spec.seconds_per_output_frame
