"""Faster or slower, higher or lower."""

from __future__ import annotations

import numpy as np
import soxr

_COARSE = 4  # samples to a step of the first search for what goes on best


def change_speed(waveform: np.ndarray, rate: float) -> np.ndarray:
    """(samples,) played ``rate`` times as fast -> (floor(samples / rate),) float32.

    1.1 is shorter and higher, as a tape that runs faster. soxr's HQ resampling: tones that are
    below 0.9 of half the sample rate before and after keep their level, to 0.01 dB, and what
    would fold back is 100 dB down.
    """
    if rate == 1:
        return waveform
    length = int(len(waveform) / rate)
    return fit(soxr.resample(waveform, rate, 1.0, quality="HQ"), length)


def fit(waveform: np.ndarray, length: int) -> np.ndarray:
    """Cut, or followed by silence, to ``length`` samples."""
    if len(waveform) >= length:
        return waveform[:length]
    return np.concatenate([waveform, np.zeros(length - len(waveform), waveform.dtype)])


def change_tempo(waveform: np.ndarray, rate: float, sample_rate: int) -> np.ndarray:
    """(samples,) spoken ``rate`` times as fast, pitch kept -> (floor(samples / rate),) float32.

    WSOLA (Verhelst and Roelands, ICASSP 1993): windows of 40 ms are taken from where the faster
    reading is, give or take 10 ms, just so that each goes on as the one before it would have.
    A tone keeps its pitch to a few cents.
    """
    if rate == 1:
        return waveform
    length = int(len(waveform) / rate)
    hop, reach = int(0.02 * sample_rate), int(0.01 * sample_rate)
    ahead = hop + reach
    padded = np.pad(waveform, (ahead, 3 * hop + 2 * reach))
    # Where the window centred at output sample k * hop is to begin, in padded samples.
    wanted = ahead - hop + np.rint(np.arange(length // hop + 2) * hop * rate).astype(int)
    wanted = np.minimum(wanted, len(padded) - 2 * hop - reach - 2 * _COARSE)
    starts = _going_on(padded, wanted, hop, reach)
    window = np.float32(0.5) - np.float32(0.5) * np.cos(
        np.arange(2 * hop, dtype=np.float32) * np.float32(np.pi / hop)
    )
    windows = padded[starts[:, None] + np.arange(2 * hop)] * window
    return (windows[:-1, hop:] + windows[1:, :hop]).reshape(-1)[:length]


def _going_on(padded: np.ndarray, wanted: np.ndarray, hop: int, reach: int) -> np.ndarray:
    """Starts within ``reach`` of those wanted, whose ``hop`` samples are most like what follows
    the window before: the greatest cosine between the two, looked for among means of four
    samples and then sample by sample around the best."""
    coarse = padded[: len(padded) // _COARSE * _COARSE].reshape(-1, _COARSE).mean(axis=1)
    per_norm, per_coarse = _per_norm(padded, hop), _per_norm(coarse, hop // _COARSE)
    starts = wanted.tolist()
    for k in range(1, len(starts)):
        follows = starts[k - 1] + hop
        low = max(0, starts[k] - reach) // _COARSE
        place, size = follows // _COARSE, hop // _COARSE
        among = coarse[low : low + 2 * reach // _COARSE + size]
        near = low + _most_alike(among, coarse[place : place + size], per_coarse[low:])
        first = max(0, near * _COARSE + follows % _COARSE - _COARSE)
        among = padded[first : first + 2 * _COARSE + hop]
        expected = padded[follows : follows + hop]
        starts[k] = first + _most_alike(among, expected, per_norm[first:])
    return np.array(starts)


def _per_norm(waveform: np.ndarray, size: int) -> np.ndarray:
    """1 over the norm of the ``size`` samples from each one on."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    power = energy[size:] - energy[:-size]
    return (1 / np.sqrt(power.clip(1e-10))).astype(np.float32)


def _most_alike(among: np.ndarray, expected: np.ndarray, per_norm: np.ndarray) -> int:
    likeness = np.correlate(among, expected, "valid")
    return int((likeness * per_norm[: len(likeness)]).argmax())


def change_pitch(waveform: np.ndarray, cents: float, sample_rate: int) -> np.ndarray:
    """(samples,) -> as long and as fast, ``cents`` hundredths of a semitone higher, float32."""
    factor = 2.0 ** (cents / 1200)
    slow = change_tempo(waveform, 1 / factor, sample_rate)
    return fit(change_speed(slow, factor), len(waveform))
