"""The comparison behind pipelines/edge/aarch64.sh says no when two machines disagree."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "pipelines/edge/agree.py"


@pytest.fixture
def agree(tmp_path):
    """agree("compare", ...) -> the finished process; without SPEECHRNN_DATA."""

    def call(*arguments):
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
        return subprocess.run(
            [sys.executable, SCRIPT, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )

    return call


@pytest.fixture
def answers(tmp_path):
    """answers("a", text=..., best=...) -> an .npz of one recording, of 5 frames and 3 labels."""

    def write(name, text="yes", best=0.9, frames=5):
        posteriors = np.full([frames, 3], (1 - best) / 2)
        posteriors[:, 1] = best
        path = tmp_path / f"{name}.npz"
        np.savez(path, machine=name, text_0=text, log_probs_0=np.log(posteriors))
        return path

    return write


def test_what_rounding_makes_of_it_is_agreement(agree, answers):
    done = agree("compare", answers("here"), answers("there", best=0.91))
    assert done.returncode == 0, done.stdout
    assert "they agree" in done.stdout


@pytest.mark.parametrize("other", [{"text": "no"}, {"best": 0.8}, {"frames": 6}, {"best": np.nan}])
def test_another_text_posterior_or_length_is_disagreement(agree, answers, other):
    done = agree("compare", answers("here"), answers("there", **other))
    assert done.returncode == 1, done.stdout


def test_a_machine_agrees_with_itself_on_recordings_of_its_own(agree, tmp_path):
    paths = agree("recordings", tmp_path).stdout.split("\n")[:-1]
    for name in ("once", "again"):
        heard = agree("hear", tmp_path / f"{name}.npz", *paths)
        assert heard.returncode == 0, heard.stderr
        assert heard.stdout.strip(), "nothing was heard, so that a comparison would prove little"
    done = agree("compare", tmp_path / "once.npz", tmp_path / "again.npz")
    assert done.returncode == 0, done.stdout
    assert "max |a - b| 0.0e+00" in done.stdout


def test_a_wrong_call_shows_the_usage(agree):
    done = agree("hear", "out.npz")
    assert done.returncode == 1
    assert "recordings FOLDER" in done.stderr
