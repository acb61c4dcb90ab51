"""The trainings of pipelines/transfer.py: on which recordings, and with which recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import soundfile

from speechrnn import recipe as recipes
from speechrnn.corpora import manifest
from speechrnn.corpora.utterance import Utterance
from speechrnn.errors import RecipeError
from speechrnn.files import read_run
from speechrnn.recipe import Recipe
from speechrnn.text import Alphabet, normalise

# Passes over all of the training split, from random weights and from another model's. Of a part
# of it there are more, in smaller batches, both by the square root: every training of a kind makes
# as many updates.
EPOCHS = (40, 12)
FINE_TUNING_RATE = 0.5  # of the recipe's learning rate, where training starts from another model
DRAW = 1  # the seed of the order in which recordings are taken
# No part of what a result depends on; a corpus is known by its content.
NOT_SETTINGS: Any = {
    "name": True,
    "output": True,
    "data": {"manifest", "prepared", "workers"},
    "training": {"threads", "show_pairs", "checkpoint_every_seconds", "init_from", "join_minutes"},
}


@dataclass(frozen=True)
class Row:
    """One training: on how many minutes, from where, with which seed."""

    minutes: str
    init: str  # scratch or pretrained
    seed: int

    @property
    def name(self) -> str:
        return f"{self.minutes}-{self.init}-{self.seed}"

    def is_of(self, line: dict[str, Any]) -> bool:
        return all(line[key] == value for key, value in dataclasses.asdict(self).items())


def drawn(utterances: Iterable[Utterance]) -> list[Utterance]:
    """The order in which recordings are taken: in rounds, one of every speaker in each, speakers
    and their recordings in an order drawn by hash. Its beginnings are the subsets, which so are
    nested and have as many speakers as they can."""

    def rank(text: str) -> bytes:
        return hashlib.sha256(f"{DRAW} {text}".encode()).digest()

    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: rank(u.utterance_id)):
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    rounds = range(max(map(len, by_speaker.values()), default=0))
    order = {speaker: rank(f"speaker {speaker}") for speaker in by_speaker}
    return [
        by_speaker[speaker][number]
        for number in rounds
        for speaker in sorted(by_speaker, key=order.__getitem__)
        if number < len(by_speaker[speaker])
    ]


def seconds_of(utterance: Utterance) -> float:
    if utterance.duration_s is not None:
        return utterance.duration_s
    return float(soundfile.info(utterance.path).duration)


@dataclass(frozen=True)
class Study:
    """What all trainings have in common."""

    recipe_file: Path
    output: Path
    manifest: Path
    pretrained: Path  # a run directory
    epochs: tuple[int, int]
    jobs: int
    overrides: tuple[str, ...]

    @cached_property
    def recipe(self) -> Recipe:
        return recipes.load(self.recipe_file, [f"data.manifest={self.manifest}", *self.overrides])

    @cached_property
    def utterances(self) -> list[Utterance]:
        return manifest.read(self.manifest)

    @cached_property
    def training(self) -> list[Utterance]:
        return drawn(u for u in self.utterances if u.split == "train")

    @cached_property
    def alphabet(self) -> str:
        """That of all transcripts: a few minutes may lack a letter that dev has."""
        texts = [normalise(u.text, self.recipe.text) for u in self.training]
        return "".join(Alphabet.derive(texts, self.recipe.text).spec.symbols)

    @cached_property
    def settings(self) -> str:
        """What tells these results from those of other settings; the model to start from is told
        by its own hash."""
        told = [
            self.recipe.model_dump(mode="json", exclude=NOT_SETTINGS),
            sorted([u.utterance_id, u.split, u.speaker, u.text] for u in self.utterances),
            [self.epochs, FINE_TUNING_RATE, DRAW],
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def pretrained_sha256(self) -> str:
        return hashlib.sha256(read_run(self.pretrained)[1]).hexdigest()[:12]

    def subset(self, minutes: str) -> list[Utterance]:
        """The first of the drawn order that together are no longer.

        Raises:
            RecipeError: they are none, or all: the table would count these as two seeds of "all".
        """
        if minutes == "all":
            return self.training
        limit, taken, total = 60 * float(minutes), [], 0.0
        for utterance in self.training:
            total += seconds_of(utterance)
            if total > limit:
                break
            taken.append(utterance)
        if not taken:
            raise RecipeError(f"no recording is as short as {minutes} minutes; give more")
        if len(taken) == len(self.training):
            raise RecipeError(
                f"all recordings together are fewer than {minutes} minutes; name them all: "
                "--minutes all"
            )
        return taken

    @property
    def folder(self) -> Path:
        """Of these settings: a training that goes on has to have begun with them."""
        return self.output / self.settings

    def folder_of(self, row: Row) -> Path:
        start = f"-{self.pretrained_sha256}" if row.init == "pretrained" else ""
        return self.folder / f"{row.name}{start}"

    def corpus(self, minutes: str) -> Path:
        """Where the manifest of a subset, with dev, is."""
        return self.folder / f"{minutes}.tsv"

    def write_corpus(self, minutes: str) -> None:
        dev = [u for u in self.utterances if u.split == "dev"]
        manifest.write(self.corpus(minutes), [*self.subset(minutes), *dev])

    def recipe_of(self, row: Row) -> Recipe:
        """The recipe with what a row sets. One validation, after the last epoch: the model that is
        kept was not chosen."""
        share = len(self.subset(row.minutes)) / len(self.training)
        base = self.epochs[row.init == "pretrained"]
        epochs = max(1, round(base / math.sqrt(share)))
        own: dict[str, Any] = {
            "name": f"transfer-{row.name}",
            "output": str(self.folder_of(row) / "run"),
            "seed": row.seed,
            "data.manifest": str(self.corpus(row.minutes)),
            "data.prepared": str(self.folder / f"prepared-{row.minutes}"),
            "data.alphabet": self.alphabet,
            "data.batch_seconds": round(self.recipe.data.batch_seconds * math.sqrt(share), 1),
            "training.epochs": epochs,
            "training.validate_every_epochs": epochs,
            "training.threads": 1 if self.jobs > 1 else "auto",
        }
        if row.init == "pretrained":
            own["training.init_from"] = str(self.pretrained)
            rate = FINE_TUNING_RATE * self.recipe.training.learning_rate
            own["training.learning_rate"] = rate
        settings = [f"{key}={json.dumps(value)}" for key, value in own.items()]
        return recipes.load(self.recipe_file, [*self.overrides, *settings])

    def tags(self, row: Row) -> dict[str, Any]:
        """What a row's line is known by."""
        own = self.pretrained_sha256 if row.init == "pretrained" else None
        return {**dataclasses.asdict(row), "settings": self.settings, "pretrained": own}

    def check(self, file: Path, lines: Sequence[dict[str, Any]]) -> None:
        """Raise RecipeError if a line is of other settings, or started from another model."""
        for line in lines:
            row = Row(line["minutes"], line["init"], line["seed"])
            tags = self.tags(row)
            other = [key for key in ("settings", "pretrained") if line[key] != tags[key]]
            if other:
                what = "of other settings" if "settings" in other else "from another model"
                raise RecipeError(
                    f"{file} has {row.name} {what} ({line[other[0]]}, and this is "
                    f"{tags[other[0]]}), and no table can mix them; name another file with "
                    "--results, or delete such lines"
                )
