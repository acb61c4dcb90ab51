"""Words with times -> subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Protocol

from speechrnn.specs import TextRules
from speechrnn.text import normalise

LINE_CHARACTERS, LINES = 42, 2  # of one cue: what subtitlers hold readable
LONGEST_S, SHORTEST_S = 7.0, 0.7
PAUSE_S = 0.6  # begins a new cue


class Word(Protocol):
    """What is shown, and when it is said."""

    @property
    def text(self) -> str: ...

    @property
    def start_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...


@dataclass(frozen=True)
class Written:
    """A word as its transcript spells it, punctuation included."""

    text: str
    start_s: float
    end_s: float
    begins_line: bool  # of the transcript


@dataclass(frozen=True)
class Cue:
    """What is on the screen at once. Milliseconds, as both formats have them."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def as_written(transcript: str, words: Sequence[Word], rules: TextRules) -> list[Written]:
    """A transcript's words in their own spelling, with the times of the normalised ``words``.

    What has no letters belongs to the word before it, in its line or not; what is two words once
    it is normalised stays one. Where it cannot be told which is which, the words stay normalised.
    """
    found: list[Written] = []
    place = 0
    for line in transcript.splitlines():
        begins_line = True
        for text in line.split():
            count = len(normalise(text, rules).split())
            if count == 0:
                if found:
                    last = found[-1]
                    joined = f"{last.text} {text}"
                    found[-1] = Written(joined, last.start_s, last.end_s, last.begins_line)
                continue
            said = words[place : place + count]
            if said:
                found.append(Written(text, said[0].start_s, said[-1].end_s, begins_line))
            place, begins_line = place + count, False
    if place != len(words):
        return [Written(word.text, word.start_s, word.end_s, False) for word in words]
    return found


def cues(words: Sequence[Word], duration_s: float, breaks: Collection[int] = ()) -> list[Cue]:
    """Words in order, none overlapping -> cues in order, none overlapping, a millisecond at least.

    A cue has at most ``LINES`` lines of ``LINE_CHARACTERS`` and ``LONGEST_S``. A word of more than
    a line, as of scripts without spaces, is cut into cues of its own. A pause begins another cue,
    and so does each word whose number is in ``breaks``. A short one stays for ``SHORTEST_S`` where
    the next, or the end of a recording of ``duration_s``, does not come before.
    """
    groups: list[list[Word]] = []
    for number, word in enumerate(words):
        if len(word.text) > LINE_CHARACTERS:
            groups += [[piece] for piece in _pieces(word)]
        elif groups and number not in breaks and _belongs(word, groups[-1]):
            groups[-1].append(word)
        else:
            groups.append([word])
    limits = [*(round(1000 * group[0].start_s) for group in groups[1:]), round(1000 * duration_s)]
    found: list[Cue] = []
    for group, limit in zip(groups, limits, strict=False):
        start = max(round(1000 * group[0].start_s), found[-1].end_ms if found else 0)
        end = max(round(1000 * group[-1].end_s), start + round(1000 * SHORTEST_S))
        end = max(min(end, limit, start + round(1000 * LONGEST_S)), start + 1)
        found.append(Cue(start, end, tuple(_lines(group))))
    return found


def _pieces(word: Word) -> list[Written]:
    """A long word in parts that fit a cue, each with the time that its characters take."""
    length, seconds = len(word.text), word.end_s - word.start_s
    count = max(-(-length // (LINE_CHARACTERS * LINES)), min(length, ceil(seconds / LONGEST_S)))
    cuts = [round(number * length / count) for number in range(count + 1)]
    times = [word.start_s + seconds * cut / length for cut in cuts]
    return [
        Written(word.text[a:b], start, end, False)
        for (a, b), (start, end) in zip(pairwise(cuts), pairwise(times), strict=True)
    ]


def _belongs(word: Word, group: Sequence[Word]) -> bool:
    return (
        word.start_s - group[-1].end_s < PAUSE_S
        and word.end_s - group[0].start_s <= LONGEST_S
        and len(_lines([*group, word])) <= LINES
    )


def _lines(group: Sequence[Word]) -> list[str]:
    text = " ".join(word.text for word in group)
    return textwrap.wrap(text, LINE_CHARACTERS, break_on_hyphens=False) or [text]


def srt(shown: Sequence[Cue]) -> str:
    """SubRip: a number, the times, the lines, an empty line."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        + "\n".join(cue.lines)
        + "\n\n"
        for number, cue in enumerate(shown, 1)
    )


def vtt(shown: Sequence[Cue]) -> str:
    """WebVTT: the header, then the times and the escaped lines of each cue."""
    blocks = [
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        + "\n"
        for cue in shown
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
