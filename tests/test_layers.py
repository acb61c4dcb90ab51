"""The recurrent layers give Keras's results, for every length, direction and cell."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn import layers

CELLS = {
    layers.SimpleRNN: keras.layers.SimpleRNN,
    layers.LSTM: keras.layers.LSTM,
    layers.GRU: keras.layers.GRU,
}


def run(layer, x, mask, weights=None):
    """Outputs, and the gradients of a fixed function of them by input and weights."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, mask=mask)
        if weights is not None:
            layer.set_weights(weights)
            y = layer(x, mask=mask)
        outputs = tf.nest.flatten(y)
        loss = tf.add_n([tf.reduce_sum(tf.sin(3 * out)) for out in outputs])
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    return [a.numpy() for a in [*outputs, *gradients]]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_outputs_states_and_gradients_equal_keras(cell, bidirectional, lengths, seed):
    rng = np.random.default_rng(seed)
    frames = max(max(lengths), 1)
    x = rng.normal(size=(len(lengths), frames, 3)).astype(np.float32)
    mask = np.arange(frames) < np.array(lengths)[:, None]

    def build(kind):
        layer = kind(5, return_sequences=True, return_state=True, zero_output_for_mask=True)
        return keras.layers.Bidirectional(layer) if bidirectional else layer

    theirs = build(CELLS[cell])
    theirs(x)
    weights = [rng.normal(size=w.shape) for w in theirs.get_weights()]  # biases too
    expected = run(theirs, x, mask, weights)
    actual = run(build(cell), x, mask, weights)
    for a, b in zip(actual, expected, strict=True):
        # The order of float32 sums differs; nothing else.
        assert np.abs(a - b).max(initial=0) <= 1e-5 * (1 + np.abs(b).max(initial=0))


@pytest.mark.parametrize("cell", CELLS)
def test_other_activations_are_left_to_keras(cell):
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    ours, theirs = (
        kind(5, activation="relu", return_sequences=True) for kind in (cell, CELLS[cell])
    )
    theirs(x), ours(x)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_products_stay_near_float32(cell):
    x = np.random.default_rng(0).normal(size=(2, 20, 16)).astype(np.float32)
    exact, rough = (
        cell(32, product_dtype=d, return_sequences=True) for d in ("float32", "bfloat16")
    )
    exact(x), rough(x)
    rough.set_weights(exact.get_weights())
    difference = np.abs(exact(x).numpy() - rough(x).numpy()).max()
    assert 0 < difference < 0.05  # bfloat16 keeps 8 bits: 0.4 % an operand


@pytest.mark.parametrize("cell", CELLS)
def test_config_round_trip_keeps_the_product_dtype(cell):
    config = cell(4, product_dtype="bfloat16", go_backwards=True).get_config()
    again = cell.from_config(config)
    assert (again.product_dtype, again.go_backwards) == ("bfloat16", True)


@pytest.mark.parametrize("mask", [[False, True, True], [True, False, True]])
def test_padding_that_does_not_follow_the_frames_is_refused(mask):
    layer = layers.LSTM(4, return_sequences=True, zero_output_for_mask=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="holes or begins with padding"):
        layer(tf.zeros([1, 3, 2]), mask=tf.constant([mask]))
