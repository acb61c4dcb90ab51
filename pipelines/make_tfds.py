"""Any corpus as a TensorFlow dataset that others load without speechrnn.

python pipelines/make_tfds.py mine.csv datasets --name mine

import tensorflow_datasets as tfds
train = tfds.load("mine", split="train", data_dir="datasets")
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from speechrnn.corpora import tfds_export
from speechrnn.errors import SpeechRNNError


def main(arguments: list[str] | None = None) -> None:
    """Make it, and print its folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", help="what data.manifest may name: see docs/corpora.md")
    parser.add_argument("out", type=Path, help="the folder of datasets (tfds: data_dir)")
    parser.add_argument("--name", required=True, help="of the dataset: letters, digits and _")
    parser.add_argument("--sample-rate", type=int, default=16_000)
    parser.add_argument("--dev-fraction", type=float, default=0.1, help="where no split is named")
    asked = parser.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z]\w*", asked.name):
        parser.error(f"--name {asked.name}: begin with a letter; use letters, digits and _")
    if asked.sample_rate < 1:
        parser.error(f"--sample-rate {asked.sample_rate}: give Hz")
    try:
        print(
            tfds_export.store(
                asked.corpus,
                asked.out,
                asked.name,
                sample_rate=asked.sample_rate,
                dev_fraction=asked.dev_fraction,
            )
        )
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
