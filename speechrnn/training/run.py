"""A run directory: what training leaves behind, and how to load a model from it.

recipe.yaml        the recipe as it was run
model.json         the best model: its description, its card, the sha256 of its weights
weights-N.npz      its weights, after step N
checkpoints/       where training goes on from
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

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.dataset import DEV
from speechrnn.data.index import Index
from speechrnn.data.shards import waveform_of
from speechrnn.errors import DataError, ModelError, RecipeError
from speechrnn.files import write_atomically
from speechrnn.specs import RecogniserSpec
from speechrnn.training import checkpoint

MODEL = "model.json"


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
    folder: Path, step: int, weights: list[np.ndarray], spec: RecogniserSpec, card: dict
) -> None:
    """Make these weights the run's model, in one atomic step."""
    data = checkpoint.pack_arrays({f"{i:04d}": w for i, w in enumerate(weights)})
    name = f"weights-{step}.npz"
    write_atomically(folder / name, data)
    description = {
        "format": 1,
        "spec": spec.to_dict(),
        "card": card,
        "weights": name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(description, indent=1, ensure_ascii=False)
    write_atomically(folder / MODEL, text.encode())
    for old in folder.glob("weights-*.npz"):
        if old.name != name:
            old.unlink()


def load(folder: str | Path) -> Trained:
    """The best model of a run directory.

    The network is built from its description and filled with arrays: nothing in the folder is
    executed.

    Raises:
        ModelError: no model there, or a damaged one.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / MODEL).read_bytes())
        data = (folder / Path(description["weights"]).name).read_bytes()
        expected = description["sha256"]
        card, spec_data = description["card"], description["spec"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} holds no trained model (no {Path(error.filename).name}); name a run "
            "directory, or train with this output directory first"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MODEL} is damaged ({error!r}); train again") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise ModelError(f"{folder}: the weights are damaged (their sha256 differs); train again")
    spec = RecogniserSpec.from_dict(spec_data)
    model = network.build(spec, seed=None)
    arrays = checkpoint.unpack_arrays(data)
    try:
        model.set_weights([arrays[name] for name in sorted(arrays)])
    except ValueError as error:
        raise ModelError(
            f"{folder / MODEL} describes another network than its weights are of; train again"
        ) from error
    return Trained(model, spec, card)


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
