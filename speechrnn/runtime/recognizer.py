"""Speech to text from one device file: NumPy, LiteRT and this package, no TensorFlow."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from speechrnn import audio
from speechrnn.decoding import carried
from speechrnn.decoding.alignment import align
from speechrnn.decoding.pauses import Loudness
from speechrnn.decoding.rejection import Rejection
from speechrnn.decoding.settings import Decoder, DecoderSettings
from speechrnn.errors import MissingExtra, ModelError
from speechrnn.runtime import container
from speechrnn.runtime.operations import refuse_custom_operations
from speechrnn.runtime.reading import Listened, Reader
from speechrnn.runtime.results import Aligned, Habits, Transcript
from speechrnn.runtime.streaming import Endpoint, State, Stream
from speechrnn.runtime.waveform import checked_blocks
from speechrnn.runtime.windows import Windows, beginning, cut, of_length
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet

if TYPE_CHECKING:
    from speechrnn.decoding.beam import BeamDecoder

Progress = Callable[[float], None]


class BaseRecognizer(ABC):
    """What every form of a trained model offers; a form supplies ``_posteriors``.

    ``kind`` names the form; ``spec`` and ``card`` describe the model, ``alphabet`` reads its
    labels. ``windows`` says from which length on a recording is computed in parts; ``rejection``
    which stretches are taken for noise, from the card: None rejects nothing; ``habits`` what the
    card knows of the model's times and confidences; ``decoder`` a beam search, None for the best
    label of each frame.
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
        self.decoder: BeamDecoder | None = None

    @property
    def reader(self) -> Reader:
        """What this recogniser does behind the network."""
        return Reader(self.spec, self.rejection, self.habits, self.decoder)

    def carried(self) -> DecoderSettings | None:
        """The settings in the model's card, whose files exist for as long as this recogniser.

        Raises:
            ModelError: they are damaged.
        """
        if carried.KEY not in self.card:
            return None
        folder = tempfile.mkdtemp(prefix="speechrnn-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return carried.unpack(self.card[carried.KEY], folder, f"this {self.kind}")

    def decode_with(self, decoder: Decoder) -> None:
        """Search with these settings from now on; "carried": with those in the model's card, if it
        has any; None: take the best label of each frame.

        Raises:
            MissingExtra: the extra [decode] is not installed.
            DataError, ModelError, UsageError: settings or files that cannot be used.
        """
        if decoder is None or (decoder == "carried" and carried.KEY not in self.card):
            self.decoder = None
            return
        try:
            from speechrnn.decoding.beam import BeamDecoder
        except MissingExtra as error:
            if decoder != "carried":
                raise
            raise MissingExtra(
                "the beam search that this model carries (--greedy or decoder=None goes without)",
                "decode",
            ) from error
        settings = self.carried() if decoder == "carried" else decoder
        self.decoder = None if settings is None else BeamDecoder(self.alphabet, settings)

    @property
    def streams(self) -> bool:
        """Whether ``stream`` is to be had."""
        return False

    def transcribe(
        self, source: np.ndarray | str | Path, progress: Progress | None = None, n_best: int = 0
    ) -> Transcript:
        """A waveform, as ``log_probs`` takes it, or the path of a recording -> its text.

        A recording of any length: a long one is decoded and computed in parts, in the memory
        that ``windows.whole_s`` takes and 14 MB an hour for the posteriors of 28 labels.

        Args:
            progress: called with the seconds of the recording that are done, after each part.
            n_best: alternatives that a beam search is to give beside the text.

        Raises:
            AudioError: the recording or the waveform cannot be used.
            UsageError: alternatives are wanted, and there is no beam search.
        """
        return self.reader.transcript(self.listen(source, progress), n_best)

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
        listened = self.listen(source, progress)
        found = align(listened.log_probs, labels)
        heard = found.hypothesis(self.alphabet)
        words = self.reader.words(heard, listened)
        return Aligned(heard.text, words, found.mismatch, listened.duration_s)

    def listen(self, source: np.ndarray | str | Path, progress: Progress | None = None) -> Listened:
        """A recording, as ``transcribe`` takes it -> what ``reader`` makes its transcript of."""
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
        """A recording to be heard while it goes on: ``feed`` it pieces, then ``finish``::

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
        decoder: see ``decode_with``.

    Raises:
        ModelError: the file is missing, foreign or damaged.
        MissingExtra: the file carries a beam search, and the extra [decode] is not installed.
    """

    kind = "tflite"

    def __init__(self, path: str | Path, reject: bool = True, decoder: Decoder = "carried"):
        loaded = container.read(path)
        refuse_custom_operations(loaded.model_bytes, Path(path))
        super().__init__(loaded.spec, loaded.card)
        if not reject:
            self.rejection = None
        self.decode_with(decoder)
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
        return Stream(self.reader, self._first_state(), self._stepped, endpoint or Endpoint())

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
