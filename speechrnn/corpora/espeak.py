"""Text -> synthetic speech, offline, in any language that espeak-ng speaks.

The library comes in the ``espeakng-loader`` wheel, which is GPL-3.0 and therefore the
optional extra [synth]. It keeps one global state: one thread of a process may speak at a
time, and more speed takes more processes. Its samples are not reproducible: the same call
can return a slightly different waveform.
"""

from __future__ import annotations

import bisect
import ctypes
import difflib
import functools
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from speechrnn.errors import MissingExtra, UsageError

# From espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2  # espeak_Synth returns when all samples have been delivered
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_LIST_TERMINATED, _WORD = 0, 1  # espeak_EVENT_TYPE

_VOLUME_PERCENT = 50  # at the default 100 a third of the voices clip
_GAP_UNIT_MS = 10

_SCRIPT = re.compile(r"-([a-z]{4})\b")  # cmn-latn-pinyin, en-shaw: read another script
# An "a" beside another single letter. espeak-ng reads it as the article; "eigh" has the
# letter's vowel in every English accent.
_LETTER_A = re.compile(
    r"(?<=(?<![\w'])[a-z] )a(?![\w'])|(?<![\w'])a(?= [a-z](?![\w']))", re.IGNORECASE
)


class _VoiceRecord(ctypes.Structure):
    """espeak_VOICE of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),  # a union of int, pointer and char[8]
    )


_ON_AUDIO = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class _Voice:
    identifier: str  # "gmw/en": the only name under which every voice is found
    languages: tuple[str, ...]  # ("en-gb", "en"): its own code first


def voices(language: str) -> list[str]:
    """The codes of the voices that speak ``language``: "en" -> ["en-gb", "en-us", ...].

    Voices that read another script than the language's usual one (pinyin, Shavian) count
    only when ``language`` is their own code.

    Raises:
        UsageError: espeak-ng does not speak it; the message names near ones.
        MissingExtra: the extra [synth] is not installed.
    """
    catalogue = _engine().voices
    found = [
        code
        for code, voice in catalogue.items()
        if code == language or (language in voice.languages and not _SCRIPT.search(code))
    ]
    if not found:
        _refuse("language", language, {name for v in catalogue.values() for name in v.languages})
    return found


def variants() -> list[str]:
    """The speakers that any voice can be given, as the "f2" in "en-us+f2"."""
    return sorted(_engine().variants)


def version() -> str:
    """espeak-ng's version, as "1.52.0"."""
    return _engine().version


def speak(
    text: str,
    voice: str,
    *,
    rate_wpm: int = 160,
    pitch: int = 50,
    pitch_range: int = 50,
    word_gap_ms: int = 0,
) -> tuple[np.ndarray, int]:
    """Text -> (samples,) float32 in [-1, 1] and their sample rate in Hz.

    ``voice`` is a voice's code, alone or with a variant: "en-us", "el+f2". ``pitch`` and
    ``pitch_range`` are on espeak-ng's scale of 0 to 99, where 50 is the voice's own.
    The text is spoken as it stands, but for single letters in English, which are spoken as
    letters ("b a d" is a spelled word, "a light" is not). A text without words gives silence
    or no samples at all.

    Raises:
        UsageError: an unknown voice or variant, or a number out of range.
        MissingExtra: the extra [synth] is not installed.
    """
    samples, _ = _spoken(text, voice, rate_wpm, pitch, pitch_range, word_gap_ms)
    return samples, _engine().sample_rate


def speak_with_times(
    text: str,
    voice: str,
    *,
    rate_wpm: int = 160,
    pitch: int = 50,
    pitch_range: int = 50,
    word_gap_ms: int = 0,
) -> tuple[np.ndarray, int, list[tuple[str, float | None]]]:
    """As ``speak``, and each word of ``text.split()`` with the second in which it begins.

    None stands where espeak-ng has no beginning: it speaks some pairs, as "of the", as one word.
    A word begins after the gap before it, with the closure of its first stop.
    """
    samples, found = _spoken(text, voice, rate_wpm, pitch, pitch_range, word_gap_ms)
    begins = [match.start() for match in re.finditer(r"\S+", spoken_form(text, voice))]
    starts: list[float | None] = [None] * len(begins)
    starts[:1] = [0.0] * len(starts[:1])  # espeak-ng loses this event now and then
    for position, milliseconds in found:
        word = bisect.bisect_right(begins, position + 1) - 1  # behind a sentence it names the space
        if word >= 0 and starts[word] is None:  # the first of a compound's two
            starts[word] = milliseconds / 1000
    return samples, _engine().sample_rate, list(zip(text.split(), starts, strict=True))


def _spoken(
    text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int, word_gap_ms: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The samples, and of each word the place in the spoken form and the millisecond."""
    for name, value, low, high in (
        ("rate_wpm", rate_wpm, 80, 450),
        ("pitch", pitch, 0, 99),
        ("pitch_range", pitch_range, 0, 99),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name} is {value}; espeak-ng takes {low} to {high}")
    engine = _engine()
    engine.select(voice)
    for parameter, value in (
        (_RATE, rate_wpm),
        (_VOLUME, _VOLUME_PERCENT),
        (_PITCH, pitch),
        (_RANGE, pitch_range),
        (_WORD_GAP, word_gap_ms // _GAP_UNIT_MS),
    ):
        engine.api.espeak_SetParameter(parameter, value, 0)
    return engine.samples(spoken_form(text, voice)), list(engine.words)


def spoken_form(text: str, voice: str) -> str:
    """The text as espeak-ng gets it.

    >>> spoken_form("b a d, not a light", "en-us+f2")
    'b eigh d, not a light'
    """
    return _LETTER_A.sub("eigh", text) if voice.startswith("en") else text


@functools.cache
def _engine() -> _Engine:
    return _Engine()


class _Engine:
    """The loaded library; one a process."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingExtra("speaking phrases", "synth") from error
        data = espeakng_loader.get_data_path()
        self.api: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self.api.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
        self.api.espeak_Info.restype = ctypes.c_char_p
        self.sample_rate: int = self.api.espeak_Initialize(
            _SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise UsageError(
                f"espeak-ng cannot read its data in {data}; install espeakng-loader again, in an "
                "environment whose path is shorter than about 120 characters"
            )
        self.version: str = self.api.espeak_Info(None).decode()
        self.voices = {voice.languages[0]: voice for voice in self._list()}
        self.variants = {file.name for file in Path(data, "voices", "!v").iterdir()}
        self._chunks: list[np.ndarray] = []
        self.words: list[tuple[int, int]] = []  # of the last text: place in it, millisecond
        self._callback = _ON_AUDIO(self._on_audio)  # kept: the library holds no reference
        self.api.espeak_SetSynthCallback(self._callback)

    def _list(self) -> Iterable[_Voice]:
        records = self.api.espeak_ListVoices(None)
        for index in itertools.count():
            if not records[index]:
                return
            record = records[index].contents
            yield _Voice(record.identifier.decode(), tuple(_languages(record.languages)))

    def _on_audio(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for index in itertools.count():
            event = events[index]
            if event.type == _LIST_TERMINATED:
                break
            if event.type == _WORD:
                self.words.append((event.text_position - 1, event.audio_position))
        return 0  # go on

    def select(self, name: str) -> None:
        """Make ``name`` the voice.

        Both parts are checked here: espeak-ng ignores a variant it does not know, does not
        find "en-gb" by that name, and then goes on with the voice it had.
        """
        code, plus, variant = name.partition("+")
        if code not in self.voices:
            _refuse("voice", code, self.voices)
        if plus and variant not in self.variants:
            _refuse("voice variant", variant, self.variants)
        full_name = self.voices[code].identifier + plus + variant
        if self.api.espeak_SetVoiceByName(full_name.encode()) != 0:
            raise UsageError(f"espeak-ng cannot load its voice {full_name}; choose another one")

    def samples(self, text: str) -> np.ndarray:
        self._chunks.clear()
        self.words.clear()
        data = text.encode()
        self.api.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        pcm = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return pcm.astype(np.float32) / 32768


def _languages(address: int) -> Iterable[str]:
    """espeak-ng's list of languages: a priority byte and a C string each, and a zero at the end."""
    while ctypes.c_ubyte.from_address(address).value:
        code = ctypes.string_at(address + 1)
        yield code.decode()
        address += len(code) + 2


def _refuse(what: str, name: str, known: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    hint = f"; near ones are {', '.join(near)}" if near else ""
    raise UsageError(f"espeak-ng has no {what} {name!r}{hint}")
