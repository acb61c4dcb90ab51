"""One utterance -> a picture: what the recogniser was given over what it made of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechrnn.errors import MissingExtra
from speechrnn.features.reference import features, mel_edges
from speechrnn.specs import FeatureSpec, RecogniserSpec
from speechrnn.text import BLANK

try:
    from librosa.display import specshow
    from matplotlib.figure import Figure
    from PIL import Image  # matplotlib writes its PNG with it
except ImportError as error:
    raise MissingExtra("pictures of utterances", "train") from error

DOTS_PER_INCH = 100
COLOURS = 192  # of the PNG: a third of the bytes, and no difference to be seen
SEEN = 0.05  # a symbol whose posterior never gets there has no line
_INCHES_PER_SECOND = 3.2
_MARGINS = (0.62, 0.08)  # inches left and right of the time axis
_HERTZ = (500, 1000, 2000, 4000)
_FEATURES_INCHES = (5.0, 1.9)
_COVER = "#7c8894"  # of masks: grey among the colours
_INCHES = (6.5, 30.0)  # narrowest and widest


@dataclass(frozen=True)
class Stretch:
    """A word between two times, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Picture:
    """A PNG of ``width`` times ``height`` pixels, whose time axis lies between ``left`` and
    ``right``, as shares of the width."""

    png: bytes
    width: int
    height: int
    left: float
    right: float


def picture(
    waveform: np.ndarray,
    log_probs: np.ndarray,
    spec: RecogniserSpec,
    said: Sequence[Stretch] = (),
    heard: Sequence[Stretch] = (),
) -> Picture:
    """A recording, its posteriors and the words said and heard, on one time axis that ends with
    the recording.

    Above the log-mel features with ``said`` over them, below the posteriors of the symbols that
    reach ``SEEN``, with ``heard``.

    Raises:
        AudioError: fewer samples than one window.
    """
    seconds = len(waveform) / spec.features.sample_rate
    rows = _rows(log_probs)
    width = float(np.clip(_INCHES_PER_SECOND * seconds, *_INCHES))
    lower = 0.35 + 0.16 * len(rows)
    height = 0.3 + 1.6 + 0.25 + lower + 0.45
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    left, right = _MARGINS[0] / width, 1 - _MARGINS[1] / width
    across = right - left
    above = figure.add_axes((left, (0.45 + lower + 0.25) / height, across, 1.6 / height))
    below = figure.add_axes((left, 0.45 / height, across, lower / height))
    levels = feature_levels(waveform, spec.features)
    _draw_features(above, waveform, spec.features, levels)
    _draw_posteriors(below, log_probs, rows, spec)
    for axes, words, colour in ((above, said, "#b00060"), (below, heard, "#0b5cad")):
        axes.set_xlim(0, seconds)
        _draw_words(axes, words, colour)
    above.tick_params(bottom=False, labelbottom=False)
    above.set_xlabel("")
    below.set_xlabel("seconds", fontsize=8, labelpad=1)
    return _drawn(figure, left, right)


def features_picture(
    waveform: np.ndarray,
    spec: FeatureSpec,
    seconds: float,
    levels: tuple[float, float],
    bands: Sequence[Sequence[int]] = (),
    stretches: Sequence[Sequence[int]] = (),
) -> Picture:
    """The log-mel features of a recording, on a time axis of ``seconds``; colours span ``levels``.

    ``bands`` of feature dimensions and ``stretches`` of frames, each from the first to behind the
    last, are covered, as masks cover them.

    Raises:
        AudioError: fewer samples than one window.
    """
    width, height = _FEATURES_INCHES
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    left, right = _MARGINS[0] / width, 1 - _MARGINS[1] / width
    axes = figure.add_axes((left, 0.42 / height, right - left, (height - 0.5) / height))
    _draw_features(axes, waveform, spec, levels)
    low, high = axes.get_ylim()
    end = spec.frames(len(waveform)) * spec.hop_ms / 1000
    edges = mel_edges(spec)
    for first, behind in bands:
        axes.axhspan(edges[first], edges[behind], 0, end / seconds, color=_COVER)
    for first, behind in stretches:
        times = np.array([first, behind]) * spec.hop_ms / 1000
        axes.axvspan(*times, color=_COVER)
    axes.set_ylim(low, high)
    axes.set_xlim(0, seconds)
    axes.set_xlabel("seconds", fontsize=8, labelpad=1)
    return _drawn(figure, left, right)


def _rows(log_probs: np.ndarray) -> list[int]:
    """The labels that are worth a line: the blank at the bottom, then those seen."""
    seen = np.flatnonzero(np.exp(log_probs).max(axis=0, initial=0.0) >= SEEN)
    return [BLANK, *(int(label) for label in seen if label != BLANK)]


def feature_levels(waveform: np.ndarray, spec: FeatureSpec) -> tuple[float, float]:
    """The log-mel power of a recording's quietest and loudest parts, which colours span."""
    log_mel = features(waveform, _shown(spec))
    return float(np.percentile(log_mel, 5)), float(log_mel.max())


def _shown(spec: FeatureSpec) -> FeatureSpec:
    """Log-mel power, whatever features the model takes: 10 ms and 80 bands tell people most."""
    return FeatureSpec(
        sample_rate=spec.sample_rate,
        window_ms=spec.window_ms,
        hop_ms=spec.hop_ms,
        fft_length=spec.fft_length,
        low_hz=spec.low_hz,
        high_hz=spec.high_hz,
        floor=spec.floor,
    )


def _draw_features(  # type: ignore[no-untyped-def]
    axes, waveform: np.ndarray, spec: FeatureSpec, levels: tuple[float, float]
) -> None:
    shown = _shown(spec)
    log_mel = features(waveform, shown).T
    specshow(
        log_mel,
        sr=spec.sample_rate,
        hop_length=shown.hop_samples,
        fmin=spec.low_hz,
        fmax=spec.high_hz,
        x_axis="s",
        y_axis="mel",
        ax=axes,
        cmap="magma",
        vmin=levels[0],
        vmax=levels[1],
        rasterized=True,
    )
    axes.set_ylabel("")
    marks = [hertz for hertz in _HERTZ if spec.low_hz <= hertz <= spec.high_hz]
    axes.set_yticks(marks, [f"{hertz} Hz" for hertz in marks])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)


def _draw_posteriors(  # type: ignore[no-untyped-def]
    axes, log_probs: np.ndarray, rows: Sequence[int], spec: RecogniserSpec
) -> None:
    shown = np.exp(log_probs[:, rows]).T
    end = len(log_probs) * spec.seconds_per_output_frame
    axes.imshow(
        shown,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(0, end, -0.5, len(rows) - 0.5),
    )
    names = ["blank" if label == BLANK else _name(spec, label) for label in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(labelsize=8, left=False)
    axes.tick_params(axis="y", pad=2)


def _name(spec: RecogniserSpec, label: int) -> str:
    symbol = spec.alphabet.symbols[label - 1]
    return "space" if symbol == " " else _plain(symbol)


def _plain(text: str) -> str:
    """Text in which no dollar starts matplotlib's formulas."""
    return text.replace("$", r"\$")


def _draw_words(axes, words: Sequence[Stretch], colour: str) -> None:  # type: ignore[no-untyped-def]
    """Each word over the axes, and a line where it starts."""
    for word in words:
        axes.axvline(word.start_s, color=colour, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.annotate(
            _plain(word.text),
            (word.start_s, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )


def _drawn(figure: Figure, left: float, right: float) -> Picture:
    drawn, written = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the words stand beside the picture.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        reduced = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        reduced.save(written, format="PNG", optimize=True)
        return Picture(written.getvalue(), *image.size, left, right)
