"""Features in NumPy: the definition that the TensorFlow graph and the device must match."""

from __future__ import annotations

from functools import cache

import numpy as np

from speechrnn.errors import AudioError
from speechrnn.specs import FeatureSpec


def features(waveform: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> (frames, dimension) float32, not normalised.

    log_mel: natural log of mel power. mfcc: its orthonormal DCT-II. log_spectrogram: natural
    log of the power in each FFT bin. frames = 1 + (samples - window) // hop, so a clip gives
    the same numbers alone, in a batch and on the device.

    Raises:
        AudioError: fewer samples than one window.
    """
    count = spec.frames(len(waveform))
    if count == 0:
        raise AudioError(
            f"{len(waveform)} samples; one window of {spec.window_ms} ms needs "
            f"{spec.window_samples}. Use a longer recording.",
            reason="too_short",
        )
    starts = spec.hop_samples * np.arange(count)
    frames = waveform[starts[:, None] + np.arange(spec.window_samples)]
    power = np.abs(np.fft.rfft(frames * hann(spec.window_samples), spec.fft_length)) ** 2
    if spec.kind == "log_spectrogram":
        return np.log(np.maximum(power, spec.floor)).astype(np.float32)
    log_mel = np.log(np.maximum(power @ mel_filters(spec), spec.floor))
    if spec.kind == "mfcc":
        log_mel = log_mel @ dct_matrix(spec.mels, spec.mfccs)
    return log_mel.astype(np.float32)


def hann(length: int) -> np.ndarray:
    """(length,) float32, the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@cache
def mel_filters(spec: FeatureSpec) -> np.ndarray:
    """(fft_length // 2 + 1, mels) float32: triangles of equal area on Slaney's mel scale.

    Slaney's scale (Auditory Toolbox, 1998) is linear below 1 kHz and logarithmic above;
    librosa's default, which a test compares with.
    """
    edges = _mel_to_hz(
        np.linspace(_hz_to_mel(spec.low_hz), _hz_to_mel(spec.high_hz), spec.mels + 2)
    )
    bins = np.linspace(0, spec.sample_rate / 2, spec.fft_length // 2 + 1)
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters = (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)
    filters.flags.writeable = False  # everyone has the same array
    return filters


def mel_edges(spec: FeatureSpec) -> np.ndarray:
    """(mels + 1,) Hz: where each mel band meets the next, half way on the mel scale."""
    mels = np.linspace(_hz_to_mel(spec.low_hz), _hz_to_mel(spec.high_hz), 2 * spec.mels + 3)
    return np.asarray(_mel_to_hz(mels[1::2]))


_BREAK_HZ, _BREAK_MEL = 1000.0, 15.0
_MEL_PER_HZ = _BREAK_MEL / _BREAK_HZ
_LOG_STEP = np.log(6.4) / 27  # 27 mel from 1 kHz to 6.4 kHz


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz * _MEL_PER_HZ
    return _BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel / _MEL_PER_HZ, above)


def dct_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(inputs, outputs) float32: the orthonormal DCT-II."""
    phase = np.pi / inputs * (np.arange(inputs)[:, None] + 0.5) * np.arange(outputs)
    scale = np.where(np.arange(outputs) == 0, np.sqrt(1 / inputs), np.sqrt(2 / inputs))
    return (np.cos(phase) * scale).astype(np.float32)
