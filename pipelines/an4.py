"""CMU AN4, from the recordings to a file for the device.

    python pipelines/an4.py                         downloads AN4 (64 MB) to ./data
    python pipelines/an4.py --data FOLDER           an unpacked an4_sphere.tar.gz, or a manifest
    python pipelines/an4.py training.epochs=5       any value of configs/an4.yaml
    python pipelines/an4.py --recipe configs/an4_lookahead.yaml      a model that streams

Where the environment variable SPEECHRNN_DATA names a folder with an4/manifest.tsv, that is
used and nothing is downloaded. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import decoding
from end_to_end import console, score, train_and_export, write_summary

from speechrnn import recipe
from speechrnn.corpora import an4
from speechrnn.errors import SpeechRNNError
from speechrnn.runtime import open_model

CONFIG = Path(__file__).parent.parent / "configs" / "an4.yaml"


def find_manifest(data: Path | None) -> Path:
    """The manifest named, found through SPEECHRNN_DATA, or made from a download."""
    if data is None and "SPEECHRNN_DATA" in os.environ:
        at_hand = Path(os.environ["SPEECHRNN_DATA"]) / "an4" / "manifest.tsv"
        data = at_hand if at_hand.is_file() else None
    if data is None:
        data = an4.download(Path("data"))
    if data.is_file():
        return data
    return an4.build_manifest(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--recipe", type=Path, default=CONFIG, help="default: AN4's")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    started = time.perf_counter()
    source = f"data.manifest={find_manifest(arguments.data)}"
    loaded = recipe.load(arguments.recipe, [source, *arguments.overrides])
    forms = train_and_export(loaded)
    summary = score(loaded, forms, split="dev")
    console.rule("6. Lexicon and 3-gram of the training transcripts")
    recogniser = open_model(forms["int8"], decoder=None)
    corpus = decoding.read(Path(loaded.data.manifest), "dev", recogniser)
    searches = decoding.measure(recogniser, corpus, loaded.output / "decoded")
    summary["searches"] = {row["name"]: row["wer"] for row in searches}
    summary["wall_seconds"] = time.perf_counter() - started
    write_summary(loaded, summary)
    print(
        f"AN4 dev (this project's split): WER {summary['wer']:.1%}, CER {summary['cer']:.1%}; with "
        f"lexicon and 3-gram, tuned on it, WER {searches[-1]['wer']:.1%}"
    )


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
