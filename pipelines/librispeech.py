"""LibriSpeech, read books: from the recordings to a model that others can start from.

    python pipelines/librispeech.py --data LibriSpeech          a folder as it is unpacked
    python pipelines/librispeech.py --data LibriSpeech --lm     and what a language model adds
    python pipelines/librispeech.py training.epochs=40          any value of the recipe
    python pipelines/librispeech.py --data "tfds:librispeech?splits=train_clean100,dev_clean"

The recipe, configs/librispeech.yaml, is for the five hours of train-clean-5 (openslr.org/31: 0.5 GB
with dev-clean-2); TensorFlow Datasets fetches 60 GB. Where the environment variable SPEECHRNN_DATA
names a folder with a librispeech/manifest.tsv, that is used. A run that was stopped goes on where
it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from speechrnn import corpora, recipe
from speechrnn.errors import SpeechRNNError, UsageError
from speechrnn.recipe import Recipe
from speechrnn.runtime import open_model
from speechrnn.text import normalise

CONFIG = Path(__file__).parent.parent / "configs" / "librispeech.yaml"
TRIALS = 40  # pairs of weights that are tried for a search


def find(data: str | None) -> str:
    """The corpus named, or the one found through SPEECHRNN_DATA.

    Raises:
        UsageError: neither.
    """
    if data is not None:
        return data
    at_hand = Path(os.environ.get("SPEECHRNN_DATA", "data")) / "librispeech" / "manifest.tsv"
    if at_hand.is_file():
        return str(at_hand)
    raise UsageError(
        f"no LibriSpeech: {at_hand} is not there. Fetch train-clean-5 and dev-clean-2 from "
        "openslr.org/31, unpack them and name the folder with --data LibriSpeech, or name a "
        "TensorFlow dataset with --data tfds:librispeech, which fetches 60 GB"
    )


def unknown_words(loaded: Recipe) -> float:
    """The share of dev's words that no training transcript has: a lexicon made of these gets
    every one of them wrong."""
    utterances = corpora.read(loaded.data.manifest, loaded.data.dev_fraction)

    def words(split: str) -> list[str]:
        texts = [normalise(u.text, loaded.text) for u in utterances if u.split == split]
        return [word for text in texts for word in text.split()]

    known, said = set(words("train")), words("dev")
    return sum(word not in known for word in said) / max(1, len(said))


def with_language_models(loaded: Recipe, model: Path) -> list[dict[str, Any]]:
    """Dev by a beam search: lexicon and 3-gram of the training transcripts, weights tuned on dev;
    each row also has the rate of speakers that had no part in tuning."""
    import decoding

    recogniser = open_model(model, decoder=None)
    corpus = decoding.read(loaded.data.manifest, "dev", recogniser)
    jobs = len(os.sched_getaffinity(0))
    rows = decoding.measure(recogniser, corpus, loaded.output / "decoding", TRIALS, jobs=jobs)
    print(decoding.table(rows))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a LibriSpeech folder, a manifest, or tfds:librispeech")
    parser.add_argument("--lm", action="store_true", help="score with lexicon and 3-gram, too")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    started = time.perf_counter()
    source = f"data.manifest={find(arguments.data)}"
    loaded = recipe.load(CONFIG, [source, *arguments.overrides])
    # Late: the processes of the tuning import this file, and have no use for TensorFlow.
    from end_to_end import score, train_and_export, write_summary

    forms = train_and_export(loaded)
    summary = score(loaded, forms, split="dev")
    summary["unknown_words"] = unknown_words(loaded)
    if arguments.lm:
        summary["decoding"] = with_language_models(loaded, forms["int8"])
    summary["wall_seconds"] = time.perf_counter() - started
    write_summary(loaded, summary)
    print(
        f"LibriSpeech dev, greedy: WER {summary['wer']:.1%}, CER {summary['cer']:.1%} (the epoch "
        f"is chosen on dev). {summary['unknown_words']:.1%} of dev's words are in no training "
        "transcript."
    )


if __name__ == "__main__":  # tuning and preparation start processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
