"""An epoch's plan: complete, within the budget, and a pure function of its inputs."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.data import plan as plan_module
from speechrnn.data.plan import JITTER, epoch_plan, slice_of

SAMPLES = st.lists(st.integers(1, 1000), max_size=60).map(lambda x: np.array(x, np.int32))
BUDGET = st.integers(1, 4000)
SEED = st.integers(0, 9)


def cut_one_by_one(samples, budget, seed, epoch, sort):
    """The plan as it is defined: utterance after utterance into the batch that is being filled."""
    rng = np.random.default_rng([seed, epoch])
    jitter = 0 if sort else rng.uniform(-JITTER, JITTER, len(samples))
    batches = []
    for utterance in np.argsort(samples * (1 + jitter), kind="stable").tolist():
        longest = max(samples[i] for i in [*(batches[-1] if batches else []), utterance])
        if not batches or int(longest) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(utterance)
    order = range(len(batches)) if sort else rng.permutation(len(batches))
    return [batches[i] for i in order]


@given(samples=SAMPLES, budget=BUDGET, seed=SEED, sort=st.booleans(), at_once=st.integers(1, 9))
def test_batches_are_those_that_filling_one_after_the_other_gives(
    samples, budget, seed, sort, at_once
):
    with patch.object(plan_module, "_STARTS", at_once):  # or all were looked at together
        plan = epoch_plan(samples, budget, seed, 3, sort)
    assert [batch.tolist() for batch in plan] == cut_one_by_one(samples, budget, seed, 3, sort)


@given(samples=SAMPLES, budget=BUDGET, seed=SEED, sort=st.booleans())
def test_every_utterance_is_in_one_batch_within_the_budget(samples, budget, seed, sort):
    plan = epoch_plan(samples, budget, seed, epoch=1, sort=sort)
    assert sorted(i for batch in plan for i in batch) == list(range(len(samples)))
    for batch in plan:
        assert len(batch) == 1 or samples[batch].max() * len(batch) <= budget


@given(samples=SAMPLES, budget=BUDGET, seed=SEED)
def test_lengths_in_a_batch_are_similar(samples, budget, seed):
    """As far as the others leave a choice: batches do not overlap but by the jitter."""
    plan = sorted(epoch_plan(samples, budget, seed, epoch=1), key=lambda b: samples[b].mean())
    for batch, *longer in (plan[i:] for i in range(len(plan))):
        for other in longer:
            assert samples[batch].max() * (1 - JITTER) <= samples[other].min() * (1 + JITTER)


@given(samples=SAMPLES, budget=BUDGET, seed=SEED, workers=st.integers(1, 70))
def test_the_parts_of_workers_put_together_are_the_batch(samples, budget, seed, workers):
    for batch in epoch_plan(samples, budget, seed, epoch=1):
        parts = [slice_of(batch, worker, workers) for worker in range(workers)]
        np.testing.assert_array_equal(np.concatenate(parts), batch)
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("worker", [-1, 2])
def test_a_worker_that_is_not_one_of_them_is_refused(worker):
    with pytest.raises(ValueError, match=f"worker {worker} of 2"):
        slice_of(np.arange(4), worker, 2)


@given(samples=SAMPLES, budget=BUDGET, skip=st.integers(0, 70))
def test_the_rest_of_a_plan_is_its_batches_from_there_on(samples, budget, skip):
    plan = epoch_plan(samples, budget, seed=1, epoch=1)
    assert [b.tolist() for b in plan[skip:]] == [b.tolist() for b in plan][skip:]
    assert [b.tolist() for b in reversed(plan)] == [b.tolist() for b in plan][::-1]


def test_the_same_seed_and_epoch_give_the_same_plan_and_others_do_not():
    samples = np.random.default_rng(0).integers(1000, 90000, 200)
    plans = [epoch_plan(samples, 400_000, *key) for key in ((1, 5), (1, 5), (1, 6), (2, 5))]
    as_lists = [[batch.tolist() for batch in plan] for plan in plans]
    assert as_lists[0] == as_lists[1]
    assert as_lists[0] != as_lists[2]
    assert as_lists[0] != as_lists[3]


def test_another_numpy_plans_the_same():
    """Written down once: a resumed run, and every worker, must find the order of the first start.

    Should this fail with a new NumPy, its generator has changed: runs cannot go on across it.
    """
    plan = epoch_plan(np.arange(100, 1600, 100), 3000, seed=7, epoch=2)
    written_down = [[9, 11], [8, 10], [0, 1, 2, 3, 4], [13], [5, 6, 7], [12, 14]]
    assert [batch.tolist() for batch in plan] == written_down


def test_a_sorted_plan_goes_from_short_to_long():
    samples = np.random.default_rng(0).integers(1000, 90000, 200)
    means = [samples[batch].mean() for batch in epoch_plan(samples, 400_000, 0, 0, sort=True)]
    assert all(a < b for a, b in pairwise(means))


def test_little_is_padding():
    samples = np.random.default_rng(0).integers(16000, 160000, 1000)
    plan = epoch_plan(samples, 60 * 16000, 0, 3)
    padded = sum(samples[batch].max() * len(batch) for batch in plan)
    assert samples.sum() / padded > 0.85  # lengths in a batch differ by the jitter, 10 %
