"""Text while the recording goes on: pieces of a waveform in, partial and final results out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechrnn.decoding.pauses import Loudness
from speechrnn.runtime.reading import Listened, Reader
from speechrnn.runtime.results import TimedWord, confidence_of
from speechrnn.runtime.waveform import checked_waveform
from speechrnn.text import BLANK

# One step of the model: (waveform, first call's or returned state, whether nothing follows) ->
# log_probs, state.
State = dict[str, np.ndarray]
Step = Callable[[np.ndarray, State, bool], tuple[np.ndarray, State]]

PIECE_SECONDS = 0.32  # the most that is given to the model at once


@dataclass(frozen=True)
class Endpoint:
    """When what was said so far is final, in seconds; the rules of Kaldi and Vosk.

    Silence is where the model writes nothing, or a space.
    """

    silence_after_words: float = 1.0
    silence_at_first: float = 5.0  # before anything was said: begin anew
    longest: float = 20.0  # of one result, pause or not

    def reached(self, seconds: float, silence: float, has_words: bool) -> bool:
        enough = self.silence_after_words if has_words else self.silence_at_first
        return silence >= enough or seconds >= self.longest


@dataclass(frozen=True)
class Heard:
    """What has been heard since the last final result. Times count from the stream's start."""

    text: str
    words: tuple[TimedWord, ...]
    confidence: float
    is_final: bool
    log_probs: np.ndarray  # (frames, alphabet size), of this result alone
    rejected: int = 0  # stretches taken for noise: in log_probs, not in text and words


class Stream:
    """One recording, heard while it goes on; see ``Recognizer.stream``.

    ``rejected`` counts the stretches of final results that were taken for noise; one of which
    nothing is left is not given.
    """

    def __init__(
        self,
        reader: Reader,
        state: State,
        step: Step,
        endpoint: Endpoint,
    ):
        self._reader, self._state, self._step, self._endpoint = reader, state, step, endpoint
        self._quick = dataclasses.replace(reader, decoder=None)  # for what is not final yet
        self._spec = spec = reader.spec
        self.rejected = 0
        self._silent = {BLANK} | {
            label for label, symbol in enumerate(spec.alphabet.symbols, 1) if symbol.isspace()
        }
        self._piece = max(1, round(PIECE_SECONDS * spec.features.sample_rate))
        self._waiting = np.zeros(0, np.float32)
        self._samples = 0  # in all
        self._frames = 0  # given by the model, in all
        self._since = 0  # the first frame of what is not final yet
        self._log_probs = np.zeros([0, spec.alphabet.size], np.float32)  # from there on
        self._loudness = Loudness(spec.features.sample_rate)
        self._ended = False

    def feed(self, waveform: np.ndarray) -> list[Heard]:
        """A waveform of any length, as ``Recognizer.log_probs`` takes it -> final results, then
        a partial one; nothing where no frame of the model was complete.

        Raises:
            AudioError: the waveform cannot be used.
            ValueError: the stream has ended.
        """
        self._refuse_ended()
        waveform = checked_waveform(waveform)
        heard: list[Heard] = []
        for start in range(0, len(waveform), self._piece):
            self._receive(waveform[start : start + self._piece])
            if self._frames_ready() > 0:
                self._advance(final=False)
                heard = [one for one in heard if one.is_final] + self._result()
        return heard

    def finish(self) -> Heard:
        """The recording ends here -> what has been heard since the last final result, perhaps
        nothing.

        Raises:
            ValueError: the stream has ended.
        """
        self._refuse_ended()
        self._ended = True
        if self._spec.output_frames(self._samples) > self._frames:
            self._advance(final=True)
        heard = self._heard(is_final=True)
        self.rejected += heard.rejected
        return heard

    def log_probs(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """A whole recording in checked float32 blocks -> its posteriors piece by piece, without
        results and endpoints; ends the stream.

        Together (frames, alphabet size) of the recording. Shorter blocks than a frame will do.

        Raises:
            ValueError: the stream has ended.
        """
        self._refuse_ended()
        for block in blocks:
            self._receive(block)
            if self._frames_ready() > 0:
                self._advance(final=False)
                piece, self._log_probs = self._log_probs, self._log_probs[:0]
                yield piece
        yield self.finish().log_probs

    def _refuse_ended(self) -> None:
        if self._ended:
            raise ValueError("this stream was finished; start another with Recognizer.stream()")

    def _receive(self, waveform: np.ndarray) -> None:
        self._waiting = np.concatenate([self._waiting, waveform])
        self._samples += len(waveform)
        self._loudness.feed(waveform)

    def _frames_ready(self) -> int:
        """Output frames for which all that they read has been received, and a sample more."""
        features = self._spec.features.frames(self._samples - 1)
        return self._spec.model.complete_frames(features) - self._frames

    def _advance(self, final: bool) -> None:
        # The last sample waits, so that no device has to bear an empty last piece.
        given = len(self._waiting) if final else len(self._waiting) - 1
        log_probs, self._state = self._step(self._waiting[:given], self._state, final)
        self._waiting = self._waiting[given:]
        self._frames += len(log_probs)
        self._log_probs = np.concatenate([self._log_probs, log_probs])

    def _result(self) -> list[Heard]:
        """A partial result, or where an endpoint is reached the final one, if it has any text."""
        heard = self._heard(is_final=False)
        if not self._ended_here(heard):
            return [heard]
        heard = self._heard(is_final=True)
        self._since, self._log_probs = self._frames, self._log_probs[:0]
        self._loudness.forget(self._since * self._spec.seconds_per_output_frame)
        self.rejected += heard.rejected
        return [heard] if heard.text else []

    def _ended_here(self, heard: Heard) -> bool:
        best = self._log_probs.argmax(axis=1)
        said = np.flatnonzero(~np.isin(best, list(self._silent)))
        quiet = len(best) - (said[-1] + 1 if said.size else 0)
        seconds = self._spec.seconds_per_output_frame
        has_words = bool(heard.text) or heard.rejected > 0
        return self._endpoint.reached(len(best) * seconds, quiet * seconds, has_words)

    def _heard(self, is_final: bool) -> Heard:
        reader = self._reader if is_final else self._quick
        found, rejected = reader.hypothesis(self._log_probs)
        duration = self._samples / self._spec.features.sample_rate
        pauses = self._loudness.pauses() if reader.habits.timing else None
        listened = Listened(self._log_probs, pauses, duration)
        words = reader.words(found, listened, self._since)
        confidence = confidence_of(found, words, reader.habits)
        return Heard(found.text, words, confidence, is_final, self._log_probs, rejected)
