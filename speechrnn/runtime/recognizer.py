"""Speech to text from one device file: NumPy, LiteRT and this package, no TensorFlow."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from speechrnn import audio
from speechrnn.decoding.greedy import greedy
from speechrnn.errors import ModelError
from speechrnn.runtime import container
from speechrnn.runtime.results import Transcript, timed_words
from speechrnn.runtime.streaming import Endpoint, State, Stream
from speechrnn.runtime.waveform import checked_waveform
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet


class BaseRecognizer(ABC):
    """What every form of a trained model offers; a form supplies ``_posteriors``.

    ``kind`` names the form; ``spec`` and ``card`` describe the model, ``alphabet`` reads its
    labels.
    """

    kind: ClassVar[str]

    def __init__(self, spec: RecogniserSpec, card: dict[str, Any]):
        self.spec = spec
        self.card = card
        self.alphabet = Alphabet(spec.alphabet)

    @property
    def streams(self) -> bool:
        """Whether ``stream`` is to be had."""
        return False

    def transcribe(self, source: np.ndarray | str | Path) -> Transcript:
        """A waveform, as ``log_probs`` takes it, or the path of a recording -> its text.

        Raises:
            AudioError: the recording or the waveform cannot be used.
        """
        rate = self.spec.features.sample_rate
        waveform = audio.load(source, rate) if isinstance(source, str | Path) else source
        waveform = checked_waveform(waveform)
        log_probs = self.log_probs(waveform)
        heard = greedy(log_probs, self.alphabet)
        duration = len(waveform) / rate
        return Transcript(
            text=heard.text,
            words=timed_words(heard, self.spec, duration),
            confidence=heard.confidence,
            duration_s=duration,
            log_probs=log_probs,
        )

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        """(samples,) at the model's sample rate -> (frames, alphabet size) float32.

        Natural logarithms of the posteriors, label 0 the blank. Floats lie in [-1, 1]; int16 is
        scaled. Less than one window of samples gives no frames, and so no text.

        Raises:
            AudioError: another shape or dtype, non-finite or unscaled samples.
        """
        waveform = checked_waveform(waveform)
        if self.spec.features.frames(len(waveform)) == 0:
            return np.zeros([0, self.spec.alphabet.size], np.float32)
        return self._posteriors(waveform)

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

    Raises:
        ModelError: the file is missing, foreign or damaged.
    """

    kind = "tflite"

    def __init__(self, path: str | Path):
        loaded = container.read(path)
        super().__init__(loaded.spec, loaded.card)
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

    def stream(self, endpoint: Endpoint | None = None) -> Stream:
        if self._step is None:
            return super().stream(endpoint)
        return Stream(self.spec, self._first_state(), self._stepped, endpoint or Endpoint())

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
