"""Speech to text from one device file: NumPy, LiteRT and this package, no TensorFlow."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from speechrnn import audio
from speechrnn.decoding.alignment import align
from speechrnn.decoding.greedy import Hypothesis, greedy
from speechrnn.decoding.pauses import Loudness
from speechrnn.decoding.rejection import Rejection, without_noise
from speechrnn.errors import ModelError
from speechrnn.runtime import container
from speechrnn.runtime.results import (
    Aligned,
    Habits,
    TimedWord,
    Transcript,
    confidence_of,
    timed_words,
)
from speechrnn.runtime.streaming import Endpoint, State, Stream
from speechrnn.runtime.waveform import checked_blocks
from speechrnn.runtime.windows import Windows, beginning, cut, of_length
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Listened:
    """A recording once it was computed: (frames, labels) log_probs, (pauses, 2) seconds."""

    log_probs: np.ndarray
    pauses: np.ndarray
    duration_s: float


class BaseRecognizer(ABC):
    """What every form of a trained model offers; a form supplies ``_posteriors``.

    ``kind`` names the form; ``spec`` and ``card`` describe the model, ``alphabet`` reads its
    labels. ``windows`` says from which length on a recording is computed in parts; ``rejection``
    which stretches are taken for noise, from the card: None rejects nothing; ``habits`` what the
    card knows of the model's times and confidences.
    """

    kind: ClassVar[str]
    windows: Windows = Windows()

    def __init__(self, spec: RecogniserSpec, card: dict[str, Any]):
        self.spec = spec
        self.card = card
        self.alphabet = Alphabet(spec.alphabet)
        rejection = card.get("rejection")
        self.rejection = rejection and Rejection.from_dict(rejection)
        self.habits = Habits.of(card)

    @property
    def streams(self) -> bool:
        """Whether ``stream`` is to be had."""
        return False

    def transcribe(
        self, source: np.ndarray | str | Path, progress: Progress | None = None
    ) -> Transcript:
        """A waveform, as ``log_probs`` takes it, or the path of a recording -> its text.

        A recording of any length: a long one is decoded and computed in parts, in the memory
        that ``windows.whole_s`` takes and 14 MB an hour for the posteriors of 28 labels.

        Args:
            progress: called with the seconds of the recording that are done, after each part.

        Raises:
            AudioError: the recording or the waveform cannot be used.
        """
        listened = self._listen(source, progress)
        log_probs = listened.log_probs
        heard, rejected = greedy(log_probs, self.alphabet), 0
        if self.rejection:
            frame = self.spec.seconds_per_output_frame
            heard, rejected = without_noise(heard, log_probs, self.rejection, frame)
        words = self._timed(heard, listened)
        return Transcript(
            text=heard.text,
            words=words,
            confidence=confidence_of(heard, words, self.habits),
            duration_s=listened.duration_s,
            log_probs=log_probs,
            rejected=rejected,
        )

    def align(
        self, source: np.ndarray | str | Path, text: str, progress: Progress | None = None
    ) -> Aligned:
        """A recording, as ``transcribe`` takes it, and what is said in it -> when that is said.

        Raises:
            AudioError: the recording or the waveform cannot be used.
            TranscriptError: the text has characters that the model does not know, or more of them
                than the recording has time for.
        """
        labels = self.alphabet.encode(text)
        listened = self._listen(source, progress)
        found = align(listened.log_probs, labels)
        heard = found.hypothesis(self.alphabet)
        return Aligned(
            heard.text, self._timed(heard, listened), found.mismatch, listened.duration_s
        )

    def _timed(self, heard: Hypothesis, listened: Listened) -> tuple[TimedWord, ...]:
        return timed_words(
            heard, self.spec, listened.duration_s, habits=self.habits, pauses=listened.pauses
        )

    def _listen(self, source: np.ndarray | str | Path, progress: Progress | None) -> Listened:
        rate = self.spec.features.sample_rate
        given = audio.blocks(source, rate) if isinstance(source, str | Path) else iter([source])
        loudness = Loudness(rate)

        def heard() -> Iterator[np.ndarray]:
            for block in itertools.chain.from_iterable(map(checked_blocks, given)):
                loudness.feed(block)
                yield block

        log_probs = self._joined(heard(), progress)
        return Listened(log_probs, loudness.pauses(), loudness.duration_s)

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        """(samples,) at the model's sample rate -> (frames, alphabet size) float32.

        Natural logarithms of the posteriors, label 0 the blank. Floats lie in [-1, 1]; int16 is
        scaled. Less than one window of samples gives no frames, and so no text. What is longer
        than ``windows.whole_s`` is computed in parts, see ``Windows``; the number of frames is
        ``spec.output_frames(samples)`` in any case.

        Raises:
            AudioError: another shape or dtype, non-finite or unscaled samples.
        """
        return self._joined(checked_blocks(waveform))

    def _joined(self, blocks: Iterable[np.ndarray], progress: Progress | None = None) -> np.ndarray:
        """The log_probs of a recording in checked float32 blocks of any length."""
        whole = round(self.windows.whole_s * self.spec.features.sample_rate)
        waveform, rest = beginning(blocks, whole)
        if rest is not None:
            parts = self._in_parts(waveform, rest)
        elif self.spec.features.frames(len(waveform)) > 0:
            parts = iter([self._posteriors(waveform)])
        else:
            parts = iter(())
        joined, frames = [np.zeros([0, self.spec.alphabet.size], np.float32)], 0
        for part in parts:
            joined.append(part)
            frames += len(part)
            if progress:
                progress(frames * self.spec.seconds_per_output_frame)
        return np.concatenate(joined)

    def _in_parts(self, waveform: np.ndarray, rest: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The log_probs of a recording that begins with ``waveform``, part by part."""
        for window, kept in cut(waveform, rest, self.spec, self.windows):
            yield self._posteriors(window)[kept].copy()  # not a view that keeps the context alive

    def stream(self, endpoint: Endpoint | None = None) -> Stream:
        """A recording to be heard while it goes on: ``feed`` it pieces, then ``finish``.

            stream = recogniser.stream()
            for piece in microphone:
                for heard in stream.feed(piece):
                    print(heard.text, "." if heard.is_final else "...")
            stream.finish()

        The pieces may have any length; together their posteriors are those of the whole
        recording. Several streams may go on at once.

        Args:
            endpoint: when what was said so far is final.

        Raises:
            ModelError: the model needs the recording's end before it can say anything.
        """
        if not self.spec.streams:
            raise ModelError(
                "this model reads a recording from both ends, or normalises it as a whole, so it "
                "cannot stream; export it with --chunk and --right-context, or train one with "
                "model.bidirectional=false, and either with features.normalisation=global"
            )
        raise ModelError(
            f"this {self.kind} takes whole recordings only; export a .tflite file of the model, "
            "with --lowering nested"
        )

    @abstractmethod
    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        """``log_probs`` of a checked float32 waveform of at least one window."""


class Recognizer(BaseRecognizer):
    """A device file, loaded and ready: ``Recognizer("model.tflite").transcribe("clip.wav").text``.

    Runs on one thread, which is fastest for a recurrent network. Several threads may share one
    recogniser; they take turns.

    Args:
        reject: leave out what the model's card says is noise, see ``rejection``.

    Raises:
        ModelError: the file is missing, foreign or damaged.
    """

    kind = "tflite"

    def __init__(self, path: str | Path, reject: bool = True):
        loaded = container.read(path)
        super().__init__(loaded.spec, loaded.card)
        if not reject:
            self.rejection = None
        # The fused LSTM goes on where the last call ended.
        self._keeps_state = loaded.card.get("lowering") == "fused"
        try:
            self._interpreter = Interpreter(model_content=loaded.model_bytes, num_threads=1)
            self._run = self._interpreter.get_signature_runner("transcribe")
            self._step: Any = None
            if self.streams:
                self._step = self._interpreter.get_signature_runner("step")
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path}: this device's LiteRT cannot load the model ({error}); update "
                "ai-edge-litert, or export the model again"
            ) from error
        self._lock = threading.Lock()

    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        with self._lock:
            try:
                return self._run(waveform=waveform)["log_probs"]
            finally:
                # After a call, not before: until the first there is no memory to be reset.
                if self._keeps_state:
                    self._interpreter.reset_all_variables()

    @property
    def streams(self) -> bool:
        return self.spec.streams and not self._keeps_state

    def _in_parts(self, waveform: np.ndarray, rest: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """What streams loses nothing at the parts' ends: together they are the whole."""
        if self._step is None:
            return super()._in_parts(waveform, rest)
        piece = round(self.windows.kept_s * self.spec.features.sample_rate)
        return self.stream().log_probs(of_length(piece, waveform, rest))

    def stream(self, endpoint: Endpoint | None = None) -> Stream:
        if self._step is None:
            return super().stream(endpoint)
        return Stream(
            self.spec,
            self._first_state(),
            self._stepped,
            endpoint or Endpoint(),
            self.rejection,
            self.habits,
        )

    def _first_state(self) -> State:
        inputs = self._step.get_input_details()
        state = {
            name: np.zeros(details["shape"], np.float32)
            for name, details in inputs.items()
            if name.startswith("state_")
        }
        carried = np.zeros(self.spec.carried_samples, np.float32)
        return {**state, "carried": carried, "frame": np.zeros([], np.int32)}

    def _stepped(self, waveform: np.ndarray, state: State, final: bool) -> tuple[np.ndarray, State]:
        with self._lock:
            outputs = self._step(waveform=waveform, final=np.array(final, np.int32), **state)
        return outputs.pop("log_probs"), outputs
