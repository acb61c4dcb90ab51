"""What was listened to -> a transcript: everything behind the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechrnn.decoding.greedy import Hypothesis, greedy
from speechrnn.decoding.rejection import Rejection, silenced, without_noise
from speechrnn.errors import UsageError
from speechrnn.runtime.results import (
    RAW,
    Alternative,
    Habits,
    TimedWord,
    Transcript,
    confidence_of,
    timed_words,
)
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet

if TYPE_CHECKING:
    from speechrnn.decoding.beam import BeamDecoder


@dataclass(frozen=True)
class Listened:
    """A recording once it was computed: (frames, labels) log_probs, (pauses, 2) seconds
    where these are wanted."""

    log_probs: np.ndarray
    pauses: np.ndarray | None
    duration_s: float


@dataclass(frozen=True)
class Reader:
    """How a recogniser reads posteriors; goes to other processes, as the network cannot.

    ``rejection`` None rejects nothing; ``decoder`` None takes the best label of each frame.
    """

    spec: RecogniserSpec
    rejection: Rejection | None = None
    habits: Habits = RAW
    decoder: BeamDecoder | None = None

    def transcript(self, listened: Listened, n_best: int = 0) -> Transcript:
        """What was said in a whole recording, with ``n_best`` alternatives.

        Raises:
            UsageError: alternatives are wanted of what is no search.
        """
        heard, rejected = self.hypothesis(listened.log_probs)
        words = self.words(heard, listened)
        return Transcript(
            text=heard.text,
            words=words,
            confidence=confidence_of(heard, words, self.habits),
            duration_s=listened.duration_s,
            log_probs=listened.log_probs,
            rejected=rejected,
            alternatives=self._alternatives(listened.log_probs, n_best) if n_best else (),
        )

    def _alternatives(self, log_probs: np.ndarray, n: int) -> tuple[Alternative, ...]:
        if self.decoder is None:
            raise UsageError(
                f"the {n} best need a beam search; give decoder=DecoderSettings(), or --beam 64"
            )
        found = self.decoder.n_best(self.quiet(log_probs)[0], n)
        return tuple([Alternative(each.hypothesis.text, each.score) for each in found])

    def hypothesis(self, log_probs: np.ndarray) -> tuple[Hypothesis, int]:
        """(frames, labels) -> what was heard, and how many stretches were taken for noise.

        What is noise, the best labels tell; a beam search then hears silence there.
        """
        if self.decoder is not None:
            quiet, rejected = self.quiet(log_probs)
            return self.decoder.decode(quiet), rejected
        heard = greedy(log_probs, Alphabet(self.spec.alphabet))
        if self.rejection is None:
            return heard, 0
        return without_noise(heard, log_probs, self.rejection, self.spec.seconds_per_output_frame)

    def quiet(self, log_probs: np.ndarray) -> tuple[np.ndarray, int]:
        """What a beam search gets: log_probs with silence in place of noise, and how many
        stretches that is."""
        if self.rejection is None:
            return log_probs, 0
        heard = greedy(log_probs, Alphabet(self.spec.alphabet))
        return silenced(heard, log_probs, self.rejection, self.spec.seconds_per_output_frame)

    def words(
        self, heard: Hypothesis, listened: Listened, first_frame: int = 0
    ) -> tuple[TimedWord, ...]:
        """The words with their times; the hypothesis begins at ``first_frame``."""
        return timed_words(
            heard, self.spec, listened.duration_s, first_frame, self.habits, listened.pauses
        )
