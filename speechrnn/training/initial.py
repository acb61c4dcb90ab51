"""The model that a run starts from, where ``training.init_from`` names a run directory.

Kept are its encoder (all but the output layer), the statistics its features are normalised by, and
the output layer's columns of the blank and of the symbols that both alphabets have. Symbols that
are new start as they do in a new network. What is taken are the weights that were scored: the
moving average, where there was one.

The run keeps a copy of that model in ``initial/``, so that going on needs the other one no more.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from speechrnn import arrays
from speechrnn.errors import ModelError, RecipeError
from speechrnn.files import MODEL, RECOGNISER, read_run, saving
from speechrnn.recipe import Recipe
from speechrnn.specs import RecogniserSpec
from speechrnn.training import checkpoint, run
from speechrnn.training.distribution import Distribution

FOLDER = "initial"  # in the run directory
# Of the section ``model``, what changes neither the weights' number nor their meaning.
FREE = ("dropout", "chunk", "right_context")


@dataclasses.dataclass(frozen=True)
class Initial:
    """A model to start from.

    ``card`` is its own, ``sha256`` that of its weights. The chief alone has ``weights``, in the
    order of the network's.
    """

    spec: RecogniserSpec
    card: dict[str, Any]
    sha256: str
    weights: Sequence[np.ndarray] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """What the card of a model that started from this one says of it: attribution travels,
        that of models which this one started from included."""
        named = {key: self.card.get(key) for key in ("name", "corpus", "licence")}
        before = {"init_from": self.card["init_from"]} if "init_from" in self.card else {}
        return {**named, "sha256": self.sha256, **before}

    def continued(self, spec: RecogniserSpec) -> RecogniserSpec:
        """``spec`` with this model's statistics: its encoder knows a level of sound by the number
        that these make of it, and another corpus's own would shift and scale all of its input."""
        return dataclasses.replace(spec, statistics=self.spec.statistics)

    def shared(self, spec: RecogniserSpec) -> list[str]:
        """The symbols of ``spec`` that this model writes too."""
        return [s for s in spec.alphabet.symbols if s in self.spec.alphabet.symbols]

    def describe(self, spec: RecogniserSpec) -> str:
        """For people: what is taken over."""
        shared = self.shared(spec)
        new = [s for s in spec.alphabet.symbols if s not in shared]
        fresh = f"; new to it: {' '.join(map(repr, new))}" if new else ""
        told = ", ".join(filter(None, (self.card.get("corpus"), self.card.get("licence"))))
        return (
            f"starts from {self.card.get('name')}{f' ({told})' if told else ''}: its encoder, its "
            f"feature statistics and {len(shared)} of {len(spec.alphabet.symbols)} symbols{fresh}"
        )

    def give(self, model: keras.Model, spec: RecogniserSpec, here: Distribution) -> None:
        """Put the kept weights into a network of ``spec`` with fresh ones, at every worker.

        Raises:
            ModelError: the weights are not those of the description they came with.
        """
        weights = model.get_weights()
        if here.is_chief:
            head = {id(variable) for variable in model.logits.weights}
            of_head = [id(variable) in head for variable in model.weights]
            weights = self._merged(weights, of_head, spec)
        weights = here.arrays_from_chief({"model": weights})["model"]
        for variable, value in zip(model.weights, weights, strict=True):
            variable.assign(value)

    def _merged(
        self, fresh: list[np.ndarray], of_head: list[bool], spec: RecogniserSpec
    ) -> list[np.ndarray]:
        symbols = self.spec.alphabet.symbols
        shared = self.shared(spec)
        mine = [0, *(1 + spec.alphabet.symbols.index(s) for s in shared)]  # 0 is the blank
        theirs = [0, *(1 + symbols.index(s) for s in shared)]
        shapes = [
            (*w.shape[:-1], self.spec.alphabet.size) if head else w.shape
            for w, head in zip(fresh, of_head, strict=True)
        ]
        if [w.shape for w in self.weights] != shapes:
            raise ModelError(
                f"the model {self.card.get('name')!r} that training.init_from names describes "
                "another network than its weights are of; train it again, or copy its run "
                "directory again"
            )
        merged = []
        for new, old, head in zip(fresh, self.weights, of_head, strict=True):
            if head:  # a column a symbol: the kernel (width, symbols), the bias (symbols,)
                new = new.copy()
                new[..., mine] = old[..., theirs]
            merged.append(new if head else old)
        return merged


def read(recipe: Recipe, here: Distribution) -> Initial | None:
    """The model that ``training.init_from`` names, None where it names none; to be called before
    anything is prepared. The chief reads it, and the others are told.

    Raises:
        ModelError: it is no run directory of a recogniser, or a damaged one.
        RecipeError: its features or network are others than the recipe's; the run directory
            holds a run that started from something else.
    """
    if recipe.training.init_from is None:
        return None
    if here.is_chief:
        found = _of_run(recipe, recipe.training.init_from)
        here.from_chief([found.spec.to_dict(), found.card, found.sha256])
        return found
    spec, card, sha256 = here.from_chief(None)
    return Initial(RecogniserSpec.from_dict(spec), card, sha256)


def _of_run(recipe: Recipe, source: Path) -> Initial:
    output, kept = recipe.output, recipe.output / FOLDER
    if source.resolve() == output.resolve():
        raise RecipeError(
            f"training.init_from names the run's own output, {output}; name another output, or "
            "leave training.init_from out, which goes on with the run that is there"
        )
    begun = bool(checkpoint.checkpoints(output / "checkpoints"))
    there = (kept / MODEL).exists()
    if begun and not there:
        raise RecipeError(
            f"{output} holds a run that did not start from {source}; name another output, or "
            "delete that folder"
        )
    if there and (begun or not source.exists()):
        return _begun(recipe, source, kept)
    found = _load(source)
    _check(recipe, found.spec, source)
    _keep(found, output)
    return found


def _begun(recipe: Recipe, source: Path, kept: Path) -> Initial:
    """What a run that is gone on with began from."""
    found = _load(kept)
    _check(recipe, found.spec, source)
    if source.exists() and _load(source).sha256 != found.sha256:
        raise RecipeError(
            f"{source} holds another model than the one that {recipe.output} started from; name "
            f"another output, or go on as it began with training.init_from={kept}"
        )
    return found


def _keep(found: Initial, output: Path) -> None:
    then = "the same command starts again."
    with saving("the model to start from", output, then):
        (output / FOLDER).mkdir(parents=True, exist_ok=True)
        run.save(output / FOLDER, 0, list(found.weights), found.spec, found.card)


def _load(folder: Path) -> Initial:
    named = f"training.init_from names {folder}"
    exported = [*folder.glob("saved_model.pb"), *folder.glob("*/saved_model.pb")]
    # A run directory may have its exports in it.
    if folder.is_file() or (exported and not (folder / MODEL).exists()):
        what = "an exported model" if exported or folder.suffix == ".tflite" else "a file"
        raise ModelError(
            f"{named}, {what}; training starts from a run directory: name the one that it was "
            "exported from"
        )
    description, data = read_run(folder)
    if description["kind"] != RECOGNISER:
        raise ModelError(
            f"{named}, which holds a {description['kind']}; name a run directory of a recogniser"
        )
    spec = RecogniserSpec.from_dict(description["spec"])
    found = arrays.unpack(data, folder)
    weights = [found[name] for name in sorted(found)]
    return Initial(spec, description["card"], hashlib.sha256(data).hexdigest(), weights)


def _check(recipe: Recipe, spec: RecogniserSpec, source: Path) -> None:
    """Raise RecipeError unless the recipe describes features and an encoder such as ``spec``'s."""
    differing, wanted = [], []
    for section, ours, theirs in (
        ("features", recipe.features, spec.features),
        ("model", recipe.model, spec.model),
    ):
        for field in dataclasses.fields(ours):
            name, mine, its = field.name, getattr(ours, field.name), getattr(theirs, field.name)
            if mine != its and not (section == "model" and name in FREE):
                differing.append(f"{section}.{name} is {mine}, and {its} there")
                value = list(its) if isinstance(its, tuple) else its
                wanted.append(f"{section}.{name}={str(value).replace(' ', '')}")
    if differing:
        raise RecipeError(
            f"the encoder of {source} (training.init_from) fits no other network: "
            f"{'; '.join(differing)}. Give the recipe {' '.join(wanted)}, or train without "
            "training.init_from"
        )
