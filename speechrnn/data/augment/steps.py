"""The changes of a recipe's ``augment`` section, in the order of what happens to speech: how it is
spoken, the room, the microphone, the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from speechrnn.augmentation import AugmentSection, BandSection, Sometimes
from speechrnn.data.augment.channel import band_limit, telephone
from speechrnn.data.augment.time_scale import change_speed
from speechrnn.section import Ramp, Range


@dataclass(frozen=True)
class Moment:
    """Where a step is: the epoch, its own random numbers, and the fewest samples that leave the
    utterance's labels enough frames."""

    epoch: int
    draws: np.random.Generator
    least: int

    def draw(self, ramp: Ramp[Range]) -> float:
        """Uniform from the epoch's range."""
        return float(self.draws.uniform(*ramp.at(self.epoch)))

    def happens(self, section: Sometimes) -> bool:
        """Whether this utterance gets what only some get."""
        return self.draws.random() < section.probability.at(self.epoch)


Changed = tuple[np.ndarray, str]  # the waveform, and what was done in words: "" for nothing
Step = Callable[[np.ndarray, Moment], Changed]


def steps(section: AugmentSection, sample_rate: int) -> Iterator[tuple[str, Step]]:
    """The steps that a section switches on, by the names of its keys, in their order."""
    if not section.speed.never_leaves((1, 1)):
        yield "speed", lambda waveform, moment: _speed(waveform, moment, section.speed)
    if not section.gain_db.never_leaves((0, 0)):
        yield "gain_db", lambda waveform, moment: _gain(waveform, moment, section.gain_db)
    if (band := section.band) is not None:
        yield "band", lambda waveform, moment: _band(waveform, moment, band, sample_rate)
    if (line := section.telephone) is not None:
        yield "telephone", lambda waveform, moment: _telephone(waveform, moment, line, sample_rate)


def _speed(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range]) -> Changed:
    rate = moment.draw(ramp)
    if int(len(waveform) / rate) < moment.least:
        return waveform, ""
    return change_speed(waveform, rate), f"{rate:.3f} times as fast"


def _gain(waveform: np.ndarray, moment: Moment, ramp: Ramp[Range]) -> Changed:
    decibels = moment.draw(ramp)
    return waveform * np.float32(10 ** (decibels / 20)), f"{decibels:+.1f} dB"


def _band(waveform: np.ndarray, moment: Moment, section: BandSection, sample_rate: int) -> Changed:
    low, high = moment.draw(section.low_hz), moment.draw(section.high_hz)
    if not moment.happens(section):
        return waveform, ""
    return band_limit(waveform, sample_rate, low, high), f"{low:.0f} to {high:.0f} Hz"


def _telephone(
    waveform: np.ndarray, moment: Moment, section: Sometimes, sample_rate: int
) -> Changed:
    if not moment.happens(section):
        return waveform, ""
    return telephone(waveform, sample_rate), "8 kHz, mu-law"
