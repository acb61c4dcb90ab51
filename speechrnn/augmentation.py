"""What a recipe's section ``augment`` can ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

try:
    from pydantic import Field, model_validator
except ImportError as error:  # the device side has no recipes
    from speechrnn.errors import MissingExtra

    raise MissingExtra("reading a recipe", "train") from error

from speechrnn.section import Ramp, Range, Section, constant


class Sometimes(Section):
    """A change that some utterances get. ``probability`` may change over a training."""

    probability: Ramp[float] = constant(0.5)  # the share of utterances that get it

    @model_validator(mode="after")
    def _possible(self) -> Any:
        require(self, "probability", 0, 1)
        return self


class BandSection(Sometimes):
    """Band-limiting, as microphones and codecs do it."""

    low_hz: Ramp[Range] = constant([0.0, 300.0])  # where the band begins
    high_hz: Ramp[Range] = constant([3400.0, 8000.0])  # where it ends

    @model_validator(mode="after")
    def _is_a_band(self) -> Any:
        require(self, "low_hz", 0, 1000)
        require(self, "high_hz", 1500, 1e5)
        return self


class NoiseSection(Sometimes):
    """Noise under the speech: recordings of it, or made on the spot."""

    folder: Path | None = None  # of recordings, folders in it too; without one noise is made
    snr_db: Ramp[Range] = constant([5.0, 30.0])  # speech, its pauses left out, over noise

    @model_validator(mode="after")
    def _audible(self) -> Any:
        require(self, "snr_db", -20, 100)
        return self


class BabbleSection(Sometimes):
    """Other utterances of the training split under the speech; labels stay those of the first."""

    snr_db: Ramp[Range] = constant([5.0, 20.0])  # over each voice
    voices: Annotated[int, Field(gt=0, le=16)] = 1  # other utterances at once

    @model_validator(mode="after")
    def _audible(self) -> Any:
        require(self, "snr_db", -20, 100)
        return self


class RoomSection(Sometimes):
    """Reverberation, by simulated rooms or by recorded impulse responses."""

    folder: Path | None = None  # of impulse responses; without one rooms are simulated
    rt60_s: Ramp[Range] = constant([0.1, 0.6])  # of simulated ones: until 60 dB are gone
    direct_db: Ramp[Range] = constant([0.0, 12.0])  # direct sound over all reflections

    @model_validator(mode="after")
    def _is_a_room(self) -> Any:
        require(self, "rt60_s", 0.01, 5)
        require(self, "direct_db", -20, 60)
        return self


class AugmentSection(Section):
    """Changes to the training audio, drawn anew for each utterance in each epoch, in this order.

    Ranges are of uniform draws. Ranges, and numbers with a decimal point, may be ramps.
    """

    speed: Ramp[Range] = constant([1.0, 1.0])  # playback rate; pitch moves with it
    tempo: Ramp[Range] = constant([1.0, 1.0])  # rate of speech; pitch stays
    pitch_cents: Ramp[Range] = constant([0.0, 0.0])  # length stays; 100 are a semitone
    room: RoomSection | None = None
    babble: BabbleSection | None = None
    noise: NoiseSection | None = None
    gain_db: Ramp[Range] = constant([0.0, 0.0])  # louder or softer
    band: BandSection | None = None
    telephone: Sometimes | None = None  # 8 kHz and G.711's mu-law
    frequency_masks: Annotated[int, Field(ge=0)] = 0  # SpecAugment: bands set to the mean
    frequency_mask_width: Ramp[float] = constant(15.0)  # feature dimensions at most
    time_masks: Annotated[int, Field(ge=0)] = 0  # SpecAugment: stretches set to the mean
    time_mask_ms: Ramp[float] = constant(100.0)  # at most
    time_mask_fraction: Ramp[float] = constant(0.2)  # of the utterance at most, for each mask

    @model_validator(mode="after")
    def _within_limits(self) -> AugmentSection:
        require(self, "speed", 0.5, 2)
        require(self, "tempo", 0.5, 2)
        require(self, "pitch_cents", -1200, 1200)
        require(self, "gain_db", -60, 60)
        require(self, "frequency_mask_width", 0, 1e4)
        require(self, "time_mask_ms", 0, 1e5)
        require(self, "time_mask_fraction", 0, 1)
        return self


def require(section: Section, name: str, least: float, most: float) -> None:
    """Raise ValueError unless a ramp rises within each range and stays within limits."""
    ramp = getattr(section, name)
    for value in (ramp.start, ramp.end):
        low, high = value if isinstance(value, tuple) else (value, value)
        shown = list(value) if isinstance(value, tuple) else value
        if low > high:
            raise ValueError(f"{name} is {shown}; the first must not exceed the second")
        if not least <= low <= high <= most:
            raise ValueError(f"{name} is {shown}; it must lie within {least:g} to {most:g}")
