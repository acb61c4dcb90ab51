"""What a start from LibriSpeech is worth on AN4, and how errors fall with minutes of recordings.

    python pipelines/transfer.py --pretrained runs/librispeech --jobs 2      an hour on two cores
    python pipelines/transfer.py                           trains configs/librispeech.yaml first
    python pipelines/transfer.py --table                   from the results there are: no training

Each of 5, 10, 20 and all 37 minutes of AN4's training split is trained on from random weights and
from those of a model of LibriSpeech (training.init_from), and scored on AN4 dev after the last
epoch: nothing is chosen on dev. Each training that is done is a line of
pipelines/results/transfer.jsonl; the same command again trains only what is missing there, and a
training that was stopped goes on from its checkpoint. How it is set up: docs/transfer.md, where
table and curve go.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import an4
import librispeech
import transfer_page
from rich.console import Console
from trainings import jobs, results
from trainings.rates import by_speaker
from transfer_rows import EPOCHS, Row, Study, seconds_of

from speechrnn import recipe as recipes
from speechrnn.corpora import manifest
from speechrnn.errors import SpeechRNNError
from speechrnn.files import locked, write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "pipelines" / "results" / "transfer.jsonl"
MINUTES = ("all", "20", "10", "5")  # of training recordings; the longest training first
RECIPE, ROW, LINE = "recipe.yaml", "row.json", "line.json"  # in a row's folder
console = Console(stderr=True, soft_wrap=True)


def train_missing(study: Study, rows: Sequence[Row], file: Path, command: list[str]) -> None:
    """Train the rows that the file has no line of, ``study.jobs`` at a time.

    Args:
        command: trains what the folder that is given as a last word orders.

    Raises:
        RecipeError: the file holds lines of other settings.
        SpeechRNNError: some failed; the others are in the file.
    """
    lines = results.read(file, transfer_page.KEYS)
    study.check(file, lines)
    missing = [row for row in rows if not any(row.is_of(line) for line in lines)]
    by_folder = {study.folder_of(row): row for row in missing}
    for minutes in {row.minutes for row in missing}:
        study.write_corpus(minutes)
    for folder, row in by_folder.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, study.recipe_of(row).to_yaml().encode())
        write_atomically(folder / ROW, json.dumps(study.tags(row)).encode())
    failed: list[str] = []

    def begun(folder: Path) -> None:
        console.print(f"{by_folder[folder].name}: begins; its log is {folder / jobs.LOG}")

    def done(folder: Path, code: int) -> None:
        row, path = by_folder[folder], folder / LINE
        line = json.loads(path.read_bytes()) if path.exists() else {}
        if code or any(line.get(key) != value for key, value in study.tags(row).items()):
            console.print(f"{row.name}: ended with {code}; see {folder / jobs.LOG}")
            failed.append(row.name)
            return
        results.append(file, line)
        told = f"dev WER {line['wer']:.1%} after {line['training_seconds']:.0f} s"
        console.print(f"{row.name}: {told}")

    jobs.run([(folder, [*command, str(folder)]) for folder in by_folder], study.jobs, begun, done)
    if failed:
        raise SpeechRNNError(
            f"not trained: {', '.join(failed)}; the same command tries these again"
        )


def train_one(folder: Path) -> None:
    """Train what the folder orders, from its checkpoint where there is one, and write its line."""
    from speechrnn.evaluation.error_rates import score
    from speechrnn.runtime.tensorflow import RunRecognizer
    from speechrnn.training import run, threads, train
    from speechrnn.training.display import history

    recipe, tags = recipes.load(folder / RECIPE), json.loads((folder / ROW).read_bytes())
    threads.configure(recipe.training.threads)
    train(recipe)
    recogniser, last = RunRecognizer(recipe.output), history(recipe.output)[-1]
    recordings = run.dev_recordings(recipe.output)
    rates = score(
        {r.utterance_id: r.text for r in recordings},
        {r.utterance_id: recogniser.transcribe(r.waveform).text for r in recordings},
        groups={r.utterance_id: r.speaker for r in recordings},
        rules=recogniser.spec.alphabet.rules,
    )
    training = [u for u in manifest.read(recipe.data.manifest) if u.split == "train"]
    line = {
        **tags,
        "audio_minutes": round(sum(map(seconds_of, training)) / 60, 2),
        "utterances": len(training),
        "speakers": len({u.speaker for u in training}),
        "wer": rates.wer,
        "wer_ci95": list(rates.wer_ci95),
        "cer": rates.cer,
        "by_speaker": by_speaker(rates),  # word errors and words
        "dev_loss": last["dev_loss"],
        "epochs": last["epoch"] + 1,
        "updates": last["step"],
        "batch_seconds": recipe.data.batch_seconds,
        "learning_rate": recipe.training.learning_rate,
        "threads": recipe.training.threads,
        "training_seconds": round(last["training_seconds"], 1),
        "audio_seconds_per_second": round(last["audio_seconds_per_second"], 1),
    }
    write_atomically(folder / LINE, json.dumps(line).encode())


def pretrain() -> Path:
    """The model of configs/librispeech.yaml, trained as far as it is not: its run directory."""
    settings = recipes.load(librispeech.CONFIG)
    source = f"data.manifest={librispeech.find(None)}"
    console.print(f"pre-training {settings.output}")
    command = [sys.executable, "-m", "speechrnn", "train", str(librispeech.CONFIG), source]
    if code := subprocess.run(command).returncode:
        raise SpeechRNNError(
            f"pre-training ended with {code}, for the reason above; the same command goes on with "
            "it, and --pretrained RUN starts from a model that there is"
        )
    return settings.output


def _several(known: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(known(word) for word in text.split(","))


def _minutes(word: str) -> str:
    return word if word == "all" else f"{float(word):g}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, metavar="RUN", help="default: trained first")
    parser.add_argument("--minutes", type=_several(_minutes), default=MINUTES, help="all,20,10,5")
    parser.add_argument("--seeds", type=_several(int), default=(1,), help="default: 1")
    parser.add_argument("--epochs", type=_several(int), default=EPOCHS, help="default: 40,12")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, a core each")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=transfer_page.PAGE, help="for table and curve")
    parser.add_argument("--recipe", type=Path, default=an4.CONFIG, help="default: AN4's")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--table", action="store_true", help="table and curve only")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)  # of a child
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    if len(arguments.epochs) != 2:
        parser.error("--epochs wants two numbers, from scratch and from the other model: 40,12")
    return arguments


def main() -> None:
    arguments = _arguments()
    if arguments.row:
        train_one(arguments.row)
        return
    if not arguments.table:
        study = Study(
            recipe_file=arguments.recipe,
            output=arguments.output,
            manifest=an4.find_manifest(arguments.data),
            pretrained=arguments.pretrained or pretrain(),
            epochs=arguments.epochs,
            jobs=arguments.jobs,
            overrides=tuple(arguments.overrides),
        )
        rows = [
            Row(minutes, init, seed)
            for seed in arguments.seeds
            for minutes in arguments.minutes
            for init in ("scratch", "pretrained")
        ]
        study.output.mkdir(parents=True, exist_ok=True)
        held = f"another process trains into {study.output}; wait for it, or end it first"
        with locked(study.output / "transfer.lock", held), jobs.ending_by_signal():
            command = [sys.executable, __file__, "--row"]
            train_missing(study, rows, arguments.results, command)
    transfer_page.write(arguments.results, arguments.page)


if __name__ == "__main__":  # preparation starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
