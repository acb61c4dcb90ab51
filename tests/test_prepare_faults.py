"""Small forms of pipelines/reliability: preparing while the machine fails, and damaged shards."""

from __future__ import annotations

import importlib
import shutil
from itertools import islice

import pytest
from conftest import REPOSITORY


@pytest.fixture(scope="module")
def reliability():
    """reliability("prepare_faults"): a script as a module, which imports its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "pipelines" / "reliability"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def corpora(reliability, tmp_path_factory):
    return reliability("noise_corpora").make(tmp_path_factory.mktemp("corpora"), utterances=12)


def tried(trials):
    """How many there were, of which none had a problem."""
    found = [*trials]
    assert [problem for problems in found for problem in problems] == []
    return len(found)


def test_a_killed_run_leaves_the_state_before_and_goes_on_to_the_same_bytes(reliability, corpora):
    assert tried(reliability("prepare_faults").kills(corpora, 2)) == 2


def test_a_run_asked_to_end_does_so_with_143_and_takes_its_workers_along(reliability, corpora):
    assert tried(reliability("prepare_faults").terminations(corpora, 1)) == 1


def test_no_space_and_no_permission_leave_the_state_before_and_say_what_to_do(reliability, corpora):
    # All operations are tried by the script; a prime reaches different ones in each shard.
    assert tried(reliability("prepare_faults").refusals(corpora, every=11)) > 10


def test_a_full_disk_ends_with_1_and_leaves_the_state_before(reliability, corpora):
    faults = reliability("prepare_faults")
    if not faults.may_mount():
        pytest.skip("this system lets a process mount no disk of its own")
    assert tried(faults.full_disks(corpora, 2)) == 2


def test_a_fault_that_is_not_survived_would_be_reported(reliability, corpora):
    """What the tests above rely on."""
    noise = reliability("noise_corpora")
    root = shutil.copytree(corpora.folder / "earlier-whole", corpora.folder / "spoiled")
    assert noise.problems(root, corpora) == []
    assert noise.finished(root, corpora) != []
    next(iter(root.glob("*.tfrecord"))).unlink()
    assert noise.problems(root, corpora) != []


@pytest.mark.parametrize("pattern", ["*.tfrecord", "*.tfrecord.json"])
def test_flips_and_cuts_of_a_shard_or_its_sidecar_are_found_named_and_mended(
    reliability, corpora, tmp_path, pattern, monkeypatch
):
    damaged = reliability("damaged_shards").Damaged(corpora)
    try:
        assert tried(islice(damaged.flips(20, pattern), 20)) == 20
        assert tried(islice(damaged.cuts(10, pattern), 10)) == 10
    finally:
        shutil.rmtree(damaged.root)
