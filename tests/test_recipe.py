"""Recipes: typed, closed to unknown keys, and helpful about mistakes."""

import pytest
import yaml
from conftest import REPOSITORY

from speechrnn import recipe
from speechrnn.errors import ModelError, RecipeError
from speechrnn.specs import (
    AlphabetSpec,
    FeatureSpec,
    ModelSpec,
    RecogniserSpec,
    Statistics,
    TextRules,
)

MINIMAL = {"name": "r", "output": "out", "data": {"manifest": "m.tsv"}}


def build(**sections):
    return recipe.from_dict({**MINIMAL, **sections})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainning": {}}, "unknown key trainning; did you mean training?"),
        ({"training": {"epoch": 3}}, "unknown key training.epoch; did you mean training.epochs?"),
        ({"model": {"unit": 3}}, "unknown key model.unit; did you mean model.units?"),
        ({"features": {"mel": 3}}, "unknown key features.mel; did you mean features.mels?"),
        ({"model": {"cell": "lstmm"}}, r"model.cell: .*'lstm'.*found 'lstmm'"),
        ({"model": {"units": 0}}, "units is 0; at least 1"),
        ({"features": {"fft_length": 500}}, "power of two"),
        ({"features": {"window_ms": 40}}, "640 samples; 1 to fft_length 512"),
        ({"features": {"high_hz": 9000}}, "half of sample_rate"),
        ({"augment": {"speed": [1.1, 0.9]}}, "the first must not exceed the second"),
        (
            {"augment": {"tempo": [0.2, 1]}},
            r"tempo is \[0.2, 1.0\]; it must lie within 0.5",
        ),
        ({"augment": {"room": {"rt60": 1}}}, "did you mean augment.room.rt60_s?"),
        ({"augment": {"noise": {"fodler": "x"}}}, "did you mean augment.noise.folder?"),
        (
            {"augment": {"band": {"probability": 2}}},
            "2.0; it must lie within 0 to 1",
        ),
        ({"augment": {"speed": {"start": [1, 1], "by_epoch": 3}}}, "augment.speed.end is missing"),
        (
            {"augment": {"speed": {"star": [1, 1]}}},
            "did you mean augment.speed.start?",
        ),
        ({"augment": {"speed": "fast"}}, r"augment.speed: .*found 'fast'"),
        ({"training": {"epochs": "many"}}, r"training.epochs: .*found 'many'"),
        ({"data": {}}, "data.manifest is missing"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(sections, message):
    with pytest.raises(RecipeError, match=message):
        build(**sections)


def test_a_file_with_overrides(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    overrides = ["training.epochs=7", "augment.speed=[0.9, 1.1]", "data.alphabet=null"]
    loaded = recipe.load(path, overrides)
    assert loaded.training.epochs == 7
    assert loaded.augment.speed.at(0) == (0.9, 1.1)
    assert loaded.data.alphabet is None


@pytest.mark.parametrize("override", ["training.epochs", "=3", "name.x=3", "seed=[1"])
def test_a_malformed_override_is_refused(tmp_path, override):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(RecipeError):
        recipe.load(path, [override])


@pytest.mark.parametrize("content", ["", "- a list", "a: [", "\udcff"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError):
        recipe.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="cannot read"):
        recipe.load(tmp_path / "nothing.yaml")


def test_yaml_round_trip():
    original = build(text={"case": "keep"}, model={"units": 5})
    assert recipe.from_dict(yaml.safe_load(original.to_yaml())) == original


def test_a_fingerprint_moves_with_its_sections_only():
    first, second = build(), build(training={"epochs": 3})
    assert first.fingerprint("model", "features") == second.fingerprint("model", "features")
    assert first.fingerprint("training") != second.fingerprint("training")


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/*.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads(path):
    assert recipe.load_any(path).name == path.stem


SPEC = RecogniserSpec(
    FeatureSpec(kind="mfcc", mfccs=3),
    AlphabetSpec(("a", "é"), TextRules(case="keep")),
    ModelSpec(cell="gru"),
    Statistics((1.0, 2.0, 3.0), (0.5, 0.5, 0.25)),
)


def test_a_description_survives_plain_data():
    assert RecogniserSpec.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("model"),
        lambda d: d["features"].update(window_ms=-1),
        lambda d: d["alphabet"].update(symbols=[]),
        lambda d: d["model"].update(surprise=1),
    ],
)
def test_a_description_that_does_not_fit_is_a_model_error(change):
    data = SPEC.to_dict()
    change(data)
    with pytest.raises(ModelError, match="description"):
        RecogniserSpec.from_dict(data)


def test_ranges_and_ramps_are_written_as_they_are_read():
    ramp = {"start": [1.0, 1.0], "end": [0.9, 1.1], "by_epoch": 20}
    augment = {"speed": ramp, "tempo": [0.9, 1.1], "telephone": {"probability": 0.25}}
    loaded = build(augment=augment)
    written = yaml.safe_load(loaded.to_yaml())["augment"]
    assert written["speed"] == ramp
    assert written["tempo"] == [0.9, 1.1]
    assert written["telephone"] == {"probability": 0.25}
    assert written["band"] is None
    assert recipe.from_dict(yaml.safe_load(loaded.to_yaml())) == loaded
    assert [loaded.augment.speed.at(epoch) for epoch in (0, 10, 30)] == [
        (1.0, 1.0),
        (0.95, 1.05),
        (0.9, 1.1),
    ]


def test_a_number_for_a_range_is_told_once_under_the_key_that_was_written():
    with pytest.raises(RecipeError) as refused:
        build(augment={"speed": 1.1})
    lines = str(refused.value).splitlines()[1:]
    assert lines == ["  augment.speed: a range is needed; write [low, high] (found 1.1)"]
