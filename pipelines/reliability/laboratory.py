"""A small training in this process, to be run from any state as often as wanted.

Its graph is traced once; a run then takes a second.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data import texts
from speechrnn.data.dataset import DEV, TRAIN, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.data.texts import TextBatches
from speechrnn.language import CharacterLMSpec
from speechrnn.recipe import LanguageRecipe, Recipe
from speechrnn.training import determinism
from speechrnn.training.display import Display
from speechrnn.training.language_model import LanguageModelLearner
from speechrnn.training.loop import Trainer
from speechrnn.training.recogniser import RecogniserLearner
from speechrnn.training.step import Learner


class Laboratory:
    """What a recipe trains, its initial weights kept.

    ``fresh`` are the learner's arrays before the first step.
    """

    def __init__(self, path: Path):
        loaded = recipe.load_any(path)
        determinism.configure(loaded.training)
        self.recipe: Recipe | LanguageRecipe = loaded
        self.spec: Any
        self.train_set: Any
        self.dev_set: Any
        self.learner: Learner[Any]
        if isinstance(loaded, LanguageRecipe):
            found = texts.read(loaded)
            self.spec = CharacterLMSpec(found.alphabet.spec, loaded.language_model)
            self.train_set = TextBatches(loaded, self.spec, found.train)
            self.dev_set = TextBatches(loaded, self.spec, found.dev)
            language_model = network.build_language_model(self.spec, loaded.seed)
            self.learner = LanguageModelLearner(language_model, self.spec, loaded)
        else:
            index = prepare(loaded, progress=False)
            self.spec = recogniser_spec(loaded, index)
            self.train_set = Batches(loaded, self.spec, index, TRAIN)
            self.dev_set = Batches(loaded, self.spec, index, DEV)
            model = network.build(self.spec, loaded.seed)
            self.learner = RecogniserLearner(model, self.spec, loaded)
        self.fresh = {group: [np.copy(a) for a in v] for group, v in self.learner.arrays().items()}

    def trainer(self, output: Path, quiet: bool = True, **training: Any) -> Trainer:
        """One that would train into ``output``, from the beginning or from what is there, with
        changes to the recipe's training section."""
        section = self.recipe.training.model_copy(update=training)
        changed = self.recipe.model_copy(update={"output": output, "training": section})
        self.learner.restore(self.fresh)
        display = Display(output, section, self.train_set.unit, quiet)
        return Trainer(
            changed,
            self.spec,
            self.learner,
            self.train_set,
            self.dev_set,
            display,
            {},
            "laboratory",
        )

    def run(self, output: Path, **training: Any) -> Path:
        """Train into ``output`` to the end -> ``output``."""
        trainer = self.trainer(output, **training)
        with trainer.display:
            trainer.start("", "", {}, see="")
        return output

    def copy(self, of: Path, to: Path) -> Path:
        """A run directory as it stands, to do something to."""
        shutil.rmtree(to, ignore_errors=True)
        return Path(shutil.copytree(of, to))
