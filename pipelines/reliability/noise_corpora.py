"""Small corpora of noise, one of which becomes the other, and what must hold of them prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechrnn import recipe
from speechrnn.corpora import manifest
from speechrnn.corpora.utterance import Utterance
from speechrnn.data.index import INDEX_FILE, Index
from speechrnn.data.prepare import LOCK_FILE, prepare, rejections
from speechrnn.errors import SpeechRNNError
from speechrnn.recipe import Recipe

RATE = 16_000
SHARD = 4  # utterances


@dataclass(frozen=True)
class Corpora:
    """A corpus and what it becomes: recordings changed, added and removed, one of them broken.

    ``earlier`` and ``later`` are manifests; ``states`` are the files of each when it was prepared
    without any fault.
    """

    folder: Path
    earlier: Path
    later: Path
    states: tuple[dict[str, bytes], dict[str, bytes]]

    def recipe(self, listed: Path, root: Path, workers: int = 1) -> Recipe:
        """What prepares a manifest into ``root``."""
        return _recipe(self.folder, listed, root, workers)


def make(folder: Path, utterances: int = 24, seconds: float = 0.5, seed: int = 0) -> Corpora:
    """Write recordings and both manifests into ``folder``, and prepare both there."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    before = [_spoken(folder, f"u{i}", i, seconds, rng) for i in range(utterances)]
    broken = Utterance("broken", folder / "broken.flac", "a", "train")
    broken.path.write_text("no recording")
    # Most of it changes, so that there is always something to do.
    after = [
        _spoken(folder, f"v{i}", i, seconds, rng) if i % 3 else before[i]
        for i in range(utterances // 6, utterances + utterances // 6)
        if i < utterances or i % 3
    ]
    earlier, later = folder / "earlier.tsv", folder / "later.tsv"
    manifest.write(earlier, before)
    manifest.write(later, [*after, broken])
    states = []
    for listed in (earlier, later):
        root = folder / f"{listed.stem}-whole"
        prepare(_recipe(folder, listed, root, 1), progress=False)
        states.append(files(root))
    return Corpora(folder, earlier, later, (states[0], states[1]))


def files(root: Path) -> dict[str, bytes]:
    """Everything in a prepared folder but its lock, by its path there."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != LOCK_FILE
    }


def problems(root: Path, corpora: Corpora) -> list[str]:
    """What is wrong with a folder that held ``earlier`` whole, and was to hold ``later``."""
    try:
        index = Index.load(root)
        index.verify()
        for row in index.rows:
            index.read_payload(row)
        rejections(root)
    except SpeechRNNError as error:
        return [f"the state before is lost: {error}"]
    if (root / INDEX_FILE).read_bytes() not in [each[INDEX_FILE] for each in corpora.states]:
        return ["its index is neither the earlier nor the later one"]
    return []


def finished(root: Path, corpora: Corpora) -> list[str]:
    """What is wrong with a folder once it has been prepared again: it must be ``later``."""
    found, wanted = files(root), corpora.states[1]
    if found == wanted:
        return []
    different = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    return [f"not what an uninterrupted run writes: {', '.join(different)}"]


def _spoken(
    folder: Path, name: str, number: int, seconds: float, rng: np.random.Generator
) -> Utterance:
    path = folder / f"{name}.flac"
    samples = round(seconds * RATE * rng.uniform(0.8, 1.2))
    soundfile.write(path, rng.normal(0, 0.1, samples), RATE)
    split = "dev" if number % 4 == 0 else "train"
    return Utterance(name, path, "abc"[number % 3], split, f"s{number % 2}")


def _recipe(folder: Path, listed: Path, root: Path, workers: int) -> Recipe:
    data = {"manifest": str(listed), "prepared": str(root), "workers": workers}
    return recipe.from_dict(
        {
            "name": "noise",
            "output": str(folder / "run"),
            "data": {**data, "shard_utterances": SHARD},
            "features": {"mels": 20},
        }
    )
