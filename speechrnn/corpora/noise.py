"""What is not speech, made on the spot: noises and music, to see what a recogniser makes of them.

NumPy only, and the same for the same seed. None of it is a recording: rooms, streets and
orchestras have more than this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

CLIP_SECONDS = 10.0
LEVELS_DB = (-50.0, -10.0)  # root mean square below full scale, evenly between
SEMITONE = 2 ** (1 / 12)

# (generator, samples, sample rate) -> (samples,), of any level
Kind = Callable[[np.random.Generator, int, int], np.ndarray]


def coloured(slope: float) -> Kind:
    """Noise whose power falls with this power of the frequency: 0 white, 1 pink, 2 brown."""

    def kind(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
        hertz = np.fft.rfftfreq(samples, 1 / rate)
        return _shaped(rng, samples, np.maximum(hertz, 20.0) ** (-slope / 2))

    return kind


def hum(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Mains: 50 or 60 Hz and its harmonics, over a little noise."""
    phase = 2 * np.pi * rng.choice([50, 60]) * np.arange(samples) / rate
    harmonics = sum(
        rng.uniform(0, 1) / k * np.sin(k * phase + rng.uniform(0, 6)) for k in range(1, 12)
    )
    return harmonics + rng.normal(0, 0.02, samples)


def clicks(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Switches and keys: decaying bursts of 1 to 10 ms, a few a second."""
    wave = rng.normal(0, 0.002, samples)
    for start in _times(rng, samples, rate, per_second=rng.uniform(1, 8)):
        decay = rng.uniform(0.001, 0.01) * rate
        _add(wave, start, rng.normal(size=round(5 * decay)) * _decay(round(5 * decay), decay))
    return wave


def fan(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Air: a band of noise with the blades' beat in it."""
    centre, width = rng.uniform(200, 1500), rng.uniform(200, 1500)
    hertz = np.fft.rfftfreq(samples, 1 / rate)
    air = _shaped(rng, samples, np.exp(-(((hertz - centre) / width) ** 2)) + 0.01)
    beat = np.sin(2 * np.pi * rng.uniform(5, 40) * np.arange(samples) / rate)
    return air * (1 + rng.uniform(0, 0.5) * beat)


def drums(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Falling thumps on a beat, noise bursts between them."""
    wave, beat = rng.normal(0, 0.001, samples), rng.uniform(0.2, 0.6)
    time = np.arange(round(0.3 * rate)) / rate
    for number in range(int(samples / rate / beat) + 1):
        if number % 2 == 0:
            sound = np.sin(2 * np.pi * (60 * time + 20 * (1 - np.exp(-time / 0.05))))
            sound = sound * np.exp(-time / 0.1)
        else:
            sound = rng.normal(0, 0.5, len(time)) * np.exp(-time / rng.uniform(0.02, 0.1))
        _add(wave, round(number * beat * rate), sound)
    return wave


def sweeps(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Tones that glide between 100 and 6000 Hz, one after another."""
    corners = np.exp(rng.uniform(np.log(100), np.log(0.375 * rate), samples // rate + 2))
    hertz = np.interp(np.arange(samples) / rate, np.arange(len(corners)), corners)
    return np.sin(2 * np.pi * np.cumsum(hertz) / rate) + rng.normal(0, 0.002, samples)


def music(voices: int) -> Kind:
    """Notes of a major scale, so many at once, each with harmonics and a decay: 1 is a melody."""

    def kind(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
        wave, key = rng.normal(0, 0.001, samples), rng.integers(12)
        start, brightness = 0, rng.uniform(1, 2.5)
        while start < samples:
            seconds = rng.choice([0.15, 0.3, 0.6, 1.2])
            for _ in range(voices):
                step = rng.choice([0, 2, 4, 5, 7, 9, 11]) + 12 * rng.integers(3)
                hertz = 110 * SEMITONE ** (key + step)
                _add(wave, start, _note(hertz, 2 * seconds, seconds, brightness, rate))
            start += round(seconds * rate)
        return wave

    return kind


def bells(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Struck metal: partials that are no harmonics, ringing for a second or more."""
    wave = rng.normal(0, 0.001, samples)
    for start in _times(rng, samples, rate, per_second=1.0):
        base, time = rng.uniform(200, 1200), np.arange(2 * rate) / rate
        for ratio in (1, 2.76, 5.4, 8.93):
            if base * ratio < rate / 2:
                ring = np.exp(-time * ratio / rng.uniform(0.3, 1.5))
                _add(wave, start, np.sin(2 * np.pi * base * ratio * time) * ring / ratio)
    return wave


def rain(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Drops by the hundred, each a short high ping, over hiss."""
    wave = coloured(0.5)(rng, samples, rate) * 0.3
    for start in _times(rng, samples, rate, per_second=150):
        time = np.arange(round(0.008 * rate)) / rate
        ping = np.sin(2 * np.pi * rng.uniform(1000, min(6000, 0.4 * rate)) * time) * np.exp(
            -time / 0.002
        )
        _add(wave, start, rng.exponential() * ping)
    return wave


def rustle(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Paper and cloth: high noise that swells and stops at the pace of syllables."""
    hertz = np.fft.rfftfreq(samples, 1 / rate)
    air = _shaped(rng, samples, hertz / (hertz + 2000))
    slow = _shaped(rng, samples, np.exp(-((hertz / rng.uniform(2, 8)) ** 2)))
    return air * np.maximum(0, slow / slow.std()) ** 2 + rng.normal(0, 1e-3, samples)


def siren(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """A harmonic tone that wails up and down between 400 and 1500 Hz."""
    time = np.arange(samples) / rate
    hertz = 950 + 550 * np.sin(2 * np.pi * rng.uniform(0.2, 4) * time)
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    return np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)


KINDS: dict[str, Kind] = {
    "white": coloured(0),
    "pink": coloured(1),
    "brown": coloured(2),
    "hum": hum,
    "clicks": clicks,
    "fan": fan,
    "drums": drums,
    "sweeps": sweeps,
    "melody": music(1),
    "chords": music(4),
}
# Of other makings, for those who measure what was tuned on the former.
OTHER_KINDS: dict[str, Kind] = {"bells": bells, "rain": rain, "rustle": rustle, "siren": siren}


def clips(
    minutes: float,
    seed: int,
    sample_rate: int = 16_000,
    kinds: Sequence[str] = tuple(KINDS),
) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, (samples,) float32 in [-1, 1]) clips of ten seconds for at least so many minutes.

    The kinds take turns; each clip has a level of its own.
    """
    makers, samples = {**KINDS, **OTHER_KINDS}, round(CLIP_SECONDS * sample_rate)
    for number in range(int(np.ceil(60 * minutes / CLIP_SECONDS))):
        name = kinds[number % len(kinds)]
        rng = np.random.default_rng([seed, number])
        wave = makers[name](rng, samples, sample_rate)
        level = 10 ** (rng.uniform(*LEVELS_DB) / 20)
        wave = wave * (level / np.sqrt(np.mean(wave**2)))
        yield name, np.clip(wave, -1, 1).astype(np.float32)


def _shaped(rng: np.random.Generator, samples: int, response: np.ndarray) -> np.ndarray:
    """Noise with this magnitude at each frequency of ``rfftfreq``, of root mean square 1."""
    wave = np.fft.irfft(np.fft.rfft(rng.normal(size=samples)) * response, samples)
    return wave / wave.std()


def _times(rng: np.random.Generator, samples: int, rate: int, per_second: float) -> np.ndarray:
    """Samples at which something begins, at random."""
    return rng.integers(0, samples, rng.poisson(per_second * samples / rate))


def _add(wave: np.ndarray, start: int, sound: np.ndarray) -> None:
    part = wave[start : start + len(sound)]
    part += sound[: len(part)]


def _decay(samples: int, constant: float) -> np.ndarray:
    return np.exp(-np.arange(samples) / constant)


def _note(hertz: float, seconds: float, decay: float, brightness: float, rate: int) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    harmonics = [k for k in range(1, 12) if k * hertz < rate / 2]
    tone = sum(np.sin(2 * np.pi * k * hertz * time) / k**brightness for k in harmonics)
    return tone * np.exp(-time / decay) * np.minimum(1, time / 0.01)
