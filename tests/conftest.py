"""A language of whistles: enough for a tiny recogniser to learn in seconds, through real files."""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import soundfile
from hypothesis import settings

# The same examples every time: a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

RATE = 16000
HERTZ = {"a": 400, "b": 800, "c": 1600, "d": 3200}
REPOSITORY = Path(__file__).parents[1]
# Where files are shared out to processes, those that take minutes go first: at the end there is
# nothing left to share.
LONGEST = (
    *("test_notebooks", "test_distribution", "test_training", "test_documented_commands"),
    *("test_export_fused", "test_export", "test_long_recordings", "test_compare_cells", "test_cli"),
)

TINY = {
    "name": "whistles",
    "seed": 1,
    "data": {"batch_seconds": 6, "shard_utterances": 32, "workers": 1},
    "features": {"mels": 20},
    "augment": {"speed": [0.95, 1.05], "time_masks": 1, "time_mask_ms": 30},
    "model": {"units": 32, "layers": 1, "subsampling": "stack", "dropout": 0.1},
    "training": {"epochs": 14, "learning_rate": 0.01, "clip_norm": 5.0, "show_pairs": 1},
}


def whistle(text, seed, level=0.3):
    """(samples,) float32: a tone a letter, a pause a space, a little noise."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(int(0.1 * RATE))]
    for char in text:
        time = np.arange(int(rng.uniform(0.12, 0.18) * RATE)) / RATE
        hertz = HERTZ.get(char, 0) * rng.uniform(0.97, 1.03)
        parts += [level * np.sin(2 * np.pi * hertz * time), np.zeros(int(0.08 * RATE))]
    wave = np.concatenate(parts)
    return (wave + rng.normal(0, rng.uniform(0.001, 0.01), len(wave))).astype(np.float32)


def write_corpus(folder, train=60, dev=12, seed=0):
    """Whistled phrases and their manifest, split by speaker."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["utterance_id\tpath\ttext\tsplit\tspeaker"]
    for number in range(train + dev):
        words = ["".join(rng.choice(list("abcd"), rng.integers(1, 4))) for _ in range(2)]
        split, name = ("train" if number < train else "dev"), f"u{number:03d}"
        soundfile.write(folder / f"{name}.wav", whistle(" ".join(words), number), RATE)
        lines.append(f"{name}\t{name}.wav\t{' '.join(words)}\t{split}\ts{number % 3}{split}")
    manifest = folder / "manifest.tsv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


def write_recipe(folder, manifest, **changes):
    """TINY as a file, with ``section={key: value}`` changes."""
    tree = json.loads(json.dumps(TINY))
    tree["output"] = str(folder / "run")
    tree["data"]["manifest"] = str(manifest)
    for section, values in changes.items():
        tree[section] = {**tree[section], **values}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


@pytest.fixture(scope="session")
def whistles(tmp_path_factory):
    """The manifest of a whistled corpus."""
    return write_corpus(tmp_path_factory.mktemp("whistles"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, whistles):
    """The run directory of a recogniser of whistles."""
    from speechrnn import recipe
    from speechrnn.training import train

    folder = tmp_path_factory.mktemp("trained")
    loaded = recipe.load(write_recipe(folder, whistles))
    train(loaded, quiet=True)
    return loaded.output


@pytest.fixture
def speechrnn(monkeypatch, capsys):
    """Run the command in this process: speechrnn("info", path) -> (exit code, stdout, stderr)."""
    from speechrnn import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["speechrnn", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
