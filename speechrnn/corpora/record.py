"""Phrases -> a corpus of one's own voice, recorded from a microphone phrase by phrase.

Each recording is saved, and the manifest written, before the next phrase is asked for:
stopping loses nothing, and the next run goes on with what is missing.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from speechrnn import audio
from speechrnn.corpora import manifest
from speechrnn.corpora.phrases import Phrase
from speechrnn.errors import AudioError, ManifestError, MissingExtra, UsageError

MIN_SECONDS = 0.3
QUIET_DB = -40.0  # the loudest 50 ms of speech at arm's length is well above, a room well below
CLIPPED_LEVEL, CLIPPED_FRACTION = 0.99, 1e-3  # of samples; a click alone is shorter

Ask = Callable[[str], str]
# (samples,) float32 in [-1, 1], and whether some before them were lost.
Receive = Callable[[np.ndarray, bool], None]


class Microphone(Protocol):
    """What records: ``start``, then ``stop``, as often as needed."""

    sample_rate: int

    def start(self) -> None: ...

    def stop(self) -> np.ndarray:
        """(samples,) float32 in [-1, 1]: what was heard since ``start``."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How far a session came; ``missing`` phrases are asked for next time."""

    manifest: Path
    recorded: int
    missing: int


def record(
    phrases: Sequence[Phrase],
    out: str | Path,
    *,
    speaker: str,
    device: Microphone,
    ask: Ask | None = None,
) -> Outcome:
    """Ask for each phrase that ``speaker`` has not recorded yet, and keep the good takes.

    ``out`` gets 16-bit FLAC files at the device's sample rate in ``audio/`` and
    ``manifest.tsv``, to which other speakers' sessions may have contributed. A take that is too
    short, too quiet or clipped is asked for again. ``ask`` shows a prompt and returns the
    answer: empty to go on, "s" to skip the phrase, "r" to say it again, "q" to stop.

    Raises:
        UsageError: the speaker's name cannot be part of a file name.
        ManifestError: the folder's manifest is damaged or has other columns than ours.
    """
    if not re.fullmatch(r"\w[\w.-]*", speaker):
        raise UsageError(f"the speaker is {speaker!r}; use letters, digits, '_', '-' and '.' only")
    ask = ask or _ask_on_terminal
    out = Path(out)
    path = out / "manifest.tsv"
    utterances = list(manifest.read(path)) if path.exists() else []
    (out / "audio").mkdir(parents=True, exist_ok=True)
    wanted = _missing(phrases, utterances, speaker)
    recorded = 0
    for phrase, waveform in _good_takes(wanted, device, ask):
        utterance_id = _free_id(speaker, utterances)
        flac = out / "audio" / f"{utterance_id}.flac"
        _save(flac, waveform, device.sample_rate)
        utterance = manifest.Utterance(utterance_id, flac, phrase.text, phrase.split, speaker)
        _append(path, utterance)
        utterances.append(utterance)
        recorded += 1
    return Outcome(path, recorded, len(wanted) - recorded)


def _missing(
    phrases: Sequence[Phrase], utterances: Sequence[manifest.Utterance], speaker: str
) -> list[Phrase]:
    """What the speaker has not said yet; a phrase that stands twice is wanted twice."""
    said = Counter(u.text for u in utterances if u.speaker == speaker)
    missing = []
    for phrase in phrases:
        if said[phrase.text]:
            said[phrase.text] -= 1
        else:
            missing.append(phrase)
    return missing


def _good_takes(
    phrases: Sequence[Phrase], device: Microphone, ask: Ask
) -> Iterator[tuple[Phrase, np.ndarray]]:
    """Each phrase with a take that can be used, until the speaker stops; without the skipped."""
    for number, phrase in enumerate(phrases, start=1):
        prompt = f"[{number}/{len(phrases)}] {phrase.text}\n  Enter starts, s skips, q stops: "
        note = ""
        while True:
            answer = ask(note + prompt)
            if answer == "q":
                return
            if answer == "s":
                break
            waveform, answer = _listen(device, ask)
            if answer == "q":
                return
            fault = "" if answer == "r" else find_fault(waveform, device.sample_rate)
            note = f"  {fault}\n" if fault else ""
            if not fault and answer != "r":
                yield phrase, waveform
                break


def _listen(device: Microphone, ask: Ask) -> tuple[np.ndarray, str]:
    device.start()
    try:
        answer = ask("  recording: Enter ends, r says it again, q stops: ")
    finally:
        waveform = device.stop()
    return waveform, answer


def find_fault(waveform: np.ndarray, sample_rate: int) -> str:
    """What makes a take useless and what to do about it; empty where it is good."""
    try:
        audio.check(waveform, sample_rate, min_seconds=MIN_SECONDS, name="the take")
    except AudioError as error:
        return str(error)
    clipped = np.mean(np.abs(waveform) >= CLIPPED_LEVEL)
    if clipped > CLIPPED_FRACTION:
        return f"{clipped:.1%} of the samples are clipped; go further away or lower the level"
    loudest = _loudest_db(waveform, sample_rate)
    if loudest < QUIET_DB:
        return (
            f"the loudest part is at {loudest:.0f} dB, below {QUIET_DB:.0f}; come nearer, raise "
            "the level, or check that this is the right microphone"
        )
    return ""


def _loudest_db(waveform: np.ndarray, sample_rate: int, window_s: float = 0.05) -> float:
    """Rms of the loudest window against full scale."""
    window = round(window_s * sample_rate)
    blocks = waveform[: len(waveform) // window * window].reshape(-1, window)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1).max()
    return float(10 * np.log10(max(power, 1e-12)))


def _free_id(speaker: str, utterances: Sequence[manifest.Utterance]) -> str:
    taken = {u.utterance_id for u in utterances}
    return next(i for n in itertools.count() if (i := f"{speaker}-{n:05d}") not in taken)


def _save(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    partial = path.with_suffix(".part")
    soundfile.write(partial, audio.to_pcm16(waveform), sample_rate, format="FLAC")
    os.replace(partial, path)


def _append(path: Path, utterance: manifest.Utterance) -> None:
    """Add a row, atomically, and leave the others as they stand.

    Writing back what ``manifest.read`` gave would pin the splits that it fills in.
    """
    added = path.with_name("manifest.tsv.added")
    manifest.write(added, [utterance])
    if path.exists():
        old = path.read_text(encoding="utf-8").rstrip("\n")
        header, row = added.read_text(encoding="utf-8").splitlines()
        if not old.startswith(header + "\n"):
            added.unlink()
            raise ManifestError(f"{path} has other columns than {header!r}; record elsewhere")
        added.write_text(f"{old}\n{row}\n", encoding="utf-8", newline="\n")
    os.replace(added, path)


def _ask_on_terminal(prompt: str) -> str:
    """The prompt goes to stderr, as all that is for people; the end of input stops."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.strip().lower() if line else "q"


class SoundDevice:
    """A microphone of this computer, at its own sample rate; preparation resamples.

    ``name`` is a part of the device's name or its number; None is the system's default.

    Raises:
        MissingExtra: the extra [microphone], or the PortAudio library it needs, is not installed.
        UsageError: no such input device; the message lists those there are.
    """

    def __init__(self, name: str | int | None = None):
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: the wheel is there, PortAudio is not
            raise MissingExtra("recording from a microphone", "microphone") from error
        if isinstance(name, str) and name.isdecimal():
            name = int(name)
        self._sounddevice = sounddevice
        try:
            found = sounddevice.query_devices(name, "input")
        except (ValueError, sounddevice.PortAudioError) as error:
            inputs = [d["name"] for d in sounddevice.query_devices() if d["max_input_channels"]]
            raise UsageError(
                f"no microphone {'by default' if name is None else repr(name)}; there are: "
                f"{', '.join(inputs) or 'none'}"
            ) from error
        self.name = name
        self.sample_rate = round(found["default_samplerate"])
        self._blocks: list[np.ndarray] = []
        self._stream: Any = None

    def start(self) -> None:
        self._blocks = []
        self.open(lambda block, _: self._blocks.append(block))

    def open(self, receive: Receive) -> None:
        """Give ``receive`` what is heard, in a thread of PortAudio's, until ``close``."""

        def received(block: np.ndarray, _frames: int, _time: object, status: Any) -> None:
            # PortAudio uses the block's memory again.
            receive(block[:, 0].copy(), bool(status and status.input_overflow))

        with self._device_errors():
            self._stream = self._sounddevice.InputStream(
                device=self.name,
                samplerate=self.sample_rate,
                channels=1,
                dtype="float32",
                callback=received,
            )
            try:
                self._stream.start()
            except self._sounddevice.PortAudioError:
                self._stream.close()
                raise

    def close(self) -> None:
        with self._device_errors():
            try:
                self._stream.stop()
            finally:
                self._stream.close()

    def stop(self) -> np.ndarray:
        self.close()
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)

    @contextmanager
    def _device_errors(self) -> Iterator[None]:
        try:
            yield
        except self._sounddevice.PortAudioError as error:
            name = "the default microphone" if self.name is None else f"microphone {self.name!r}"
            raise UsageError(
                f"{name} failed ({error}); check that it is plugged in and free, or name another"
            ) from error
