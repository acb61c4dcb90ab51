"""How far a device file's word times are from the truth, on synthetic speech.

    python pipelines/word_times.py runs/quickstart/quickstart-int8.tflite

espeak-ng knows when it begins each word. It speaks the quickstart's test phrases with the test
voices; the words' beginnings by their transcripts, and by what the model hears itself where that
is all right, are compared with its own, with and without the correction in the file's card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from quickstart_phrases import phrases
from rich.console import Console
from rich.progress import track
from rich.table import Table

from speechrnn.corpora import synth
from speechrnn.errors import ModelError, SpeechRNNError
from speechrnn.runtime import Recognizer
from speechrnn.runtime.results import RAW

SEED = 1  # the quickstart's


def main(model: Path, split: str) -> None:
    corrected, raw = Recognizer(model), Recognizer(model)
    if corrected.habits.timing is None:
        raise ModelError(
            f"{model} has no timing in its card; pipelines/habits.py --write gives one"
        )
    raw.habits = RAW
    forms = {"corrected": corrected, "first symbol": raw}
    errors: dict[tuple[str, str], list[float]] = {}
    style, voices = synth.Style(), synth.cast("en-us")
    takes = synth.plan(phrases(SEED), voices, per_phrase=1, seed=SEED, style=style)
    chosen = [take for take in takes if take.split == split]
    for take in track(chosen, console=Console(stderr=True)):
        waveform, truth = synth.render_with_times(take)
        for name, recogniser in forms.items():
            heard = recogniser.transcribe(waveform)
            ways = {"transcript": recogniser.align(waveform, take.text).words}
            if heard.text == take.text:
                ways["heard"] = heard.words
            for way, words in ways.items():
                errors.setdefault((way, name), []).extend(
                    word.start_s - start
                    for word, (_, start) in zip(words, truth, strict=True)
                    if start is not None
                )
    Console().print(_table(errors))


def _table(errors: dict[tuple[str, str], list[float]]) -> Table:
    table = Table(title="beginnings of words, ms from espeak-ng's own")
    for column in ("from", "time", "words", "median", "90 % within", "half later by"):
        table.add_column(column, justify="left" if column in ("from", "time") else "right")
    for (way, name), found in sorted(errors.items()):
        distances = np.abs(found)
        figures = (np.median(distances), np.quantile(distances, 0.9), np.median(found))
        table.add_row(way, name, str(len(found)), *(f"{1000 * value:.0f}" for value in figures))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--split", default="test", help="of the quickstart's phrases and voices")
    given = parser.parse_args()
    try:
        main(given.model, given.split)
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
