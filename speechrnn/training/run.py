"""A run directory: what training leaves behind, and how to load a model from it.

recipe.yaml        the recipe as it was run
model.json         the best model: its description, its card, the sha256 of its weights and its own
weights-N.npz      its weights, after step N
checkpoints/       where training goes on from
initial/           the model that training started from, where training.init_from named one
training.lock      held by the training that writes here
history.jsonl      a line for each validation
events/            for TensorBoard
prepared/          the shards, unless the recipe puts them elsewhere
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import speechrnn
from speechrnn import arrays, recipe
from speechrnn import model as network
from speechrnn.data.dataset import DEV
from speechrnn.data.index import Index
from speechrnn.data.shards import waveform_of
from speechrnn.errors import DataError, ModelError, RecipeError
from speechrnn.files import (
    LANGUAGE_MODEL,
    MODEL,
    RECOGNISER,
    read_run,
    sealed,
    write_atomically,
)
from speechrnn.language import CharacterLMSpec
from speechrnn.specs import RecogniserSpec


@dataclass(frozen=True)
class Trained:
    """A model with the description needed to use it and the card that says where it is from."""

    model: keras.Model
    spec: RecogniserSpec
    card: dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """An utterance of a run's dev split: ``waveform`` (samples,) float32 at the model's rate."""

    utterance_id: str
    waveform: np.ndarray
    text: str
    speaker: str


def save(
    folder: Path,
    step: int,
    weights: list[np.ndarray],
    spec: RecogniserSpec | CharacterLMSpec,
    card: dict,
) -> None:
    """Make these weights the run's model, in one atomic step."""
    data = arrays.pack({f"{i:04d}": w for i, w in enumerate(weights)})
    name = f"weights-{step}.npz"
    write_atomically(folder / name, data)
    description = {
        "format": 1,
        "kind": LANGUAGE_MODEL if isinstance(spec, CharacterLMSpec) else RECOGNISER,
        "spec": spec.to_dict(),
        "card": card,
        "weights": name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_atomically(folder / MODEL, sealed(description))
    for old in folder.glob("weights-*.npz"):
        if old.name != name:
            old.unlink()


def card(
    settings: recipe.Run,
    of_data: dict[str, Any],
    model: keras.Model,
    epoch: int,
    step: int,
    dev: dict[str, Any],
) -> dict[str, Any]:
    """Where a model comes from and how good it is; travels with every exported form.

    Args:
        of_data: what there is to say of what it was trained on.
        epoch: that it was kept after, from 0.
        dev: how it did on the dev split.
    """
    return {
        "name": settings.name,
        "corpus": settings.corpus,
        "licence": settings.licence,
        "speechrnn": speechrnn.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **of_data,
        "parameters": int(model.count_params()),
        "epoch": epoch + 1,
        "step": step,
        "seed": settings.seed,
        "dev": dev,
    }


def load(folder: str | Path) -> Trained:
    """The best recogniser of a run directory.

    The network is built from its description and filled with arrays: nothing in the folder is
    executed.

    Raises:
        ModelError: no model there, a damaged one, or a language model.
    """
    folder = Path(folder)
    description, data = read_run(folder)
    if description["kind"] != RECOGNISER:
        raise ModelError(
            f"{folder} holds a {description['kind']}, which hears nothing; name a run directory "
            "of a recogniser"
        )
    try:
        spec = RecogniserSpec.from_dict(description["spec"])
    except ModelError as error:
        raise ModelError(f"{folder / MODEL}: {error}") from error
    found = arrays.unpack(data, folder)
    weights = [found[name] for name in sorted(found)]
    there, least = sum(weight.size for weight in weights), least_parameters(spec)
    if there < least:
        raise ModelError(
            f"{folder / MODEL} describes a network of {least:,} parameters or more, and its "
            f"weights are {there:,}; train again, or copy the run directory again"
        )
    model = network.build(spec, seed=None)
    try:
        model.set_weights(weights)
    except ValueError as error:
        raise ModelError(
            f"{folder / MODEL} describes another network than its weights are of; train again"
        ) from error
    return Trained(model, spec, description["card"])


def least_parameters(spec: RecogniserSpec) -> int:
    """A number of parameters that the network has at least: what a description is held to before
    anything of its size is allocated."""
    model, units = spec.model, spec.model.units
    directions = 2 if model.bidirectional else 1
    # A clockwork's recurrent matrix is a triangle of blocks; every other cell has a full one.
    recurrent = model.layers * directions * units * units // 2
    if model.subsampling == "stack":
        return recurrent + model.time_stride * spec.features.dimension * directions * units
    heights = -(-spec.features.dimension // 4)  # two convolutions halve them
    convolutions = 9 * model.conv_channels * model.conv_channels
    return recurrent + convolutions + heights * model.conv_channels * directions * units


def dev_recordings(folder: str | Path) -> list[Recording]:
    """The dev split that the run's model was scored on, out of the prepared shards.

    Empty where these are gone, damaged, or prepared anew from another corpus: a model outlives
    the recordings it was trained on.
    """
    folder = Path(folder)
    try:
        settings = recipe.load(folder / "recipe.yaml")
        index = Index.load(settings.prepared)
        card = json.loads((folder / MODEL).read_bytes())["card"]
        if index.corpus_sha256 != card["corpus_sha256"]:
            return []
        return [
            Recording(row.utterance_id, waveform_of(index.read_payload(row)), row.text, row.speaker)
            for row in index.split(DEV)
        ]
    except (RecipeError, DataError, OSError, KeyError, ValueError):
        return []
