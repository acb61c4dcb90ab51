"""Speech to text from one device file: NumPy, LiteRT and this package, no TensorFlow."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from speechrnn import audio
from speechrnn.decoding.greedy import greedy
from speechrnn.errors import AudioError, ModelError
from speechrnn.runtime import container
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said, in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording.

    Invariant: ``" ".join(word.text for word in words) == text``.
    """

    text: str
    words: tuple[TimedWord, ...]
    confidence: float  # mean probability of the symbols, 0 to 1
    duration_s: float
    log_probs: np.ndarray  # (frames, alphabet size), what other decoders start from


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
            words=tuple(
                TimedWord(
                    word.text,
                    self._seconds(word.start_frame, duration),
                    self._seconds(word.end_frame, duration),
                    word.confidence,
                )
                for word in heard.words
            ),
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

    @abstractmethod
    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        """``log_probs`` of a checked float32 waveform of at least one window."""

    def _seconds(self, frame: int, duration: float) -> float:
        return min(frame * self.spec.seconds_per_output_frame, duration)


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
        try:
            self._interpreter = Interpreter(model_content=loaded.model_bytes, num_threads=1)
            self._run = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path}: this device's LiteRT cannot load the model ({error}); update "
                "ai-edge-litert, or export the model again"
            ) from error
        self._lock = threading.Lock()

    def _posteriors(self, waveform: np.ndarray) -> np.ndarray:
        with self._lock:
            return self._run(waveform=waveform)["log_probs"]


def checked_waveform(waveform: np.ndarray) -> np.ndarray:
    """(samples,) float32, float64 or int16 -> float32 in about [-1, 1]. Empty and silent will do.

    Raises:
        AudioError: with ``reason`` channels, dtype, non_finite or too_loud.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise AudioError(
            f"the waveform has shape {waveform.shape}; give one channel: (samples,)", "channels"
        )
    if waveform.dtype == np.int16:
        return audio.from_pcm16(waveform)
    if waveform.dtype not in (np.float32, np.float64):
        raise AudioError(
            f"the waveform is of {waveform.dtype}; convert it to float32, float64 or int16", "dtype"
        )
    if not np.isfinite(waveform).all():
        at = int(np.flatnonzero(~np.isfinite(waveform))[0])
        raise AudioError(
            f"sample {at} of the waveform is {waveform[at]}; all must be finite. Record it again.",
            "non_finite",
        )
    peak = float(np.abs(waveform).max(initial=0))
    if peak > audio.LOUDEST:
        raise AudioError(
            f"the waveform peaks at {peak:.4g} where full scale is 1; scale its samples to -1 to "
            "1, 16-bit integers by 1 / 32768",
            "too_loud",
        )
    return waveform.astype(np.float32, copy=False)
