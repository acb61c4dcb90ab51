"""What a device file writes of noise and music, and a limit to it that travels in its card.

    python pipelines/reject_noise.py model.tflite data/an4/manifest.tsv            the table alone
    python pipelines/reject_noise.py model.tflite data/an4/manifest.tsv --write    into the file too

The limit is tuned on the manifest's split dev and on 30 generated minutes without speech. The
table is of other minutes, other kinds of noise among them, and of the split's own recordings
backwards: nearly speech, and harder to tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from speechrnn import corpora
from speechrnn.corpora import noise, recordings
from speechrnn.decoding.rejection import Rejection
from speechrnn.errors import DataError, SpeechRNNError
from speechrnn.evaluation.rejection import FalseWords, false_words, tune
from speechrnn.files import write_atomically
from speechrnn.runtime import Recognizer, container

OTHER_SEED = 1234


def main(model: Path, listed: str, split: str, minutes: float, write: bool) -> None:
    recogniser = Recognizer(model, reject=False)
    rate = recogniser.spec.features.sample_rate
    utterances = [one for one in corpora.read(listed) if one.split == split]
    if not utterances:
        raise DataError(f"{listed} has no split {split!r}")
    waveforms = [recordings.load(one, rate) for one in utterances]
    texts = [one.text for one in utterances]
    tuned = tune(recogniser, zip(waveforms, texts, strict=True), minutes)

    def backwards() -> Iterator[tuple[str, np.ndarray]]:
        yield from (("speech backwards", waveform[::-1].copy()) for waveform in waveforms)

    other = noise.clips(2 * minutes, OTHER_SEED, rate)
    unseen = noise.clips(minutes, OTHER_SEED, rate, tuple(noise.OTHER_KINDS))
    rows = {
        f"{name}{mark}": found
        for clips, mark in ((other, ""), (unseen, " *"), (backwards(), " *"))
        for name, found in false_words(recogniser, tuned.most_doubt, clips).items()
    }
    Console().print(_table(rows))
    print(_summary(tuned))
    if write:
        write_atomically(model, container.with_card(model, rejection=tuned.to_dict()))
        print(f"{model} carries this now")


def _table(rows: dict[str, FalseWords]) -> Table:
    table = Table(title="words in an hour without speech; * kinds not tuned on")
    for column in ("", "written", "not rejected"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in rows.items():
        rates = (found.words / found.hours, found.passed / found.hours)
        table.add_row(name, *(f"{rate:.0f}" for rate in rates))
    return table


def _summary(tuned: Rejection) -> str:
    return (
        f"limit {tuned.most_doubt:.3f} nats a symbol: {tuned.dev_words_lost} of "
        f"{tuned.dev_words_right} right words lost; {tuned.false_words_per_hour_before:.0f} words "
        f"an hour of the noise tuned on become {tuned.false_words_per_hour:.0f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--minutes", type=float, default=30.0, help="of noise to tune on")
    parser.add_argument("--write", action="store_true", help="put the limit into the file's card")
    given = parser.parse_args()
    try:
        main(given.model, given.manifest, given.split, given.minutes, given.write)
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
