"""A small training, made of nothing, on which the faults of this folder are tried."""

from __future__ import annotations

import hashlib
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechrnn.files import MODEL
from speechrnn.training import checkpoint
from speechrnn.training.display import history

RATE = 16_000
HERTZ = {"a": 400, "b": 800, "c": 1600, "d": 3200}
CLOCK = {"training_seconds", "audio_seconds_per_second", "characters_per_second"}
TRAINING = {
    "epochs": 40,
    "learning_rate": 0.01,
    "clip_norm": 5.0,
    "ema_decay": 0.9,  # with dropout and patience: all that a checkpoint has to carry
    "patience_validations": 1000,
    "checkpoint_every_seconds": 0.2,
    "show_pairs": 0,
    "determinism": True,
}


def make(folder: Path, name: str, utterances: int = 48, **training: Any) -> Path:
    """Write a corpus of tones into ``folder``, unless it is there, and a recipe -> its path.

    Its output is ``folder``/``name``.
    """
    recipe = folder / f"{name}.yaml"
    tree = {
        "name": "tones",
        "output": str(folder / name),
        "seed": 1,
        "data": {
            "manifest": str(_corpus(folder, utterances)),
            "prepared": str(folder / "prepared"),
            "batch_seconds": 6,
            "workers": 1,
        },
        "features": {"mels": 20},
        "augment": {"speed": [0.95, 1.05], "time_masks": 1, "time_mask_ms": 30},
        "model": {"units": 24, "layers": 1, "subsampling": "stack", "dropout": 0.2},
        "training": {**TRAINING, **training},
    }
    recipe.write_text(json.dumps(tree))  # JSON is YAML
    return recipe


def make_language(folder: Path, name: str, **training: Any) -> Path:
    """The recipe of a language model of drawn letters, as ``make``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, letters = np.random.default_rng(0), list(string.ascii_lowercase[:4])
    for split, count in (("train", 40), ("dev", 10)):
        lines = ["".join(rng.choice([*letters, " "], 12)) + "a" for _ in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = {f"{split}_texts": [str(folder / f"{split}.txt")] for split in ("train", "dev")}
    tree = {
        "name": "letters",
        "output": str(folder / name),
        "seed": 1,
        "data": {**texts, "batch_characters": 80},
        "language_model": {"units": 16, "layers": 1, "embedding": 8, "dropout": 0.2},
        "training": {**TRAINING, **training},
    }
    recipe = folder / f"{name}.yaml"
    recipe.write_text(json.dumps(tree))
    return recipe


def _corpus(folder: Path, utterances: int) -> Path:
    manifest = folder / "manifest.tsv"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["utterance_id\tpath\ttext\tsplit\tspeaker"]
    for number in range(utterances):
        text = "".join(rng.choice(list(HERTZ), rng.integers(2, 6)))
        time = np.arange(int(0.15 * RATE)) / RATE
        gap = np.zeros(int(0.08 * RATE))
        parts = [np.concatenate([gap, 0.3 * np.sin(2 * np.pi * HERTZ[c] * time)]) for c in text]
        wave = np.concatenate([*parts, gap])
        soundfile.write(folder / f"u{number}.wav", wave + rng.normal(0, 0.003, len(wave)), RATE)
        split = "dev" if number % 6 == 0 else "train"
        lines.append(f"u{number}\tu{number}.wav\t{text}\t{split}\ts{number % 3}")
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def outcome(output: Path) -> dict[str, Any]:
    """All that a run ended with, but for what the clock says: sha256 of the kept model and of the
    last step's weights, optimiser and average; where it stood; every validation."""
    description = json.loads((output / MODEL).read_bytes())
    found = checkpoint.load_newest(output / "checkpoints")
    if found is None:
        return {}
    arrays, state = found
    kept = (output / description["weights"]).read_bytes()
    last = {g: hashlib.sha256(b"".join(a.tobytes() for a in each)) for g, each in arrays.items()}
    return {
        "kept model": hashlib.sha256(kept).hexdigest(),
        "its description": description,
        **{f"last {group}": digest.hexdigest() for group, digest in last.items()},
        **{k: v for k, v in state.items() if k != "seconds"},
        "history": [{k: v for k, v in line.items() if k not in CLOCK} for line in history(output)],
    }


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The names of what two outcomes differ in."""
    return sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
