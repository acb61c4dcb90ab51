"""Posteriors to text by beam search: with a lexicon, a language model, hotwords.

The search is flashlight-text's (Kahn et al., ICML 2022, https://github.com/flashlight/text), with
KenLM inside; here it is set up, fed, and its paths are read.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.decoding.greedy import Hypothesis, along, check
from speechrnn.decoding.neural import CharacterLM
from speechrnn.decoding.rescoring import rescore
from speechrnn.decoding.search import Search, build
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import UsageError
from speechrnn.text import BLANK, Alphabet

# What is longer is searched in parts, divided in its longest pause of every LONGEST frames' second
# half (a minute of 30 ms frames), so that memory does not grow with length.
LONGEST = 2000
_IMPOSSIBLE = -1e4  # for a posterior of 0, whose logarithm has no sum


@dataclass(frozen=True)
class Candidate:
    """One of the n best."""

    hypothesis: Hypothesis
    score: float  # what the search goes by, see ``DecoderSettings``
    acoustic_score: float  # of it: ln P(path | audio)


@dataclass(frozen=True)
class _Found:
    """What a search has left of a part: a text, and the labels of its best path."""

    text: str
    path: np.ndarray
    score: float
    acoustic_score: float


class BeamDecoder:
    """Beam search under one set of settings: ``decode(log_probs).text``.

    ``remarks`` are what a user should know of the settings' files, such as words left out. Threads
    may share a decoder; they take turns.

    Raises:
        MissingExtra: flashlight-text is not installed.
        DataError, ModelError: a lexicon or a language model that cannot be used.
        UsageError: settings that contradict each other.
    """

    def __init__(self, alphabet: Alphabet, settings: DecoderSettings, search: Search | None = None):
        self.alphabet = alphabet
        self.settings = settings
        self._search = search or build(alphabet, settings)
        self.remarks = self._search.remarks
        spaces = [i for i, symbol in enumerate(alphabet.spec.symbols, 1) if symbol.isspace()]
        self._silent = np.array([BLANK, *spaces])
        self._lock = threading.Lock()
        self._rescorer: CharacterLM | None = None
        if settings.rescore_lm is not None:
            self._rescorer = CharacterLM.load(settings.rescore_lm)
            self._rescorer.spec.labels_of(alphabet.spec.symbols)  # raises where it lacks one

    @property
    def has_lexicon(self) -> bool:
        """Whether it writes words of a list only."""
        return self._search.separator is not None

    def __reduce__(self) -> tuple[type[BeamDecoder], tuple[Alphabet, DecoderSettings]]:
        """To another process it goes as its settings, whose files are read again there."""
        return BeamDecoder, (self.alphabet, self.settings)

    def again(self, settings: DecoderSettings) -> BeamDecoder:
        """A decoder with other settings; where only numbers differ no file is read again."""
        return BeamDecoder(self.alphabet, settings, self._search.again(settings))

    def decode(self, log_probs: np.ndarray) -> Hypothesis:
        """(frames, labels) natural-log posteriors -> the best hypothesis.

        Without frames, or where no hypothesis can be completed, it is empty. With a lexicon every
        word of it is in the lexicon. More than ``LONGEST`` frames are divided in pauses, and each
        part is a text of its own to the language model.

        Raises:
            ModelError: the columns are not the alphabet's labels, or a value is NaN or positive.
        """
        check(log_probs, self.alphabet)
        if len(log_probs) == 0:
            return along(np.zeros(0, np.intp), log_probs, self.alphabet)
        parts = list(_parts(log_probs, self._silent))
        paths = [self._best(log_probs[part], part is parts[-1]) for part in parts]
        return along(np.concatenate(paths), log_probs, self.alphabet)

    def n_best(self, log_probs: np.ndarray, n: int) -> tuple[Candidate, ...]:
        """Up to ``n`` hypotheses with different texts, best first; without frames one, empty.

        The first has the text of ``decode``. Of a recording in parts each is a choice among what
        the searches of the parts have left.

        Raises:
            ModelError: as ``decode`` does.
            UsageError: n is less than 1.
        """
        if n < 1:
            raise UsageError(f"n is {n}; at least 1 hypothesis is needed")
        check(log_probs, self.alphabet)
        if len(log_probs) == 0:
            return (Candidate(self.decode(log_probs), 0.0, 0.0),)
        parts = list(_parts(log_probs, self._silent))
        ranked = [self._ranked(log_probs[part], part is parts[-1]) for part in parts]
        best: dict[str, Candidate] = {}
        for chosen in _choices(ranked):
            heard = along(np.concatenate([f.path for f in chosen]), log_probs, self.alphabet)
            score, acoustic = sum(f.score for f in chosen), sum(f.acoustic_score for f in chosen)
            best.setdefault(heard.text, Candidate(heard, score, acoustic))
            if len(best) == n:
                break
        return tuple(best.values())

    def _best(self, log_probs: np.ndarray, is_last: bool) -> np.ndarray:
        """The labels of the best hypothesis, one for each frame."""
        if self._rescorer is None and self._search.ending is None:
            return self._read(self._searched(log_probs, is_last)[0], len(log_probs))
        return self._ranked(log_probs, is_last)[0].path

    def _ranked(self, log_probs: np.ndarray, is_last: bool) -> list[_Found]:
        """What is left of the search, each text once with its best path, the best first; silence
        where nothing is left."""
        found: dict[str, _Found] = {}
        for result in self._searched(log_probs, is_last, every=True):
            path = self._read(result, len(log_probs))
            text = along(path, log_probs, self.alphabet).text
            found.setdefault(text, _Found(text, path, result.score, result.emittingModelScore))
        if not found:
            return [_Found("", np.full(len(log_probs), BLANK), -math.inf, -math.inf)]
        if self._search.ending is not None:
            weight, ending = self.settings.lm_weight, self._search.ending
            for text, each in found.items():
                found[text] = dataclasses.replace(each, score=each.score + weight * ending(text))
        if self._rescorer is not None:
            scores = [(text, each.score) for text, each in found.items()]
            for text, score in rescore(scores, self._rescorer, self.settings.rescore_weight):
                found[text] = dataclasses.replace(found[text], score=score)
        return sorted(found.values(), key=lambda each: -each.score)

    def _searched(self, log_probs: np.ndarray, is_last: bool, every: bool = False) -> list[Any]:
        """flashlight's results, the best first, and all of them if asked for.

        With a lexicon a word waits for its separator. The last word of a recording gets it in a
        frame behind the last, that of any other part in the part's last frame, within a pause.
        """
        frames, labels = log_probs.shape
        separator, decoder = self._search.separator, self._search.decoder
        emissions = np.empty([frames + (is_last and separator is not None), labels], np.float32)
        np.maximum(log_probs, _IMPOSSIBLE, out=emissions[:frames], casting="unsafe")
        if separator is not None:
            emissions[-1] = _IMPOSSIBLE
            emissions[-1, separator] = 0
        with self._lock:
            self._search.reset()
            if every:
                return decoder.decode(emissions.ctypes.data, *emissions.shape)
            decoder.decode_begin()
            decoder.decode_step(emissions.ctypes.data, *emissions.shape)
            decoder.decode_end()
            return [decoder.get_best_hypothesis(0)]

    def _read(self, result: Any, frames: int) -> np.ndarray:
        """A result's labels. It has one for the start, each frame, the separator, and the end; the
        best one alone is given only up to its last word's end."""
        path = np.full(frames, BLANK)
        given = result.tokens[1 : 1 + frames]
        path[: len(given)] = given
        if self._search.separator is not None:
            # A word counts when its separator has come: letters behind the last are of none.
            ends = [at for at, word in enumerate(result.words) if word >= 0]
            path[ends[-1] if ends else 0 :] = BLANK
        return path


def _choices(ranked: Sequence[Sequence[_Found]]) -> Iterator[list[_Found]]:
    """One of each list, those first whose scores sum up to most; each list is sorted."""

    def total(places: tuple[int, ...]) -> float:
        return sum(found[at].score for found, at in zip(ranked, places, strict=True))

    first = (0,) * len(ranked)
    waiting, seen = [(-total(first), first)], {first}
    while waiting:
        _, places = heapq.heappop(waiting)
        yield [found[at] for found, at in zip(ranked, places, strict=True)]
        for part, at in enumerate(places):
            after = (*places[:part], at + 1, *places[part + 1 :])
            if at + 1 < len(ranked[part]) and after not in seen:
                seen.add(after)
                heapq.heappush(waiting, (-total(after), after))


def _parts(log_probs: np.ndarray, silent: np.ndarray) -> Iterator[slice]:
    """The frames in parts of at most ``LONGEST``, cut in the middle of pauses.

    Where a label other than ``silent`` is best in each frame of a second half, it is cut all the
    same.
    """
    start = 0
    while len(log_probs) - start > LONGEST:
        middle = start + LONGEST // 2
        best = log_probs[middle : start + LONGEST].argmax(axis=1)
        edges = np.flatnonzero(np.diff(np.isin(best, silent), prepend=False, append=False))
        pauses = edges.reshape(-1, 2)
        longest = pauses[np.diff(pauses).argmax()] if len(pauses) else [LONGEST // 2] * 2
        end = middle + int(np.mean(longest))
        yield slice(start, end)
        start = end
    yield slice(start, len(log_probs))
