"""The loop, exact checkpoints, schedules, and what is shown while training runs."""

from __future__ import annotations

from typing import Any

from speechrnn.recipe import LanguageRecipe, Recipe
from speechrnn.training import determinism
from speechrnn.training.language_model import train_language_model
from speechrnn.training.recogniser import train_recogniser

__all__ = ["train"]


def train(recipe: Recipe | LanguageRecipe, quiet: bool = False) -> dict[str, Any]:
    """Train a recipe to its end, going on from the last checkpoint where there is one.

    Prepares the corpus first where that is not done. Returns the best model's card, which
    ``run.load(recipe.output)`` gives with the model, ``decoding.neural.CharacterLM.load`` with a
    language model.

    Raises:
        DataError: nothing to train on; losses that stay non-finite.
        ModelError: every checkpoint of the run is damaged.
        RecipeError: the run directory holds a run with another model or other data.
        MachineRefused: the machine refused to write; what was there before is untouched.
        Stopped: by SIGTERM or SIGINT, which, called from the main thread, this catches: a
            checkpoint holds every step that was done. A second signal ends the process.
    """
    determinism.configure(recipe.training)
    if isinstance(recipe, LanguageRecipe):
        return train_language_model(recipe, quiet)
    return train_recogniser(recipe, quiet)
