"""What a telephone line costs a model: a split as it was recorded, and over 8 kHz and mu-law.

    python pipelines/telephone.py runs/an4_telephone data/an4/manifest.tsv
    python pipelines/telephone.py model.tflite mine.tsv --split eval --output runs/telephone

The line is not the one that training simulates: soxr resamples to 8 kHz, a Butterworth filter of
order 8 passes 300 to 3400 Hz, libsndfile codes by G.711, and soxr resamples back to the model's
rate. The copies and their manifest stay in --output. Ends with 1 where the telephone costs more
than --most points of word error rate.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal

from speechrnn import audio, corpora
from speechrnn.corpora import manifest, recordings
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import DataError, SpeechRNNError
from speechrnn.evaluation.compare import Comparison, Result, compare
from speechrnn.evaluation.evaluate import Evaluation, evaluate
from speechrnn.runtime import open_model

LINE_HZ = 8000
BAND_HZ = (300, 3400)


def over_the_telephone(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> what arrives, as long and at the same rate."""
    line = soxr.resample(waveform, sample_rate, LINE_HZ)
    line = signal.sosfilt(signal.butter(8, BAND_HZ, "bandpass", fs=LINE_HZ, output="sos"), line)
    coded = io.BytesIO()
    soundfile.write(coded, np.clip(line, -1, 1), LINE_HZ, format="WAV", subtype="ULAW")
    coded.seek(0)
    heard = soxr.resample(soundfile.read(coded, dtype="float32")[0], LINE_HZ, sample_rate)
    return np.pad(heard, (0, max(0, len(waveform) - len(heard))))[: len(waveform)]


Change = Callable[[np.ndarray, int], np.ndarray]  # a waveform and its rate -> another waveform


def copies(
    utterances: Sequence[Utterance],
    folder: Path,
    sample_rate: int,
    change: Change = over_the_telephone,
) -> Path:
    """Write each recording as ``change`` leaves it, and their manifest, which is returned.

    Raises:
        AudioError: a recording cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, utterance in enumerate(utterances):
        heard = change(recordings.load(utterance, sample_rate), sample_rate)
        path = folder / f"{number:06d}.flac"
        soundfile.write(path, audio.to_pcm16(heard), sample_rate)
        written.append(replace(utterance, path=path, within=None))
    listed = folder / "manifest.tsv"
    manifest.write(listed, written)
    return listed


def compared(wide: Evaluation, narrow: Evaluation) -> Comparison:
    """Utterance by utterance, as ``speechrnn compare`` does."""
    one, other = (
        Result(
            name,
            found.rates.to_dict()["normalisation"],
            {score.utterance_id: score for score in found.rates.scores},
        )
        for name, found in (("full band", wide), ("telephone", narrow))
    )
    return compare(one, other)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a run directory, a SavedModel or a .tflite")
    parser.add_argument("manifest", help="any corpus of docs/corpora.md")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--output", type=Path, default=Path("runs/telephone"))
    parser.add_argument("--most", type=float, default=5.0, help="points of WER (default 5)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    recogniser = open_model(arguments.model)
    rate = recogniser.spec.features.sample_rate
    wide = [u for u in corpora.read(arguments.manifest) if u.split == arguments.split]
    if not wide:
        raise DataError(f"{arguments.manifest} has no split {arguments.split!r}")
    narrow = manifest.read(copies(wide, arguments.output / arguments.split, rate))
    found = [evaluate(recogniser, utterances) for utterances in (wide, narrow)]
    comparison = compared(*found)
    cost = comparison.wer_b - comparison.wer_a
    low, high = (-bound for bound in reversed(comparison.improvement_ci95))
    if arguments.json:
        rates = {
            name: each.rates.summary()
            for name, each in zip(("full_band", "telephone"), found, strict=True)
        }
        print(json.dumps({**rates, "cost": cost, "cost_ci95": [low, high]}))
    else:
        for name, each in zip(("full band", "telephone"), found, strict=True):
            bounds = " to ".join(f"{100 * bound:.1f}" for bound in each.rates.wer_ci95)
            print(f"{name}: WER {each.rates.wer:.1%} ({bounds})")
        print(
            f"{len(wide)} tried: the telephone costs {100 * cost:.1f} points "
            f"({100 * low:.1f} to {100 * high:.1f})"
        )
    return int(100 * cost > arguments.most)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
