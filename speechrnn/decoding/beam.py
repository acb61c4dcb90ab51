"""Posteriors to text by beam search: with a lexicon, a language model, hotwords.

The search is flashlight-text's (Kahn et al., ICML 2022, https://github.com/flashlight/text), with
KenLM inside; here it is set up, fed, and its paths are read.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator
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
        paths = [self._path(log_probs[part]) for part in _parts(log_probs, self._silent)]
        return along(np.concatenate(paths), log_probs, self.alphabet)

    def n_best(self, log_probs: np.ndarray, n: int) -> tuple[Candidate, ...]:
        """Up to ``n`` hypotheses with different texts, best first; without frames one, empty.

        The whole recording is searched at once: memory grows by about 4 KB a frame at a beam of 64.

        Raises:
            ModelError: as ``decode`` does.
            UsageError: n is less than 1.
        """
        if n < 1:
            raise UsageError(f"n is {n}; at least 1 hypothesis is needed")
        check(log_probs, self.alphabet)
        if len(log_probs) == 0:
            return (Candidate(self.decode(log_probs), 0.0, 0.0),)
        ranked = [candidate for candidate, _ in self._ranked(log_probs)]
        return tuple(ranked[:n]) or (Candidate(self.decode(log_probs[:0]), -math.inf, 0.0),)

    def _ranked(self, log_probs: np.ndarray) -> list[tuple[Candidate, np.ndarray]]:
        """What is left of the search, each text once with its best path, the best first."""
        found: dict[str, tuple[Candidate, np.ndarray]] = {}
        for result in self._searched(log_probs, every=True):
            path = self._read(result, len(log_probs))
            heard = along(path, log_probs, self.alphabet)
            candidate = Candidate(heard, result.score, result.emittingModelScore)
            found.setdefault(heard.text, (candidate, path))
        if self._rescorer is None:
            return list(found.values())
        scores = [(text, candidate.score) for text, (candidate, _) in found.items()]
        again = rescore(scores, self._rescorer, self.settings.rescore_weight)
        return [
            (dataclasses.replace(found[text][0], score=score), found[text][1])
            for text, score in again
        ]

    def _path(self, log_probs: np.ndarray) -> np.ndarray:
        """The labels of the best hypothesis, one for each frame."""
        if self._rescorer is not None:
            ranked = self._ranked(log_probs)
            return ranked[0][1] if ranked else np.full(len(log_probs), BLANK)
        return self._read(self._searched(log_probs)[0], len(log_probs))

    def _searched(self, log_probs: np.ndarray, every: bool = False) -> list[Any]:
        """flashlight's results, the best first, and all of them if asked for."""
        frames, labels = log_probs.shape
        separator, decoder = self._search.separator, self._search.decoder
        emissions = np.empty([frames + (separator is not None), labels], np.float32)
        np.maximum(log_probs, _IMPOSSIBLE, out=emissions[:frames], casting="unsafe")
        if separator is not None:  # which the lexicon's last word waits for
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
