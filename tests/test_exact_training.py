"""A training that is stopped, killed or refused the disk ends as one that was not: bit for bit."""

from __future__ import annotations

import errno
import fcntl
import importlib
import itertools
import json
import os
import signal
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY
from tensorflow.python.framework import config as tensorflow_config

from speechrnn import arrays as npz
from speechrnn import recipe
from speechrnn.errors import MachineRefused, ModelError, Stopped
from speechrnn.training import checkpoint, determinism, train
from speechrnn.training.display import Display, history
from speechrnn.training.language_model import LanguageModelLearner
from speechrnn.training.stopping import StopSignals

FOLDER = REPOSITORY / "pipelines" / "reliability"
RARELY = 1e9  # seconds between checkpoints: only those that something else makes


@pytest.fixture(scope="module")
def script():
    """A script of the folder as a module, by name."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(autouse=True)
def usual_signals():
    """Where the tests run in the background, they have inherited a SIGINT that is ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture(scope="module", params=["make", "make_language"], ids=["recogniser", "language"])
def trained_here(request, script, tmp_path_factory):
    """A small training of either kind, and the outcome of a run of it that nothing stopped."""
    folder, small_run = tmp_path_factory.mktemp("exact"), script("small_run")
    make = getattr(small_run, request.param)
    training = {"epochs": 3, "checkpoint_every_seconds": RARELY}
    laboratory = script("laboratory").Laboratory(make(folder, "recipe", **training))
    yield laboratory, small_run.outcome(laboratory.run(folder / "whole"))
    tensorflow_config.disable_op_determinism()


def stopped_by(laboratory, output, at_step, stop, **training):
    """Train until step ``at_step`` is done, and call ``stop`` within the next one."""
    trainer, real = laboratory.trainer(output, **training), laboratory.learner.step

    def step(batch, rate):
        if trainer.position.step == at_step:
            stop()
        return real(batch, rate)

    with mock.patch.object(laboratory.learner, "step", step), trainer.display:
        trainer.start("", "", {}, see="")


def send(number):
    return lambda: os.kill(os.getpid(), number)


def die():
    raise KeyboardInterrupt


def test_a_run_stopped_again_and_again_ends_in_the_same_bits(trained_here, script, tmp_path):
    laboratory, wanted = trained_here
    for step in (0, 1, 4, 8):
        with pytest.raises(Stopped, match=f"SIGTERM after step {step + 1}"):
            stopped_by(laboratory, tmp_path, step, send(signal.SIGTERM))
        _, state = checkpoint.load_newest(tmp_path / "checkpoints")
        assert state["step"] == step + 1, "the step under way is finished, and saved"
    found = script("small_run").outcome(laboratory.run(tmp_path))
    assert script("small_run").differences(found, wanted) == []


def test_a_run_killed_after_a_validation_and_before_a_checkpoint_ends_in_the_same_bits(
    trained_here, script, tmp_path
):
    """The best model and the history are ahead of the checkpoint that is gone on from."""
    laboratory, wanted = trained_here
    with pytest.raises(Stopped):
        stopped_by(laboratory, tmp_path, 1, send(signal.SIGTERM))
    epoch = len(laboratory.train_set.plan(0))
    with pytest.raises(KeyboardInterrupt):
        stopped_by(laboratory, tmp_path, epoch + 1, die)
    _, state = checkpoint.load_newest(tmp_path / "checkpoints")
    assert history(tmp_path)[-1]["step"] > state["step"]
    found = script("small_run").outcome(laboratory.run(tmp_path))
    assert script("small_run").differences(found, wanted) == []


def test_a_run_stopped_in_a_validation_does_it_again(trained_here, script, tmp_path):
    laboratory, wanted = trained_here
    real, calls = laboratory.learner._score, itertools.count()

    def score(*inputs):
        if next(calls) == 1:  # the first batch of dev
            os.kill(os.getpid(), signal.SIGINT)
        return real(*inputs)

    trainer = laboratory.trainer(tmp_path)
    with (
        mock.patch.object(laboratory.learner, "_score", score),
        trainer.display,
        pytest.raises(Stopped) as stopped,
    ):
        next(calls)
        trainer.start("", "", {}, see="")
    assert stopped.value.exit_code == 130
    assert history(tmp_path) == []
    found = script("small_run").outcome(laboratory.run(tmp_path))
    assert script("small_run").differences(found, wanted) == []


# What a checkpoint holds: each part is needed


def without_model(arrays, state, fresh):
    arrays["model"] = fresh["model"]


def without_optimizer(arrays, state, fresh):
    arrays["optimizer"] = fresh["optimizer"]


def without_average(arrays, state, fresh):
    arrays["average"] = fresh["average"]


def with_other(name, value):
    def change(arrays, state, fresh):
        assert state[name] != value
        state[name] = value

    change.__name__ = name
    return change


PARTS = [
    without_model,
    without_optimizer,
    without_average,
    with_other("epoch", 0),
    with_other("batch", 0),
    with_other("step", 0),
    with_other("best", [0.0, 0.0]),
    with_other("validations_without_gain", 1000),
    with_other("loss_sum", 0.0),
    with_other("losses", 99),
    with_other("seconds", 1e6),
]


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
@pytest.mark.parametrize("change", PARTS, ids=lambda change: change.__name__)
def test_a_checkpoint_without_one_of_its_parts_leads_elsewhere(
    trained_here, script, tmp_path, change
):
    laboratory, wanted = trained_here
    limit = {"max_minutes": 1000.0}  # what ``seconds`` is for
    step = len(laboratory.train_set.plan(0)) + 2
    with pytest.raises(Stopped):
        stopped_by(laboratory, tmp_path, step, send(signal.SIGTERM), **limit)
    arrays, state = checkpoint.load_newest(tmp_path / "checkpoints")
    change(arrays, state, laboratory.fresh)
    checkpoint.save(tmp_path / "checkpoints", step + 1, arrays, state, keep=1)
    found = script("small_run").outcome(laboratory.run(tmp_path, **limit))
    assert script("small_run").differences(found, wanted)


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
def test_the_same_bits_are_warned_of_where_they_cannot_be_promised(
    trained_here, tmp_path, monkeypatch, capsys
):
    laboratory, _ = trained_here
    with pytest.raises(Stopped):
        stopped_by(laboratory, tmp_path, 1, send(signal.SIGTERM))
    real = determinism.conditions
    monkeypatch.setattr(
        determinism, "conditions", lambda section: {**real(section), "number of cores": "77"}
    )
    laboratory.trainer(tmp_path, quiet=False).resume()
    assert "the last bits may differ: number of cores 77 (was" in capsys.readouterr().err


def another_optimizer(arrays, state):
    arrays["optimizer"] = arrays["optimizer"][:-1]


def another_state(arrays, state):
    state["unknown"] = 1


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
@pytest.mark.parametrize("change", [another_optimizer, another_state])
def test_a_checkpoint_of_another_version_is_refused(trained_here, tmp_path, change):
    laboratory, _ = trained_here
    with pytest.raises(Stopped):
        stopped_by(laboratory, tmp_path, 1, send(signal.SIGTERM))
    arrays, state = checkpoint.load_newest(tmp_path / "checkpoints")
    change(arrays, state)
    checkpoint.save(tmp_path / "checkpoints", 9, arrays, state, keep=1)
    with pytest.raises(ModelError, match="does not fit this version"):
        laboratory.run(tmp_path)


@pytest.mark.parametrize("line", [b'{"x"', b"\xff", b"[]", b"{}", b'{"epoch": null}'])
def test_a_damaged_history_is_an_error_that_says_what_to_do(tmp_path, line):
    (tmp_path / "history.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ModelError, match="move it away"):
        history(tmp_path)


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
@pytest.mark.parametrize("large", [1000.0, float("nan"), float("inf")])
def test_a_language_model_that_diverged_is_the_worst_there_is(trained_here, large):
    laboratory, _ = trained_here
    learner, dev = laboratory.learner, laboratory.dev_set

    def nats(inputs, lengths, targets):
        return tf.cast(lengths, tf.float32) * large

    with mock.patch.object(learner, "_score", nats):
        score = learner.score(dev, dev.plain())
    assert score.measures["perplexity"] == float("inf")
    assert score.rank > [999.0], "any other is better"
    assert bool(score.non_finite) is (large != 1000.0)


# Signals


def test_the_first_signal_is_remembered_and_the_second_ends_the_process():
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        both = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
        assert both == [signal.SIG_DFL] * 2
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_that_a_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_ends_the_command_with_143_and_the_way_on(speechrnn, script, tmp_path, monkeypatch):
    path = script("small_run").make_language(tmp_path, "run", epochs=2, determinism=False)
    real = LanguageModelLearner.step

    def step(learner, batch, rate):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(learner, batch, rate)

    monkeypatch.setattr(LanguageModelLearner, "step", step)
    monkeypatch.setattr("speechrnn.training.threads.configure", lambda threads: None)
    code, _, err = speechrnn("train", path, "--quiet")
    assert code == 143
    assert "stopped by SIGTERM after step 1" in err
    assert "the same command goes on" in err


# Checkpoints


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    losses = [0.1, 1 / 3, 1e-300, 123456.789e10, float("inf")]
    arrays = {"model": [np.random.default_rng(0).normal(size=7).astype(np.float32)], "average": []}
    checkpoint.save(tmp_path, 3, arrays, {"best": losses}, keep=1)
    found, state = checkpoint.load_newest(tmp_path)
    assert state["best"] == losses
    assert found["model"][0].tobytes() == arrays["model"][0].tobytes()


def test_the_same_step_saved_again_never_leaves_a_moment_without_one(tmp_path, monkeypatch):
    def save(value):
        return checkpoint.save(tmp_path, 5, {"model": [np.array(value)]}, {}, keep=1)

    (tmp_path / "step-00000001").write_text("a file in the place of a checkpoint")
    (tmp_path / ".step-00000001.1").write_text("or of one that is written")
    save(1)
    assert len([*tmp_path.iterdir()]) == 1
    there = []
    monkeypatch.setattr(
        checkpoint,
        "sync_folder",
        lambda folder: there.append(len(checkpoint.checkpoints(tmp_path))),
    )
    assert save(2).name == "step-00000005.1"
    assert min(there) == 1
    assert len([*tmp_path.iterdir()]) == 1
    assert checkpoint.load_newest(tmp_path)[0]["model"][0] == 2
    for value in range(3, 14):  # numbers, not names, are in order
        save(value)
    assert checkpoint.load_newest(tmp_path)[0]["model"][0] == 13


def test_a_checkpoint_saved_below_a_damaged_one_is_kept(tmp_path):
    """After a damaged newest one, training goes on from below: what it saves must stay."""
    for step in (4, 8):
        checkpoint.save(tmp_path, step, {}, {"step": step}, keep=2)
    (tmp_path / "step-00000008" / checkpoint.STATE).write_text("{}")
    checkpoint.save(tmp_path, 5, {}, {"step": 5}, keep=1)
    told = []
    assert checkpoint.load_newest(tmp_path, told.append)[1] == {"step": 5}
    assert told == []


@pytest.mark.parametrize("state", ["[]", "3", "[" * 100_000, "\xff"], ids=range(4))
def test_a_state_that_is_none_is_damage_even_where_its_checksum_is_right(tmp_path, state):
    import hashlib

    folder = checkpoint.save(tmp_path, 1, {}, {}, keep=1)
    (folder / checkpoint.STATE).write_bytes(state.encode("latin1"))
    sums = json.loads((folder / checkpoint.SUMS).read_text())
    sums[checkpoint.STATE] = hashlib.sha256(state.encode("latin1")).hexdigest()
    (folder / checkpoint.SUMS).write_text(json.dumps(sums))
    with pytest.raises(ModelError, match=r"state\.json is no state"):
        checkpoint.load_newest(tmp_path)


def test_damage_to_any_file_of_a_checkpoint_or_a_model_is_noticed(script, tmp_path):
    damaged = script("damaged_checkpoints")
    (tmp_path / "model").mkdir()
    found = [
        *damaged.checkpoint_problems(tmp_path / "checkpoints", flips=20, cuts=10),
        *damaged.model_problems(tmp_path / "model", flips=20, cuts=10),
    ]
    assert len(found) == 150
    assert not any(found)


@pytest.mark.long
def test_a_kill_inside_a_save_leaves_the_checkpoint_before(script, tmp_path):
    assert not any(script("kills_in_save").kills(tmp_path, 4, parameters=200_000))


@pytest.mark.long
@pytest.mark.parametrize("make", ["make", "make_language"])
def test_a_killed_training_ends_in_the_same_bits(script, tmp_path, make):
    make = getattr(script("small_run"), make)
    assert not any(script("kills").kills(tmp_path, 3, make, epochs=8))


# The machine refuses


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
def test_a_disk_that_refuses_leaves_what_was_there_and_says_so(trained_here, script, tmp_path):
    laboratory, _ = trained_here
    found = [*script("save_faults").faults(laboratory, tmp_path, 9, (errno.ENOSPC,))]
    assert len(found) >= 4
    assert not any(found)


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
def test_a_folder_that_may_not_be_written_is_an_error_that_says_what_to_do(trained_here, tmp_path):
    laboratory, _ = trained_here
    (tmp_path / "checkpoints").write_text("a file where a folder has to be")
    with pytest.raises(
        MachineRefused, match=r"cannot write a checkpoint in .*Free space there"
    ) as e:
        stopped_by(laboratory, tmp_path, 0, send(signal.SIGTERM))
    assert e.value.exit_code == 1


def test_logs_that_cannot_be_written_do_not_end_a_training(tmp_path, capsys, monkeypatch):
    from speechrnn.recipe import TrainingSection

    display = Display(tmp_path, TrainingSection(), "s audio")

    def refuse(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "no space")

    monkeypatch.setattr(tf.summary, "scalar", refuse)
    with display:
        for step in (1, 2):
            display.step(step, 0.0, 1.0, 1e-3, {}, 1.0)
    told = capsys.readouterr().err
    assert told.count("no more logs for TensorBoard") == 1
    assert "no space" in told


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
def test_left_over_parts_of_a_killed_run_are_removed(trained_here, tmp_path):
    laboratory, _ = trained_here
    (tmp_path / ".model.json.123.partial").write_text("{")
    (tmp_path / "checkpoints" / ".step-00000001.123").mkdir(parents=True)
    laboratory.run(tmp_path, epochs=1)
    assert [*tmp_path.glob(".*"), *(tmp_path / "checkpoints").glob(".*")] == []


# Arrays


def test_equal_arrays_are_packed_into_equal_bytes_and_come_back(tmp_path):
    arrays = {
        "b": np.arange(6, dtype=np.int32).reshape(2, 3),
        "a/0": np.asfortranarray(np.eye(3)),
        "scalar": np.float32(3),
        "none": np.zeros((0, 4), np.float32),
    }
    data = npz.pack(arrays)
    assert npz.pack(arrays) == data
    found = npz.unpack(data, tmp_path)
    assert [*found] == [*arrays]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


# What is no number, and what is no model


@pytest.mark.parametrize("case", [("train", "gradient", "inf"), ("dev", "features", "nan")])
def test_what_is_no_number_is_named_and_changes_nothing(script, tmp_path, case):
    [(_, problems)] = script("non_finite").attempts(tmp_path, [case])
    tensorflow_config.disable_op_determinism()
    assert problems == []


@pytest.mark.long
def test_no_kind_of_what_is_no_number_changes_anything(script, tmp_path):
    problems = [*script("non_finite").attempts(tmp_path)]
    tensorflow_config.disable_op_determinism()
    assert not any(each for _, each in problems)


CHEAP = {
    *("hdf5_weights", "pickled_weights", "declared_terabyte", "overlapping_bomb", "enormous_units"),
    *("weights_elsewhere", "linked_weights", "weights_from_a_pipe", "nested_description"),
    *("graph_writes", "graph_in_a_branch", "graph_saves", "linked_graph", "flex_operation"),
}


def test_hostile_models_are_refused_by_name_and_nothing_of_them_runs(script, tmp_path):
    makers = [make for make in script("hostile_files").MAKERS if make.__name__ in CHEAP]
    assert len(makers) == len(CHEAP)
    found = script("hostile_models").attempts(tmp_path, makers)
    assert not [(name, problems) for name, problems in found if problems]


@pytest.mark.long
def test_every_hostile_model_is_refused(script, tmp_path):
    found = script("hostile_models").attempts(tmp_path)
    assert not [(name, problems) for name, problems in found if problems]


@pytest.mark.parametrize("trained_here", ["make_language"], indirect=True)
def test_a_second_training_in_one_folder_is_refused_and_the_first_is_not_disturbed(
    trained_here, script, tmp_path
):
    laboratory, wanted = trained_here

    def second():
        held = os.open(tmp_path / "training.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(held)
        path = script("small_run").make_language(tmp_path / "other", "run", epochs=1)
        with pytest.raises(MachineRefused, match="another training writes into"):
            train(recipe.load_any(path, [f"output={tmp_path}"]), quiet=True)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        stopped_by(laboratory, tmp_path, 3, second)
    found = script("small_run").outcome(laboratory.run(tmp_path))
    assert script("small_run").differences(found, wanted) == []
