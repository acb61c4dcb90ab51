"""Where a device file's symbols lie in time and how sure its words are, for its card.

    python pipelines/habits.py model.tflite data/an4/manifest.tsv            tell
    python pipelines/habits.py model.tflite data/an4/manifest.tsv --write    into the file too

`speechrnn export` does the same on the run's own dev recordings; this is for files that were
exported without them, or before it did.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from speechrnn import corpora
from speechrnn.corpora import recordings
from speechrnn.errors import DataError, SpeechRNNError
from speechrnn.export.habits import habits
from speechrnn.files import write_atomically
from speechrnn.runtime import Recognizer, container
from speechrnn.training.run import Recording


def main(model: Path, listed: str, split: str, write: bool) -> None:
    recogniser = Recognizer(model)
    rate = recogniser.spec.features.sample_rate
    spoken = [
        Recording(one.utterance_id, recordings.load(one, rate), one.text, one.speaker)
        for one in corpora.read(listed)
        if one.split == split
    ]
    if not spoken:
        raise DataError(f"{listed} has no split {split!r}")
    entries = habits(recogniser, spoken)
    for missing in sorted({"timing", "calibration"} - entries.keys()):
        print(f"no {missing}: too few recordings, or too few that the model understands")
    print(json.dumps(entries, indent=1))
    if write:
        write_atomically(model, container.with_card(model, **entries))
        print(f"{model} carries this now")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--write", action="store_true", help="put it into the file's card")
    given = parser.parse_args()
    try:
        main(given.model, given.manifest, given.split, given.write)
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
