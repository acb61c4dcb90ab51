"""The presets: they load, what is said of them is what was measured, and the smallest one runs."""

from __future__ import annotations

import importlib
import json
import re
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.runtime import Recognizer
from speechrnn.runtime.operations import multiply_adds
from speechrnn.specs import AlphabetSpec, RecogniserSpec, Statistics

RECIPES = sorted((REPOSITORY / "configs" / "presets").glob("*.yaml"))
RESULTS = json.loads((REPOSITORY / "pipelines" / "results" / "presets.json").read_text())
BENCHMARKS = REPOSITORY / "pipelines" / "benchmarks"


def specification(path):
    """As the measurement has it: the letters of English, no statistics."""
    loaded = recipe.load(path)
    alphabet = AlphabetSpec(tuple("abcdefghijklmnopqrstuvwxyz' "), loaded.text)
    size = loaded.features.dimension
    return RecogniserSpec(
        loaded.features, alphabet, loaded.model, Statistics((0.0,) * size, (1.0,) * size)
    )


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("presets")
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_preset_loads_under_its_name_and_trains_where_its_name_says(path):
    loaded = recipe.load(path)
    assert loaded.name == path.stem and loaded.output.name == path.stem


def test_the_small_ones_stream():
    latency = {path.stem: specification(path).latency_ms for path in RECIPES}
    assert latency["microcontroller"] < 500 and latency["raspberry_pi"] < 500
    assert latency["server"] is None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_was_measured_is_the_recipe_as_it_stands(path):
    spec, found = specification(path), RESULTS[path.stem]
    if path.stem != "server":  # whose 30 million weights take seconds to draw
        built = network.build(spec, seed=None)
        trained = sum(int(np.prod(weight.shape)) for weight in built.trainable_variables)
        assert found["parameters"] == trained
    assert found["latency_ms"] == spec.latency_ms
    assert found["device"]["multiply_adds_per_second"] == multiply_adds(spec)


def test_the_page_and_the_recipes_say_what_was_measured(script):
    page = (REPOSITORY / "docs" / "presets.md").read_text(encoding="utf-8")
    assert script.table(RESULTS) in page
    assert set(RESULTS) == {path.stem for path in RECIPES} == set(script.PRESETS)
    for path in RECIPES:
        assert "\n".join(script.head(RESULTS[path.stem])) in path.read_text(encoding="utf-8")
        size = re.search(r"([\d.]+) MB in", path.read_text(encoding="utf-8"))[1]
        assert float(size) == pytest.approx(RESULTS[path.stem]["int8_bytes"] / 1e6, abs=0.005)


def test_the_smallest_preset_is_exported_in_half_a_megabyte_and_transcribes(tmp_path):
    from speechrnn.export.tflite import export_tflite

    spec = specification(REPOSITORY / "configs" / "presets" / "microcontroller.yaml")
    out = tmp_path / "small.tflite"
    made = export_tflite(network.build(spec, 0), spec, {}, out)
    assert made.size_bytes == out.stat().st_size < 450_000
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    recogniser = Recognizer(out)
    assert set(recogniser.transcribe(noise).text) <= set(spec.alphabet.symbols)
    assert recogniser.listen(noise).log_probs.shape == (25, 29)  # a frame for every 40 ms
    stream = recogniser.stream()
    stream.feed(noise)
    assert stream.finish().text == recogniser.transcribe(noise).text
