"""The changes of a recipe's ``augment`` section, in the order of what happens to speech: how it is
spoken, the room, what else sounds in it, the microphone, the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from speechrnn.augmentation import (
    AugmentSection,
    BabbleSection,
    BandSection,
    NoiseSection,
    RoomSection,
    Sometimes,
)
from speechrnn.corpora.noise import KINDS
from speechrnn.data.augment import noise
from speechrnn.data.augment.channel import band_limit, telephone
from speechrnn.data.augment.room import reverberate, simulated
from speechrnn.data.augment.time_scale import change_pitch, change_speed, change_tempo
from speechrnn.section import Ramp, Range

SPEED_STEPS = 500  # in a rate of 1
# Of the noises that can be made, those that take little time; chords take ten times as much.
MADE = ("white", "pink", "brown", "fan", "hum", "clicks", "drums", "sweeps", "melody")


@dataclass(frozen=True)
class Moment:
    """Where a step is: the epoch, the utterance's key, random numbers of its own, and the fewest
    samples that leave the utterance's labels enough frames."""

    epoch: int
    key: int
    draws: np.random.Generator
    least: int

    def draw(self, ramp: Ramp[Range]) -> float:
        """Uniform from the epoch's range."""
        return float(self.draws.uniform(*ramp.at(self.epoch)))

    def happens(self, section: Sometimes) -> bool:
        """Whether this utterance gets what only some get."""
        return self.draws.random() < section.probability.at(self.epoch)


class Sounds(Protocol):
    """Recordings, (samples,) int16 each, of any level."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> np.ndarray: ...


class Voices(Protocol):
    """Other utterances: how many, and of each its key and its (samples,) float32."""

    @property
    def size(self) -> int: ...

    def key(self, number: int) -> int: ...

    def waveform(self, number: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Surroundings:
    """What a training has at hand to mix with speech."""

    noises: Sounds = ()
    responses: Sounds = ()
    voices: Voices | None = None


Changed = tuple[np.ndarray, str]  # the waveform, and what was done in words: "" for nothing
Step = Callable[[np.ndarray, Moment], Changed]


def steps(section: AugmentSection, rate: int, around: Surroundings) -> Iterator[tuple[str, Step]]:
    """The steps that a section switches on, by the names of its keys, in their order.

    Args:
        rate: samples a second.
    """
    if not section.speed.never_leaves((1, 1)):
        yield "speed", lambda wave, moment: _speed(wave, moment, section.speed)
    if not section.tempo.never_leaves((1, 1)):
        yield "tempo", lambda wave, moment: _tempo(wave, moment, section.tempo, rate)
    if not section.pitch_cents.never_leaves((0, 0)):
        yield "pitch_cents", lambda wave, moment: _pitch(wave, moment, section.pitch_cents, rate)
    if (room := section.room) is not None:
        yield "room", lambda wave, moment: _room(wave, moment, room, rate, around.responses)
    if (babble := section.babble) is not None and (voices := around.voices) is not None:
        yield "babble", lambda wave, moment: _babble(wave, moment, babble, rate, voices)
    if (noisy := section.noise) is not None:
        yield "noise", lambda wave, moment: _noise(wave, moment, noisy, rate, around.noises)
    if not section.gain_db.never_leaves((0, 0)):
        yield "gain_db", lambda wave, moment: _gain(wave, moment, section.gain_db)
    if (band := section.band) is not None:
        yield "band", lambda wave, moment: _band(wave, moment, band, rate)
    if (line := section.telephone) is not None:
        yield "telephone", lambda wave, moment: _telephone(wave, moment, line, rate)


def _speed(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range]) -> Changed:
    # Ratios of small numbers take soxr half the time of others.
    factor = round(moment.draw(ramp) * SPEED_STEPS) / SPEED_STEPS
    if int(len(waveform) / factor) < moment.least:
        return waveform, ""
    return change_speed(waveform, factor), f"{factor:.3f} times as fast"


def _tempo(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range], rate: int) -> Changed:
    factor = moment.draw(ramp)
    if int(len(waveform) / factor) < moment.least:
        return waveform, ""
    return change_tempo(waveform, factor, rate), f"{factor:.3f} times as fast, at its pitch"


def _pitch(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range], rate: int) -> Changed:
    cents = moment.draw(ramp)
    return change_pitch(waveform, cents, rate), f"{cents:+.0f} cents"


def _room(
    waveform: np.ndarray,
    moment: Moment,
    section: RoomSection,
    rate: int,
    responses: Sounds,
) -> Changed:
    if not moment.happens(section):
        return waveform, ""
    if len(responses):
        number = int(moment.draws.integers(len(responses)))
        response = responses[number].astype(np.float32)
        return reverberate(waveform, response, rate), f"impulse response {number + 1}"
    rt60, direct = moment.draw(section.rt60_s), moment.draw(section.direct_db)
    response = simulated(rt60, direct, rate, moment.draws)
    words = f"RT60 {rt60:.2f} s, direct sound {direct:+.1f} dB over reflections"
    return reverberate(waveform, response, rate), words


def _babble(
    waveform: np.ndarray, moment: Moment, section: BabbleSection, rate: int, voices: Voices
) -> Changed:
    count = voices.size
    if not moment.happens(section) or count < 2:
        return waveform, ""
    power, mixed, levels = noise.active_power(waveform, rate), waveform, []
    for _ in range(section.voices):
        snr, number = moment.draw(section.snr_db), int(moment.draws.integers(count))
        if voices.key(number) == moment.key:  # itself would be an echo
            number = (number + 1) % count
        other = voices.waveform(number)
        start = int(moment.draws.integers(len(other)))
        heard = noise.excerpt(other, len(waveform), start)
        mixed = noise.mix(mixed, heard, snr, power, noise.active_power(other, rate))
        levels.append(f"{snr:.1f}")
    return mixed, f"another voice {' and '.join(levels)} dB below"


def _noise(
    waveform: np.ndarray,
    moment: Moment,
    section: NoiseSection,
    rate: int,
    noises: Sounds,
) -> Changed:
    if not moment.happens(section):
        return waveform, ""
    snr = moment.draw(section.snr_db)
    if len(noises):
        number = int(moment.draws.integers(len(noises)))
        start = int(moment.draws.integers(len(noises[number])))
        heard = noise.excerpt(noises[number], len(waveform), start) * np.float32(1 / 32768)
        name = f"recording {number + 1}"
    else:
        name = str(moment.draws.choice(MADE))
        # Of a second at least: some kinds are none in a few samples.
        made = KINDS[name](moment.draws, max(len(waveform), rate), rate)
        heard = made[: len(waveform)].astype(np.float32)
    over = float(np.vdot(heard, heard)) / len(heard)
    mixed = noise.mix(waveform, heard, snr, noise.active_power(waveform, rate), over)
    return mixed, f"{name}, {snr:.1f} dB below"


def _gain(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range]) -> Changed:
    decibels = moment.draw(ramp)
    return waveform * np.float32(10 ** (decibels / 20)), f"{decibels:+.1f} dB"


def _band(waveform: np.ndarray, moment: Moment, section: BandSection, rate: int) -> Changed:
    if not moment.happens(section):
        return waveform, ""
    low, high = moment.draw(section.low_hz), moment.draw(section.high_hz)
    return band_limit(waveform, rate, low, high), f"{low:.0f} to {high:.0f} Hz"


def _telephone(waveform: np.ndarray, moment: Moment, section: Sometimes, rate: int) -> Changed:
    if not moment.happens(section):
        return waveform, ""
    return telephone(waveform, rate), "8 kHz, mu-law"
