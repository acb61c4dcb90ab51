"""The network: lengths, padding and batch-mates change nothing; CTC counts true lengths."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn import ctc, model
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.text import BLANK

ALPHABET = AlphabetSpec(tuple("abc "))


def spec(**changes):
    small = ModelSpec(units=8, layers=2, conv_channels=4)
    return RecogniserSpec(
        FeatureSpec(mels=20, mfccs=10), ALPHABET, dataclasses.replace(small, **changes)
    )


VARIANTS = [
    dict(cell=cell, bidirectional=both, subsampling=sub, time_stride=stride, layer_norm=norm)
    for (cell, both), (sub, stride, norm) in zip(
        itertools.product(model.CELLS, (False, True)),
        itertools.cycle([("conv", 4, True), ("stack", 3, False), ("conv", 3, False)]),
        strict=False,
    )
]
VARIANTS += [
    dict(cell="gru", bidirectional=False, lookahead=3),
    dict(cell="lstm", bidirectional=True, chunk=7, right_context=4),
    pytest.param(
        dict(cell="clockwork", bidirectional=True, chunk=5, right_context=8),
        marks=pytest.mark.long,  # lstm's chunks are as good a test, and clockwork's without any
    ),
]
BUILT = {}


def built(**changes):
    key = str(sorted(changes.items()))
    if key not in BUILT:
        network = model.build(spec(**changes), seed=3)
        BUILT[key] = tf.function(network, reduce_retracing=True)
    return BUILT[key]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    extra=st.integers(0, 200),
    seed=st.integers(0, 99),
)
def test_padding_and_batch_mates_do_not_change_logits(variant, lengths, extra, seed):
    rng = np.random.default_rng(seed)
    network = built(**variant)
    utterances = [rng.normal(size=(n, 20)).astype(np.float32) for n in lengths]
    # What lies in the padding must not matter, so it is not zero here.
    batch = rng.normal(size=(len(lengths), max(lengths) + extra, 20)).astype(np.float32)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    together = network(tf.constant(batch), tf.constant(lengths)).numpy()
    for row, utterance in zip(together, utterances, strict=True):
        alone = network(tf.constant(utterance[None]), tf.constant([len(utterance)])).numpy()[0]
        frames = spec(**variant).model.output_frames(len(utterance))
        assert alone.shape == (frames, ALPHABET.size)
        assert np.abs(row[:frames] - alone).max() <= 1e-5 * (1 + np.abs(alone).max())


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("frames", [1, 5, 12, 13])
def test_logit_frames_are_the_ceiling_of_frames_by_stride(stride, frames):
    network = built(time_stride=stride)
    logits = network(tf.zeros([1, frames, 20]), tf.constant([frames]))
    assert (
        logits.shape[1]
        == -(-frames // stride)
        == spec(time_stride=stride).model.output_frames(frames)
    )


def test_the_seed_fixes_the_initial_weights():
    first, again, other = (model.build(spec(), seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )


def brute_force_loss(log_probs, labels):
    """-log of the summed probability of every path that collapses to the labels."""
    frames, symbols = log_probs.shape
    total = -np.inf
    for path in itertools.product(range(symbols), repeat=frames):
        if [s for s, _ in itertools.groupby(path) if s != BLANK] == list(labels):
            total = np.logaddexp(total, sum(log_probs[t, s] for t, s in enumerate(path)))
    return -total


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [3, 1, 2]])
def test_ctc_loss_equals_the_sum_over_all_paths_at_any_padding(labels):
    logits = np.random.default_rng(len(labels)).normal(size=(1, 5, 4)).astype(np.float32)
    expected = brute_force_loss(tf.nn.log_softmax(logits)[0].numpy(), labels)
    for padding in (0, 3, 40):
        padded = np.pad(logits, [(0, 0), (0, padding), (0, 0)], constant_values=5.0)
        padded_labels = np.pad([labels], [(0, 0), (0, padding)]).astype(np.int32)
        loss = ctc.loss(tf.constant(padded), tf.constant([5]), tf.constant(padded_labels))
        np.testing.assert_allclose(loss, [expected], rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_rows_ctc_loss_and_gradient_do_not_depend_on_its_batch(rows):
    rng = np.random.default_rng(rows)
    logits = tf.constant(rng.normal(size=(rows, 9, 4)), tf.float32)
    frames = tf.constant(rng.integers(4, 10, rows), tf.int32)
    labels = tf.constant([[1, 2, 2][: 1 + i % 3] + [0] * (2 - i % 3) for i in range(rows)])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        together = ctc.loss(logits, frames, labels)
        alone = [ctc.loss(logits[i, None], frames[i, None], labels[i, None]) for i in range(rows)]
        alone = tf.concat(alone, axis=0)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(tape.gradient(together, logits), tape.gradient(alone, logits))
