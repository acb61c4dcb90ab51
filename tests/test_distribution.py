"""Several devices and workers, and batches in parts, take the steps of one; nobody is waited for
in vain."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import REPOSITORY, write_recipe

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.dataset import Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import UsageError
from speechrnn.training import checkpoint, loopback, train
from speechrnn.training.display import history
from speechrnn.training.distribution import Cluster, Distribution
from speechrnn.training.recogniser import RecogniserLearner

CLUSTER = REPOSITORY / "pipelines" / "cluster"
STILL = {"speed": [1, 1], "time_masks": 0}


def learner(path, *changes):
    loaded = recipe.load(path, changes)
    spec = recogniser_spec(loaded, prepare(loaded, progress=False))
    return RecogniserLearner(network.build(spec, loaded.seed), spec, loaded)


def test_a_batch_in_parts_takes_the_step_of_the_whole(whistles, tmp_path):
    """To the rounding of sums in float32. The last of four parts of three rows has none."""
    path = write_recipe(tmp_path, whistles, augment=STILL, model={"dropout": 0.0})
    whole, parts = learner(path), learner(path, "training.accumulate=4")
    loaded = recipe.load(path)
    index = prepare(loaded, progress=False)
    batches = Batches(loaded, whole.spec, index, "train").epochs(0, 1)
    for batch in list(batches)[:3]:
        few = {key: value[:3] if value.shape.rank else value for key, value in batch.items()}
        for rows in (batch, few):
            loss, finite, norm, by_layer = parts.step(rows, 0.01)
            wanted = whole.step(rows, 0.01)
            assert finite
            np.testing.assert_allclose(loss, wanted[0], rtol=1e-5)
            np.testing.assert_allclose(norm, wanted[2], rtol=1e-4)
            np.testing.assert_allclose(by_layer, wanted[3], rtol=1e-3)
    for a, b in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_worker_without_a_row_takes_the_step_of_the_others(whistles, tmp_path, monkeypatch):
    path = write_recipe(tmp_path, whistles, model={"dropout": 0.0})
    idle, busy = learner(path), learner(path)
    batch = {
        "features": np.ones([2, 9, 20], np.float32),
        "frames": np.array([9, 6], np.int32),
        "labels": np.array([[1, 2], [3, 0]], np.int32),
    }
    others = busy._part(tf.constant(0), *busy.inputs(batch))
    monkeypatch.setattr(
        idle.distribution, "total", lambda own: [a + b for a, b in zip(own, others, strict=True)]
    )
    loss, finite, _, _ = idle.step({name: value[:0] for name, value in batch.items()}, 0.01)
    assert finite and loss == busy.step(batch, 0.01)[0]
    for a, b in zip(idle.model.get_weights(), busy.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_two_devices_take_the_steps_of_one(whistles, tmp_path):
    path = write_recipe(tmp_path, whistles)
    command = [sys.executable, str(REPOSITORY / "tests" / "two_devices.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["replicas"] == 2
    # Sums in another order; Adam divides small gradients by their own size, which enlarges it.
    assert told["steps"] < 1e-3 and told["weights"] < 1e-3 and told["average"] < 1e-3
    assert not told["finite"] and told["changed by what is not finite"] == 0
    assert told["copies"] == 0 and told["restored"] == 0
    assert told["masks are drawn apart"]


def lines_of(processes_log):
    return "\n".join(f"[{number}] {line}" for number, line in processes_log)


@pytest.mark.timeout(600)  # five starts of TensorFlow, on a machine that may be busy
def test_two_workers_train_as_one_and_end_when_one_is_killed(whistles, tmp_path):
    """The steps that two workers did, and what one makes of their checkpoint, are those of one
    worker that was never disturbed."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    changes = dict(augment=STILL, model={"dropout": 0.0})
    training = {"epochs": 6, "clip_norm": 5.0, "checkpoint_every_seconds": 0.1, "show_pairs": 0}
    paths = [
        write_recipe(tmp_path / name, whistles, training=training, **changes)
        for name in ("one", "two")
    ]
    train(recipe.load(paths[0]), quiet=True)
    one = history(tmp_path / "one" / "run")

    said = []
    output = tmp_path / "two" / "run"
    processes = loopback.start(2, [str(paths[1])], lambda *line: said.append(line))
    try:
        deadline = time.monotonic() + 400
        while len(history(output)) < 2:
            assert time.monotonic() < deadline, lines_of(said)
            assert all(p.poll() is None for p in processes), lines_of(said)
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGKILL)
        assert processes[0].wait(90) == 1, lines_of(said)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 5  # what it said last comes through a thread
    while "Start all workers again" not in lines_of(said) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "Start all workers again" in lines_of(said)
    two = history(output)
    assert 2 <= len(two) < len(one), "the kill was meant to fall before the end"
    _, state = checkpoint.load_newest(output / "checkpoints")
    assert 0 < state["step"] < one[-1]["step"]

    train(recipe.load(paths[1]), quiet=True)
    two = history(output)
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for name in ("train_loss", "dev_loss"):
        np.testing.assert_allclose(
            [line[name] for line in two], [line[name] for line in one], rtol=1e-3
        )


@pytest.mark.long
def test_a_worker_whose_fellows_do_not_come_says_so_and_ends(whistles, tmp_path):
    path = write_recipe(tmp_path, whistles)
    hosts = [f"127.0.0.1:{port}" for port in loopback.free_ports(2)]
    command = [sys.executable, "-m", "speechrnn", "train", str(path), "training.join_minutes=0.1"]
    for config in loopback.tf_configs(hosts):
        done = subprocess.run(
            command, env={**os.environ, "TF_CONFIG": config}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "have started" in done.stderr and hosts[1] in done.stderr


def test_what_one_worker_tells_itself_is_what_it_said():
    alone = Distribution()
    assert alone.gather({"a": [1.5, "ä"]}) == [{"a": [1.5, "ä"]}]
    assert alone.agree(2.5, 3).tolist() == [[2.5, 3]]


def test_tf_config_tells_who_this_worker_is(monkeypatch):
    told = {"cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]}}
    told["task"] = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))
    assert Cluster.from_environment() == Cluster(("a:1", "b:2", "c:3"), 2)
    monkeypatch.delenv("TF_CONFIG")
    assert Cluster.from_environment() is None


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 1}}',
        '{"cluster": {"chief":["a:1"], "worker":["b:1"]},"task": {"type": "worker", "index": -1}}',
    ],
)
def test_a_tf_config_that_names_no_workers_is_refused(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match="TF_CONFIG"):
        Cluster.from_environment()


def test_workers_are_asked_for_that_nobody_named(trained, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    loaded = recipe.load(trained / "recipe.yaml", ["training.strategy=multi_worker"])
    with pytest.raises(UsageError, match="TF_CONFIG"):
        train(loaded, quiet=True)


SHOW = f'. "{CLUSTER}/tf_config.sh"; printf %s "$TF_CONFIG"'


@pytest.mark.parametrize("named", [{"HOSTS": "n-0.x n-1.x"}, {"HOST_PATTERN": "n-%d.x"}])
def test_the_shell_snippet_makes_the_tf_config_of_a_worker(named, monkeypatch):
    given = {"PORT": "22", "WORKER": "1", "WORKERS": "2", "PATH": os.environ["PATH"], **named}
    shown = subprocess.run(["sh", "-uc", SHOW], env=given, capture_output=True, text=True)
    assert shown.stdout == loopback.tf_configs(["n-0.x:22", "n-1.x:22"])[1], shown.stderr


def test_the_kubernetes_job_gives_every_pod_its_number_and_address():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes" / "train.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(given["WORKERS"])
    # A pod's address, as the documentation of Indexed Jobs has it: JOB-NUMBER.SUBDOMAIN
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    assert pod["subdomain"] == domain and service["spec"]["clusterIP"] == "None"
    assert given["HOST_PATTERN"] == f"{name}-%d.{domain}"
    assert service["spec"]["ports"][0]["port"] == int(given["PORT"])
    [script] = container["args"]
    script = script.replace("/cluster/", f"{CLUSTER}/").replace("exec speechrnn train", "echo")
    environment = {**os.environ, **{k: v for k, v in given.items() if v}, "WORKER": "1"}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "configs/mine.yaml" in done.stdout, done.stderr


@pytest.mark.parametrize("code", [1, 137, 143, 0, 3])
def test_the_slurm_script_starts_a_worker_a_node_and_queues_again_what_was_lost(tmp_path, code):
    for name, body in {
        "scontrol": 'case $1 in show) echo node7; echo node9;; *) echo "$@" >> "$LOG";; esac',
        "srun": 'shift; for p in 0 1; do SLURM_PROCID=$p "$@" || code=$?; done; exit $code',
        ".venv/bin/speechrnn": 'echo "$TF_CONFIG $@" >> "$LOG"; exit CODE',
    }.items():
        script = tmp_path / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/sh\n{body}\n".replace("CODE", str(code)))
        script.chmod(0o755)
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    log = tmp_path / "log"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "node[7,9]",
        "LOG": str(log),
    }
    batch = str(CLUSTER / "slurm" / "train.sbatch")
    command = ["bash", batch, "mine.yaml", "output=runs/a b"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    told = log.read_text().splitlines()
    configs = loopback.tf_configs(["node7:20012", "node9:20012"])
    shown = [f"{config} train mine.yaml output=runs/a b --quiet" for config in configs]
    assert told == [*shown, *["requeue 12"] * (code in (1, 137, 143))]
