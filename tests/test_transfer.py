"""A run that starts from another: what it keeps, what it refuses, and that it ends the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from unittest import mock

import numpy as np
import pytest
from conftest import REPOSITORY, write_recipe

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.dataset import DEV, Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import ModelError, RecipeError, Stopped
from speechrnn.training import checkpoint, initial, loopback, run, train
from speechrnn.training.display import history
from speechrnn.training.distribution import Distribution
from speechrnn.training.recogniser import RecogniserLearner


@pytest.fixture(scope="module")
def relabelled(whistles, tmp_path_factory):
    """The same whistles in another alphabet: c is written e, and d f. Shared: a, b, the space."""
    lines = whistles.read_text("utf-8").splitlines()
    path = tmp_path_factory.mktemp("relabelled") / "manifest.tsv"
    columns = [line.split("\t") for line in lines[1:]]
    for row in columns:
        row[1] = str(whistles.parent / row[1])
        row[2] = row[2].replace("c", "e").replace("d", "f")
    path.write_text("\n".join([lines[0], *map("\t".join, columns)]) + "\n", "utf-8")
    return path


@pytest.fixture
def started(trained, relabelled, tmp_path):
    """started("training.epochs=2", ...) -> a recipe of the new alphabet that starts from
    ``trained``."""
    path = write_recipe(tmp_path, relabelled)

    def load(*changes):
        return recipe.load(path, [f"training.init_from={trained}", *changes])

    return load


@pytest.fixture(scope="module")
def descended(trained, relabelled, tmp_path_factory):
    """A run of a part of the other corpus, with a moving average; what it started from had itself
    started from another."""
    folder = tmp_path_factory.mktemp("descended")
    lines = relabelled.read_text("utf-8").splitlines()
    dev = [line for line in lines if "\tdev\t" in line]
    (folder / "few.tsv").write_text("\n".join([*lines[:13], *dev]) + "\n", "utf-8")
    named, loaded = folder / "named", run.load(trained)
    card = {**loaded.card, "corpus": "Whistles", "licence": "CC BY 4.0"}
    card["init_from"] = {"name": "grandparent", "licence": "CC BY-SA 4.0"}
    named.mkdir()
    run.save(named, 0, loaded.model.get_weights(), loaded.spec, card)
    path = write_recipe(folder, folder / "few.tsv", training={"epochs": 2, "ema_decay": 0.9})
    settings = recipe.load(path, [f"training.init_from={named}"])
    train(settings, quiet=True)
    return settings


def given(settings, here=None):
    """The network as training has it before its first step, its spec, and what it started from."""
    here = here or Distribution()
    start = initial.read(settings, here)
    spec = start.continued(recogniser_spec(settings, prepare(settings, progress=False)))
    model = network.build(spec, settings.seed)
    fresh = model.get_weights()
    start.give(model, spec, here)
    return model, spec, start, fresh


def test_the_encoder_is_that_of_the_other_run_bit_for_bit(started, trained):
    model, _, _, fresh = given(started())
    source = run.load(trained).model
    heads = [{id(w) for w in each.logits.weights} for each in (model, source)]
    encoders = [
        [w.numpy() for w in each.weights if id(w) not in head]
        for each, head in zip((model, source), heads, strict=True)
    ]
    assert len(encoders[0]) == len(fresh) - 2
    for found, wanted in zip(*encoders, strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_shared_symbols_keep_their_columns_and_new_ones_start_fresh(started, trained):
    model, spec, start, fresh = given(started())
    source = run.load(trained)
    assert "".join(source.spec.alphabet.symbols) == " abcd"
    assert "".join(spec.alphabet.symbols) == " abef"
    assert start.shared(spec) == [" ", "a", "b"]
    kernel, bias = (w.numpy() for w in model.logits.weights)
    assert kernel.shape == (64, 6)
    for new, old, initial_ in zip(
        (kernel, bias), source.model.logits.get_weights(), fresh[-2:], strict=True
    ):
        np.testing.assert_array_equal(new[..., :4], old[..., :4])  # the blank, space, a and b
        np.testing.assert_array_equal(new[..., 4:], initial_[..., 4:])
        assert new.shape == initial_.shape


def test_columns_follow_their_symbols_and_not_their_places(started, trained):
    model, spec, _, fresh = given(started("data.alphabet=fb ea"))
    source = run.load(trained)
    kernel, old = model.logits.get_weights()[0], source.model.logits.get_weights()[0]
    labels = {s: 1 + i for i, s in enumerate(spec.alphabet.symbols)}
    there = {s: 1 + i for i, s in enumerate(source.spec.alphabet.symbols)}
    assert labels["b"] != there["b"], "the test wants symbols in another order"
    for symbol in " ab":
        np.testing.assert_array_equal(kernel[:, labels[symbol]], old[:, there[symbol]])
    for symbol in "ef":
        np.testing.assert_array_equal(kernel[:, labels[symbol]], fresh[-2][:, labels[symbol]])


def test_what_is_taken_are_the_weights_that_were_scored(started, descended):
    """With a moving average the model's weights and the last step's differ: the model's count."""
    last = checkpoint.load_newest(descended.output / "checkpoints")[0]
    scored = run.load(descended.output).model.get_weights()
    found = given(started(f"training.init_from={descended.output}"))[0].get_weights()
    assert found[0].tobytes() == scored[0].tobytes() == last["average"][0].tobytes()
    assert found[0].tobytes() != last["model"][0].tobytes()


def test_the_average_of_a_new_run_starts_from_the_given_weights(started):
    settings = started("training.ema_decay=0.9")
    model, spec, *_ = given(settings)
    learner = RecogniserLearner(model, spec, settings)
    for mean, weight in zip(learner.arrays()["average"], model.get_weights(), strict=True):
        assert mean.tobytes() == weight.tobytes()


def test_features_keep_the_statistics_that_the_encoder_was_trained_with(descended, trained):
    """The new corpus's own would make other numbers of the same sound."""
    measured = prepare(descended, progress=False).statistics
    kept, source = run.load(descended.output).spec.statistics, run.load(trained).spec.statistics
    assert kept == source
    assert measured != source


def test_the_card_says_from_which_model_and_attribution_travels(descended):
    found = run.load(descended.output).card["init_from"]
    assert found == {
        "name": "whistles",
        "corpus": "Whistles",
        "licence": "CC BY 4.0",
        "sha256": read_sha256(descended.training.init_from),
        "init_from": {"name": "grandparent", "licence": "CC BY-SA 4.0"},
    }


def test_what_was_learned_is_there_before_the_first_step(trained, whistles, tmp_path):
    """With the same alphabet and corpus, the network scores as the other one did."""
    path = write_recipe(tmp_path, whistles)
    settings = recipe.load(path, [f"training.init_from={trained}"])
    model, spec, *_ = given(settings)
    dev = Batches(settings, spec, prepare(settings, progress=False), DEV)
    score = RecogniserLearner(model, spec, settings).validate(dev, dev.plain())
    assert score.measures["wer"] == run.load(trained).card["dev"]["wer"]


# What does not fit


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model.units=16", "model.units is 16, and 32 there"),
        ("model.cell=gru", "model.cell is gru, and lstm there"),
        ("features.mels=24", "features.mels is 24, and 20 there"),
        ("features.hop_ms=20", "features.hop_ms is 20.0, and 10.0 there"),
    ],
)
def test_another_network_is_refused_before_anything_is_prepared(started, change, told, tmp_path):
    settings = started(change)
    with pytest.raises(RecipeError, match="fits no other network") as refused:
        train(settings, quiet=True)
    assert told in str(refused.value)
    assert f"Give the recipe {change.split('=')[0]}=" in str(refused.value)
    assert not settings.output.exists()


@pytest.mark.parametrize("change", ["model.dropout=0.5", "model.chunk=8"])
def test_what_changes_no_weight_may_differ(started, change):
    given(started(change))


def test_an_export_is_refused_and_the_run_asked_for(started, trained, tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"TFL3")
    saved = tmp_path / "served" / "1"
    saved.mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path / "a.tflite", saved, saved.parent):
        with pytest.raises(ModelError, match=r"an exported model; .* a run directory"):
            initial.read(started(f"training.init_from={path}"), Distribution())
    with pytest.raises(ModelError, match="holds no trained model"):
        initial.read(started(f"training.init_from={tmp_path}"), Distribution())
    output = started().output
    with pytest.raises(RecipeError, match="own output"):
        initial.read(started(f"training.init_from={output}"), Distribution())


def test_a_run_directory_may_hold_its_exports(started, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    (other / "savedmodel").mkdir()
    (other / "savedmodel" / "saved_model.pb").write_bytes(b"")
    found = initial.read(started(f"training.init_from={other}"), Distribution())
    assert found.sha256 == read_sha256(trained)


def test_weights_that_are_not_those_described_are_refused(started, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    loaded = run.load(trained)
    weights = [w[..., :-1] for w in loaded.model.get_weights()]
    run.save(other, 0, weights, loaded.spec, loaded.card)
    with pytest.raises(ModelError, match="describes another network than its weights"):
        given(started(f"training.init_from={other}"))


def test_a_language_model_starts_anew(tmp_path):
    path = tmp_path / "lm.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "lm",
                "output": "runs/lm",
                "data": {"train_texts": ["a.txt"]},
                "language_model": {},
                "training": {"init_from": "runs/other"},
            }
        )
    )
    with pytest.raises(RecipeError, match="init_from is for recognisers"):
        recipe.load_any(path)


# Going on


@pytest.fixture
def usual_signals():
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def outcomes(monkeypatch):
    """``outcome`` and ``differences`` of pipelines/reliability/small_run.py."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "pipelines" / "reliability"))
    import small_run

    yield small_run
    sys.modules.pop("small_run", None)


def stop_after(steps):
    """Within it, SIGTERM comes in the step after so many."""
    real, done = RecogniserLearner.step, []

    def step(learner, batch, rate):
        done.append(None)
        if len(done) == steps + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(learner, batch, rate)

    return mock.patch.object(RecogniserLearner, "step", step)


def test_a_run_that_was_stopped_needs_the_other_no_more_and_ends_in_the_same_bits(
    descended, tmp_path, usual_signals, outcomes
):
    other = tmp_path / "other"
    shutil.copytree(descended.training.init_from, other)
    section = descended.training.model_copy(update={"init_from": other})
    stopped = descended.model_copy(update={"training": section, "output": tmp_path / "stopped"})
    with stop_after(2), pytest.raises(Stopped):
        train(stopped, quiet=True)
    assert initial.read(stopped, Distribution()).sha256 == read_sha256(other)
    shutil.rmtree(other)
    train(stopped, quiet=True)
    found, wanted = outcomes.outcome(stopped.output), outcomes.outcome(descended.output)
    assert found["step"] > 3
    assert outcomes.differences(found, wanted) == []


def read_sha256(folder):
    return json.loads((folder / "model.json").read_bytes())["sha256"]


def test_a_run_goes_on_only_with_what_it_started_from(started, trained, tmp_path, usual_signals):
    other, anew = tmp_path / "other", started("training.init_from=null")
    shutil.copytree(trained, other)
    settings = started(f"training.init_from={other}", f"output={tmp_path / 'begun'}")
    with stop_after(1), pytest.raises(Stopped):
        train(settings, quiet=True)
    with pytest.raises(RecipeError, match="init_from"):
        train(settings.model_copy(update={"training": anew.training}), quiet=True)
    # Trained further, or another run under that name.
    loaded = run.load(other)
    run.save(other, 1, [w + 1 for w in loaded.model.get_weights()], loaded.spec, loaded.card)
    with pytest.raises(RecipeError, match="holds another model than the one"):
        train(settings, quiet=True)
    copy = settings.output / initial.FOLDER
    assert read_sha256(copy) == read_sha256(trained)
    initial.read(started(f"training.init_from={copy}", f"output={settings.output}"), Distribution())

    shutil.copytree(trained, anew.output)
    with pytest.raises(RecipeError, match="did not start from"):
        train(started(), quiet=True)
    assert not (anew.output / initial.FOLDER).exists()


def test_workers_get_the_chiefs_weights_and_need_not_see_the_run(started, trained):
    """What the chief sends is put together by the others, who have not read anything."""

    sent = []

    class Chief(Distribution):
        def from_chief(self, value):
            sent.append(json.loads(json.dumps(value)))
            return value

        def arrays_from_chief(self, groups):
            sent.append(groups)
            return groups

    class Other(Chief):
        is_chief = False

        def from_chief(self, value):
            return sent.pop(0)

        def arrays_from_chief(self, groups):
            shapes = [array.shape for array in groups["model"]]
            found = sent.pop(0)
            assert shapes == [array.shape for array in found["model"]]
            return found

    chief, spec, start, _ = given(started(), Chief())
    model, its_spec, told, _ = given(started("training.init_from=seen/by/the/chief"), Other())
    assert told.provenance == start.provenance and its_spec == spec
    for found, wanted in zip(model.get_weights(), chief.get_weights(), strict=True):
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.long
@pytest.mark.timeout(600)  # three starts of TensorFlow, on a machine that may be busy
def test_two_workers_that_start_from_another_model_train_as_one(trained, relabelled, tmp_path):
    """To the rounding of sums, which are taken in another order."""
    training = {"epochs": 2, "clip_norm": 5.0, "show_pairs": 0, "init_from": str(trained)}
    changes = {"augment": {"speed": [1, 1], "time_masks": 0}, "model": {"dropout": 0.0}}
    paths, said = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(write_recipe(tmp_path / name, relabelled, training=training, **changes))
    train(recipe.load(paths[0]), quiet=True)
    workers = loopback.start(2, [str(paths[1])], lambda *line: said.append(line))
    try:
        assert [worker.wait(400) for worker in workers] == [0, 0], said
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    ends = [history(tmp_path / name / "run") for name in ("one", "two")]
    for key in ("train_loss", "dev_loss"):
        one, two = ([line[key] for line in each] for each in ends)
        np.testing.assert_allclose(two, one, rtol=1e-3)
