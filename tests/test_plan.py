"""An epoch's plan: complete, within the budget, and a pure function of its inputs."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.data.plan import epoch_plan

SAMPLES = st.lists(st.integers(1, 1000), max_size=60).map(np.array)


@settings(deadline=None)
@given(samples=SAMPLES, budget=st.integers(1, 4000), seed=st.integers(0, 9), sort=st.booleans())
def test_every_utterance_is_in_one_batch_within_the_budget(samples, budget, seed, sort):
    plan = epoch_plan(samples, budget, seed, epoch=1, sort=sort)
    assert sorted(i for batch in plan for i in batch) == list(range(len(samples)))
    for batch in plan:
        assert len(batch) == 1 or samples[batch].max() * len(batch) <= budget


def test_the_same_seed_and_epoch_give_the_same_plan_and_others_do_not():
    samples = np.random.default_rng(0).integers(1000, 90000, 200)
    plans = [epoch_plan(samples, 400_000, *key) for key in ((1, 5), (1, 5), (1, 6), (2, 5))]
    as_lists = [[batch.tolist() for batch in plan] for plan in plans]
    assert as_lists[0] == as_lists[1]
    assert as_lists[0] != as_lists[2]
    assert as_lists[0] != as_lists[3]


def test_a_sorted_plan_goes_from_short_to_long():
    samples = np.random.default_rng(0).integers(1000, 90000, 200)
    means = [samples[batch].mean() for batch in epoch_plan(samples, 400_000, 0, 0, sort=True)]
    assert all(a < b for a, b in pairwise(means))


def test_little_is_padding():
    samples = np.random.default_rng(0).integers(16000, 160000, 1000)
    plan = epoch_plan(samples, 60 * 16000, 0, 3)
    padded = sum(samples[batch].max() * len(batch) for batch in plan)
    assert samples.sum() / padded > 0.85  # lengths in a batch differ by the jitter, 10 %
