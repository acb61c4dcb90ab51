"""From nothing to a recogniser on a device: synthetic speech, training, export, transcripts.

    make quickstart                                  about 7 minutes on two cores
    python pipelines/quickstart.py training.epochs=5

espeak-ng speaks digit strings, spelled words and commands with many voices; a small
recogniser is trained on it, exported, scored on voices, digit strings and letter strings that
it has never heard, and three held-out clips are transcribed with the exported file. This
speech is synthetic: the result says that the path works, not how well people are understood.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart_phrases import phrases
from rich.console import Console
from rich.progress import Progress

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.synth import synthesise
from speechrnn.errors import SpeechRNNError

if TYPE_CHECKING:
    from speechrnn.recipe import Recipe

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
GROUPS = ("digits", "letters", "commands")  # what the ids of the corpus's utterances start with


def speak(loaded: Recipe, console: Console) -> None:
    """The corpus, where it is not there yet."""
    console.rule("0. Speak the corpus (synthetic voices)")
    with Progress(console=console) as bar:
        task = bar.add_task("speaking", total=None)
        synthesise(
            phrases(loaded.seed),
            Path(loaded.data.manifest).parent,
            per_phrase=1,
            seed=loaded.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def wer_by_group(loaded: Recipe, model: Path) -> dict[str, float]:
    """Test WER told apart: unseen digit strings, unseen letter strings, known commands."""
    from speechrnn.evaluation.evaluate import evaluate
    from speechrnn.runtime import open_model

    recogniser = open_model(model)
    test = [u for u in manifest.read(loaded.data.manifest) if u.split == "test"]
    groups = {group: [u for u in test if u.utterance_id.startswith(group)] for group in GROUPS}
    return {
        group: evaluate(recogniser, utterances, progress=False).rates.wer
        for group, utterances in groups.items()
    }


def main(overrides: list[str]) -> dict[str, Any]:
    started = time.perf_counter()
    console = Console(stderr=True, soft_wrap=True)
    console.print(
        "Quickstart: speaks 45 minutes of synthetic speech, trains a recogniser on it, exports it "
        "and transcribes clips it has never heard. About 7 minutes on two cores."
    )
    loaded = recipe.load(CONFIG, overrides)
    speak(loaded, console)
    # Late: the processes that speak import this script too, and have no use for TensorFlow.
    from end_to_end import score, train_and_export, write_summary

    forms = train_and_export(loaded)
    summary = score(loaded, forms, split="test")
    summary["wer_by_group"] = wer_by_group(loaded, forms["int8"])
    for group, wer in summary["wer_by_group"].items():
        console.print(f"WER {wer:6.2%}  {group}")
    summary["wall_seconds"] = time.perf_counter() - started
    write_summary(loaded, summary)
    print(
        f"Synthetic test voices: WER {summary['wer']:.1%} with {summary['tflite_path']} "
        f"({summary['tflite_bytes'] / 1e6:.1f} MB). Try it:\n"
        f"  .venv/bin/speechrnn transcribe RECORDING --model {summary['tflite_path']}"
    )
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    try:
        main(parser.parse_args().overrides)
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
