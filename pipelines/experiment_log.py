"""What was tried on a recipe, and what it gave: AN4's log is configs/an4/README.md.

    python pipelines/experiment_log.py                          what is missing, with seed 1
    python pipelines/experiment_log.py as_it_stands --seeds 1,2,3
    python pipelines/experiment_log.py --table                  the page's table alone
    python pipelines/experiment_log.py --recipe mine.yaml --folder mine    a log of your own

FOLDER/experiments.yaml lists changes to the recipe. Every finished training adds a line to
FOLDER/results.jsonl, so that only what is missing runs, two at a time with one thread each; a
training that was stopped goes on. AN4's recipe takes 45 minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import an4
import decoding
import yaml
from experiment_table import table
from rich.console import Console
from trainings import jobs, page, results

from speechrnn import recipe as recipes
from speechrnn.data.prepare import prepare
from speechrnn.errors import RecipeError, SpeechRNNError
from speechrnn.files import locked, write_atomically
from speechrnn.recipe import Recipe
from speechrnn.runtime import open_model
from speechrnn.training import run, threads, train
from speechrnn.training.display import history

console = Console(stderr=True, soft_wrap=True)

FOLDER = an4.CONFIG.parent / "an4"
TABLE = ("<!-- table -->", "<!-- end of table -->")
KEYS = {"key", "experiment", "seed", "settings", "wer"}  # of a line of the results, at least
LINE = "line.json"  # in a training's folder, until it is in the results
# No part of what a result depends on.
NOT_SETTINGS: Any = {
    "name": True,
    "output": True,
    "data": {"manifest", "prepared", "workers"},
    "training": {"threads", "show_pairs", "checkpoint_every_seconds", "keep_checkpoints"},
}


def settings(recipe: Recipe) -> str:
    """A digest of what a recipe's result depends on, beside its recordings."""
    told = recipe.model_dump_json(exclude=NOT_SETTINGS)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def of_others(recipe: Recipe) -> bool:
    """Whether the recipe's run directory holds a training with other settings: one that was
    stopped would go on with these, and one at its end would be taken for a result of these."""
    there = recipe.output / "recipe.yaml"
    try:
        return there.exists() and settings(recipes.load(there)) != settings(recipe)
    except RecipeError:  # of another version
        return True


@dataclass(frozen=True)
class Experiment:
    """A change to the recipe, and why it was made."""

    name: str
    change: str
    why: str
    overrides: tuple[str, ...]

    def recipe(self, base: Path, seed: int, output: Path, extra: Sequence[str]) -> Recipe:
        """The change with a seed; all experiments share one folder of prepared shards."""
        folder = output / self.name / str(seed)
        places = [f"output={folder}", f"data.prepared={output / 'prepared'}", "training.threads=1"]
        return recipes.load(base, [*places, f"seed={seed}", *self.overrides, *extra])


def listed(folder: Path) -> dict[str, Experiment]:
    """experiments.yaml, by name."""
    tree = yaml.safe_load((folder / "experiments.yaml").read_text(encoding="utf-8"))
    return {
        name: Experiment(name, each["change"], each["why"], tuple(each.get("overrides", ())))
        for name, each in tree.items()
    }


# One training, in a process of its own


def row(experiment: Experiment, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Train, then score dev: greedy, and with lexicon and 3-gram of the training transcripts."""
    threads.configure(recipe.training.threads)
    train(recipe)
    validations, card = history(recipe.output), run.load(recipe.output).card
    recogniser = open_model(recipe.output, decoder=None)
    corpus = decoding.read(Path(recipe.data.manifest), "dev", recogniser)
    found = {r["name"]: r for r in decoding.measure(recogniser, corpus, recipe.output / "decoded")}
    searched = found["lexicon and 3-gram"]
    return {
        "key": f"{experiment.name} {seed}",
        "settings": settings(recipe),
        "experiment": experiment.name,
        "seed": seed,
        "parameters": card["parameters"],
        "epochs": recipe.training.epochs,
        "best_epoch": card["epoch"],
        "wer": found["greedy"]["wer"],
        "wer_ci95": found["greedy"]["wer_ci95"],
        "cer": card["dev"]["cer"],
        "last_wer": validations[-1]["wer"],
        "last_dev_loss": validations[-1]["dev_loss"],
        "lexicon_wer": found["lexicon"]["wer"],
        "lm_wer": searched["wer"],
        "lm_held_out_wer": searched["held_out_wer"],
        "errors_words_by_speaker": by_speaker(recipe.output / "decoded"),
        "core_minutes": validations[-1]["training_seconds"] / 60,
    }


def by_speaker(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Decoding -> speaker -> errors and words."""
    sums: dict[str, dict[str, list[int]]] = {}
    for name in ("greedy", "lexicon-and-3-gram"):
        told: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for score in json.loads((folder / f"{name}.json").read_bytes())["scores"]:
            errors = score["substitutions"] + score["deletions"] + score["insertions"]
            told[score["group"]][0] += errors
            told[score["group"]][1] += score["words"]
        sums[name] = dict(told)
    return sums


@dataclass(frozen=True)
class Log:
    """A recipe, the folder of what was tried on it, and where the trainings are kept."""

    recipe: Path
    folder: Path
    output: Path

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    def experiments(self, names: Sequence[str]) -> list[Experiment]:
        """Those named, or all.

        Raises:
            RecipeError: one is not listed.
        """
        known = listed(self.folder)
        if unknown := sorted(set(names) - set(known)):
            raise RecipeError(
                f"{self.folder}/experiments.yaml has no {', '.join(unknown)}; it has "
                f"{', '.join(known)}"
            )
        return [known[name] for name in names or known]

    def train_row(self, name: str, seed: int, source: str) -> None:
        (experiment,) = self.experiments([name])
        recipe = experiment.recipe(self.recipe, seed, self.output, [source])
        line = json.dumps(row(experiment, seed, recipe), ensure_ascii=False)
        write_atomically(recipe.output / LINE, line.encode())

    def train_missing(
        self, names: Sequence[str], seeds: Sequence[int], at_once: int, source: str
    ) -> None:
        """A process for each line that is missing, the first seed of all experiments first.

        Raises:
            RecipeError: a line, or a training that was begun, is of other settings than the recipe
                has now.
            SpeechRNNError: a training failed; the others have their lines.
        """
        wanted = {
            f"{each.name} {seed}": each.recipe(self.recipe, seed, self.output, [source])
            for seed in seeds
            for each in self.experiments(names)
        }
        known = {line["key"]: line["settings"] for line in results.read(self.results, KEYS)}
        now = {key: settings(recipe) for key, recipe in wanted.items()}
        if changed := [key for key in wanted if known.get(key, now[key]) != now[key]]:
            raise RecipeError(
                f"{self.results}: {', '.join(changed)} was made with other settings than the "
                "recipe has now; delete these lines to have them made anew, or give the change "
                "another name"
            )
        missing = {recipe.output: key for key, recipe in wanted.items() if key not in known}
        if others := [folder for folder, key in missing.items() if of_others(wanted[key])]:
            raise RecipeError(
                f"{', '.join(map(str, others))}: begun with other settings than the recipe has "
                "now; delete such folders, or name another with --output"
            )
        failed: list[Path] = []

        def begun(folder: Path) -> None:
            console.print(f"{missing[folder]}: begins; its log is {folder / jobs.LOG}")

        def ended(folder: Path, code: int) -> None:
            line = folder / LINE
            if code or not line.exists():
                failed.append(folder / jobs.LOG)
                return
            results.append(self.results, json.loads(line.read_bytes()))
            line.unlink()
            console.print(f"{missing[folder]}: done")

        # Of a process that ended while nobody was there to take its line.
        for folder in [folder for folder in missing if (folder / LINE).exists()]:
            ended(folder, 0)
            del missing[folder]
        if missing:
            prepare(wanted[next(iter(missing.values()))])
        commands = [
            (folder, [sys.executable, *sys.argv, "--row", *key.split()])
            for folder, key in missing.items()
        ]
        jobs.run(commands, at_once, begun, ended)
        if failed:
            raise SpeechRNNError(f"stopped by an error: see {', '.join(map(str, failed))}")

    def _dated(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line, with ``outdated``: whether the recipe has other settings by now."""
        (experiment,) = self.experiments([line["experiment"]])
        now = experiment.recipe(self.recipe, line["seed"], self.output, [])
        return {**line, "outdated": settings(now) != line["settings"]}

    def write_table(self) -> str:
        """Put the table between the page's marks; returns it."""
        path = self.folder / "README.md"
        changes = {name: each.change for name, each in listed(self.folder).items()}
        told = table(changes, [self._dated(line) for line in results.read(self.results, KEYS)])
        text = page.between(path.read_text(encoding="utf-8"), *TABLE, f"\n\n{told}\n\n", path)
        write_atomically(path, text.encode())
        return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--seeds", default="1", help="default: 1")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time; default: 2")
    parser.add_argument("--output", type=Path, default=Path("runs/an4_experiments"))
    parser.add_argument("--recipe", type=Path, default=an4.CONFIG, help="default: AN4's")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: configs/an4")
    parser.add_argument("--data", type=Path, help="an unpacked archive's folder, or a manifest")
    parser.add_argument("--table", action="store_true", help="write the table, train nothing")
    parser.add_argument("--row", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    log = Log(arguments.recipe, arguments.folder, arguments.output)
    if not arguments.table:
        source = f"data.manifest={an4.find_manifest(arguments.data)}"
        if arguments.row:
            log.train_row(arguments.row[0], int(arguments.row[1]), source)
            return
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        held = f"another process trains into {log.output}; wait for it, or end it first"
        log.output.mkdir(parents=True, exist_ok=True)
        with locked(log.output / "experiments.lock", held), jobs.ending_by_signal():
            log.train_missing(arguments.names, seeds, arguments.jobs, source)
    print(log.write_table())


if __name__ == "__main__":  # preparation starts processes, which import this file
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
