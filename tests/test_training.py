"""Training learns, resumes, refuses what is damaged, and names what makes it diverge."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY, write_recipe

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.dataset import Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import ModelError, PreparedDataError, RecipeError, TrainingDiverged
from speechrnn.recipe import TrainingSection
from speechrnn.training import checkpoint, run, train
from speechrnn.training.display import history
from speechrnn.training.recogniser import RecogniserLearner
from speechrnn.training.schedule import learning_rate


def test_a_tiny_recogniser_learns_to_read_whistles(trained):
    card = run.load(trained).card
    assert card["dev"]["wer"] < 0.2
    lines = history(trained)
    assert [line["epoch"] for line in lines] == list(range(14))
    assert lines[-1]["dev_loss"] < 0.3 * lines[0]["dev_loss"]
    assert card["dev"]["wer"] == min(line["wer"] for line in lines)


def test_the_saved_model_is_the_one_that_was_scored(trained, whistles):
    loaded = recipe.load(trained / "recipe.yaml")
    index = prepare(loaded)
    kept = run.load(trained)
    dev = Batches(loaded, recogniser_spec(loaded, index), index, "dev")
    score = RecogniserLearner(kept.model, kept.spec, loaded).validate(dev, dev.plain())
    assert score.measures["wer"] == kept.card["dev"]["wer"]


def test_tensorboard_gets_losses_and_gradient_norms_by_layer(trained):
    events = [str(path) for path in (trained / "events").glob("*")]
    tags = {
        value.tag
        for record in tf.data.TFRecordDataset(events)
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
    }
    expected = {"train/loss", "train/learning_rate", "dev/wer", "dev/cer", "dev/dev_loss"}
    expected |= {f"gradient_norm/{name}" for name in ("all", "recurrent_1", "logits")}
    assert expected <= tags


def test_a_finished_run_is_not_trained_again(trained, whistles):
    before = (trained / "model.json").read_bytes()
    started = len(history(trained))
    train(recipe.load(trained / "recipe.yaml"), quiet=True)
    assert (trained / "model.json").read_bytes() == before
    assert len(history(trained)) == started


def test_a_run_killed_inside_an_epoch_ends_like_an_uninterrupted_one(tmp_path, whistles):
    """Same steps, same batches; the weights may differ by the order of float32 sums."""
    quick = dict(epochs=3, checkpoint_every_seconds=0.01)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_recipe(folder, whistles, training={**TRAINING, **quick})
    train(recipe.load(whole / "recipe.yaml"), quiet=True)

    command = [sys.executable, "-m", "speechrnn", "train", str(killed / "recipe.yaml")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    saved = killed / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(saved.glob("step-0000000[5-9]")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, state = checkpoint.load_newest(saved)
    assert state["batch"] > 0, "the kill was meant to fall inside an epoch"
    assert state["step"] < history(whole / "run")[-1]["step"]

    train(recipe.load(killed / "recipe.yaml"), quiet=True)
    ends = [history(folder / "run")[-1] for folder in (whole, killed)]
    assert ends[0]["step"] == ends[1]["step"]
    np.testing.assert_allclose(ends[0]["dev_loss"], ends[1]["dev_loss"], rtol=0.02)


TRAINING = {"learning_rate": 0.02, "clip_norm": 5.0, "show_pairs": 0}


@pytest.mark.parametrize("change", ["model.units=12", "training.ema_decay=0.9", "seed=7"])
def test_a_run_that_is_not_this_one_is_not_gone_on_with(trained, change):
    loaded = recipe.load(trained / "recipe.yaml", [change])
    with pytest.raises(RecipeError, match="another seed, model"):
        train(loaded, quiet=True)


def test_a_damaged_checkpoint_is_passed_over_and_none_whole_is_an_error(tmp_path):
    for step in (1, 2, 3):
        arrays = {"model": [np.full(3, step, np.float32)]}
        checkpoint.save(tmp_path, step, arrays, {"step": step}, keep=2)
    newest, oldest = checkpoint.checkpoints(tmp_path)
    assert [path.name for path in (newest, oldest)] == ["step-00000003", "step-00000002"]
    flip(newest / checkpoint.ARRAYS)
    arrays, state = checkpoint.load_newest(tmp_path)
    assert state == {"step": 2}
    np.testing.assert_array_equal(arrays["model"][0], [2, 2, 2])
    (oldest / checkpoint.STATE).unlink()
    with pytest.raises(ModelError, match="no checkpoint"):
        checkpoint.load_newest(tmp_path)


def flip(path, position=100):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["weights", "description", "missing"])
def test_a_damaged_run_is_refused(trained, tmp_path, damage):
    for path in [trained / "model.json", *trained.glob("weights-*.npz")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [weights] = tmp_path.glob("weights-*.npz")
    if damage == "weights":
        flip(weights)
    elif damage == "description":
        (tmp_path / "model.json").write_text(json.dumps({"format": 1}))
    else:
        weights.unlink()
    with pytest.raises(ModelError):
        run.load(tmp_path)


def test_a_step_that_is_not_finite_changes_nothing(whistles, tmp_path):
    loaded = recipe.load(write_recipe(tmp_path, whistles))
    index = prepare(loaded, progress=False)
    spec = recogniser_spec(loaded, index)
    learner = RecogniserLearner(network.build(spec), spec, loaded)
    batch = next(iter(Batches(loaded, spec, index, "train").epochs(0, 1)))
    before = learner.model.get_weights()
    bad = {**batch, "features": batch["features"] * np.nan}
    assert not learner.step(bad, 0.01)[1]
    for a, b in zip(before, learner.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert learner.step(batch, 0.01)[1]


def test_a_shard_damaged_while_training_is_named(whistles, tmp_path, monkeypatch):
    loaded = recipe.load(write_recipe(tmp_path, whistles))
    index = prepare(loaded, progress=False)
    monkeypatch.setattr("speechrnn.training.recogniser.prepared", lambda *_, **__: index)
    name = next(shard.name for shard in index.shards if shard.name.startswith("train-00000"))
    flip(index.root / name, position=5000)
    with pytest.raises(PreparedDataError, match=name):
        train(loaded, quiet=True)


def test_divergence_names_the_utterances(whistles, tmp_path):
    changes = {**TRAINING, "learning_rate": 1e30, "warmup_fraction": 0.0, "clip_norm": 1e30}
    loaded = recipe.load(write_recipe(tmp_path, whistles, training={"epochs": 2, **changes}))
    with pytest.raises(TrainingDiverged, match=r"u0\d\d"):
        train(loaded, quiet=True)


def test_divergence_is_noticed_where_an_epoch_has_few_batches(whistles, tmp_path):
    changes = {**TRAINING, "learning_rate": 1e30, "warmup_fraction": 0.0, "clip_norm": 1e30}
    path = write_recipe(
        tmp_path, whistles, training={"epochs": 9, **changes}, data={"batch_seconds": 60}
    )
    with pytest.raises(TrainingDiverged, match="5 steps in a row"):
        train(recipe.load(path), quiet=True)
    assert 1 <= len(history(tmp_path / "run")) < 9, "no epoch was meant to have five"


def test_patience_stops_early(whistles, tmp_path):
    changes = {**TRAINING, "learning_rate": 1e-30, "patience_validations": 2, "epochs": 9}
    changes["final_learning_rate"] = 0
    loaded = recipe.load(write_recipe(tmp_path, whistles, training=changes))
    train(loaded, quiet=True)
    assert len(history(loaded.output)) < 9


def test_time_ends_a_run_between_steps_with_a_validation_and_is_over_for_good(whistles, tmp_path):
    changes = {**TRAINING, "epochs": 99, "max_minutes": 1e-5, "validate_every_epochs": 50}
    path = write_recipe(tmp_path, whistles, training=changes)
    loaded = recipe.load(path)
    train(loaded, quiet=True)
    [validation] = history(loaded.output)
    assert validation["step"] == 1 and validation["training_seconds"] > 60e-5
    train(loaded, quiet=True)
    assert history(loaded.output) == [validation]

    # Killed between its last step and the validation: that is made up for, with no further step.
    folder = loaded.output / "checkpoints"
    arrays, state = checkpoint.load_newest(folder)
    due = {**state, "epoch": 0, "batch": 1, "best": None}
    checkpoint.save(folder, 1, arrays, due, keep=1)
    train(loaded, quiet=True)
    assert [(v["epoch"], v["step"]) for v in history(loaded.output)] == [(0, 1)]

    train(recipe.load(path, ["training.max_minutes=null", "training.epochs=2"]), quiet=True)
    last = history(loaded.output)[-1]
    assert last["epoch"] == 1 and last["step"] > 5


def test_the_averaged_weights_are_scored_and_kept(whistles, tmp_path):
    changes = {**TRAINING, "epochs": 1, "ema_decay": 0.9}
    loaded = recipe.load(write_recipe(tmp_path, whistles, training=changes))
    train(loaded, quiet=True)
    arrays, _ = checkpoint.load_newest(loaded.output / "checkpoints")
    kept = run.load(loaded.output).model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, arrays["average"], strict=True))
    assert not np.array_equal(arrays["average"][0], arrays["model"][0])


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end():
    section = TrainingSection(learning_rate=1e-3, final_learning_rate=1e-5, warmup_fraction=0.2)
    assert learning_rate(0.0, section) == 0
    assert learning_rate(0.1, section) == pytest.approx(5e-4)
    assert learning_rate(0.2, section) == pytest.approx(1e-3)
    assert learning_rate(0.6, section) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(1.0, section) == pytest.approx(1e-5)


def test_a_trained_run_is_served_as_a_savedmodel(trained, tmp_path, speechrnn):
    """Captured tensors are none of the things that a SavedModel is refused for."""
    code, _, err = speechrnn("export", trained, tmp_path / "served", "--format", "savedmodel")
    assert code == 0, err
    code, _, err = speechrnn("info", tmp_path / "served")
    assert code == 0, err
