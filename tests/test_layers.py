"""The recurrent layers: Keras's results, the papers' equations, and one contract for every cell."""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_oracles import clockwork, depth_gated

from speechrnn import layers
from speechrnn.export import lowering

KERAS = {
    layers.SimpleRNN: keras.layers.SimpleRNN,
    layers.LSTM: keras.layers.LSTM,
    layers.GRU: keras.layers.GRU,
}
GUIDE = Path(__file__).parent.parent / "docs" / "a_cell_of_your_own.md"


def from_the_guide():
    """The namespace after running the guide's Python, printing included."""
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        exec(block, namespace)
    return namespace


LiGRU = from_the_guide()["LiGRU"]

# What the contract holds for. Small sizes: each option must show in a few frames.
CELLS = {
    "simple_rnn": lambda **options: layers.SimpleRNN(6, **options),
    "lstm": lambda **options: layers.LSTM(6, **options),
    "gru": lambda **options: layers.GRU(6, **options),
    "clockwork": lambda **options: layers.ClockworkRNN(6, periods=(1, 2, 5), **options),
    "depth_gated": lambda **options: layers.DepthGatedLSTM(6, **options),
    "depth_gated_upper": lambda **options: layers.DepthGatedLSTM(
        2, lower_cells=1, return_cells=True, **options
    ),
    "of the guide": lambda **options: LiGRU(6, **options),
}
INPUTS = 5
every_cell = pytest.mark.parametrize("cell", CELLS)
lengths_of_rows = st.lists(st.integers(0, 9), min_size=1, max_size=4)
seeds = st.integers(0, 99)


def features(rng, rows, frames, dtype=np.float32):
    return rng.normal(size=(rows, frames, INPUTS)).astype(dtype)


def with_random_weights(layer, rng, x, scale=0.7):
    """Built, and every weight random: biases and peepholes too, or a mistake there is not seen."""
    layer(x)
    layer.set_weights([rng.normal(0, scale, w.shape) for w in layer.get_weights()])
    return layer


@functools.cache
def made(cell, both=False, **options):
    """A layer and its graph of (inputs, mask, *initial states), for all examples of a test."""
    layer = CELLS[cell](return_sequences=True, **options)
    layer = keras.layers.Bidirectional(layer) if both else layer

    def call(x, mask, *state):
        return layer(x, initial_state=list(state) or None, mask=mask)

    return layer, tf.function(call, reduce_retracing=True)


def masked(lengths, frames):
    return np.arange(frames) < np.array(lengths)[:, None]


def assert_near(found, expected, tolerance=1e-5):
    """The order of sums differs between two ways to compute the same; nothing else."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    assert np.abs(found - expected).max(initial=0) <= tolerance * (1 + largest)


def results(layer, x, state=None, mask=None):
    """Outputs, and the gradients of a fixed function of them by inputs, states and weights."""
    x = tf.constant(x)
    watched = [x, *(tf.constant(s) for s in state or [])]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        outputs = tf.nest.flatten(layer(x, initial_state=watched[1:] or None, mask=mask))
        loss = tf.add_n([tf.reduce_sum(tf.sin(3 * out)) for out in outputs])
    gradients = tape.gradient(
        loss, [*watched, *layer.trainable_variables], unconnected_gradients="zero"
    )
    return [a.numpy() for a in [*outputs, *gradients]]


# Keras's own cells


@pytest.mark.parametrize("cell", KERAS)
@settings(max_examples=25, deadline=None)
@given(
    lengths=lengths_of_rows,
    direction=st.sampled_from(["forward", "backward", "both"]),
    with_mask=st.booleans(),
    with_state=st.booleans(),
    sequences=st.booleans(),
    states=st.booleans(),
    zero=st.booleans(),
    seed=seeds,
)
def test_outputs_states_and_gradients_equal_keras(
    cell, lengths, direction, with_mask, with_state, sequences, states, zero, seed
):
    rng = np.random.default_rng(seed)
    frames = max(*lengths, 1)
    x = features(rng, len(lengths), frames)

    def build(kind):
        layer = kind(
            4,
            return_sequences=sequences,
            return_state=states,
            go_backwards=direction == "backward",
            zero_output_for_mask=zero,
        )
        return keras.layers.Bidirectional(layer) if direction == "both" else layer

    theirs = with_random_weights(build(KERAS[cell]), rng, x)
    ours = build(cell)
    ours(x)
    ours.set_weights(theirs.get_weights())
    per_direction = 2 if cell is layers.LSTM else 1
    count = per_direction * (2 if direction == "both" else 1) if with_state else 0
    state = [rng.normal(size=(len(lengths), 4)).astype(np.float32) for _ in range(count)]
    mask = masked(lengths, frames) if with_mask else None
    found, expected = results(ours, x, state, mask), results(theirs, x, state, mask)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b)


@pytest.mark.parametrize("cell", KERAS)
@pytest.mark.parametrize("option", [dict(activation="relu"), dict(use_bias=False)], ids=str)
def test_what_the_fast_loop_does_not_cover_is_left_to_keras(cell, option):
    x = features(np.random.default_rng(0), 2, 4)
    ours, theirs = (kind(5, return_sequences=True, **option) for kind in (cell, KERAS[cell]))
    assert not ours.has_equations()
    theirs(x), ours(x)
    ours.set_weights(theirs.get_weights())
    assert_near(ours(x), theirs(x))


def test_dropout_within_the_recurrence_drops():
    x = features(np.random.default_rng(0), 2, 4)
    layer = layers.LSTM(5, recurrent_dropout=0.5, seed=1)
    assert np.abs(layer(x, training=True) - layer(x, training=False)).max() > 1e-3


# The papers' cells


@settings(max_examples=15, deadline=None)
@given(
    lengths=lengths_of_rows,
    periods=st.sampled_from([(1,), (1, 2), (1, 2, 4), (2, 3, 5), (1, 4, 16)]),
    backwards=st.booleans(),
    seed=seeds,
)
def test_clockwork_equals_the_papers_equations(lengths, periods, backwards, seed):
    rng = np.random.default_rng(seed)
    frames = max(*lengths, 1)
    x = features(rng, len(lengths), frames)
    layer = layers.ClockworkRNN(
        3 * len(periods), periods, return_sequences=True, go_backwards=backwards
    )
    with_random_weights(layer, rng, x)
    found = layer(x, mask=masked(lengths, frames)).numpy()
    for row, length, output in zip(x, lengths, found, strict=True):
        expected = clockwork(row[:length][:: -1 if backwards else 1], layer.get_weights(), periods)
        valid = output[frames - length :] if backwards else output[:length]
        assert_near(valid, expected)


def test_a_faster_module_never_reaches_a_slower_one():
    rng = np.random.default_rng(0)
    x = features(rng, 1, 30)
    layer = with_random_weights(
        layers.ClockworkRNN(12, periods=(1, 2, 4, 8), return_sequences=True), rng, x
    )
    before = layer(x).numpy()
    weights = layer.get_weights()
    weights[0][:, :3] += 1  # the fastest module's own input weights
    layer.set_weights(weights)
    after = layer(x).numpy()
    assert np.abs(after - before)[..., :3].max() > 0.1
    np.testing.assert_array_equal(after[..., 3:], before[..., 3:])


def test_a_module_keeps_its_state_between_its_ticks():
    rng = np.random.default_rng(0)
    x = features(rng, 1, 20)
    layer = with_random_weights(
        layers.ClockworkRNN(6, periods=(1, 5), return_sequences=True), rng, x
    )
    changed = np.abs(np.diff(layer(x).numpy()[0], axis=0)).max(axis=1, initial=0)
    slow = np.abs(np.diff(layer(x).numpy()[0, :, 3:], axis=0)).max(axis=1)
    assert (changed > 0).all()
    assert (np.flatnonzero(slow) + 1).tolist() == [5, 10, 15]


@settings(max_examples=15, deadline=None)
@given(lengths=lengths_of_rows, both=st.booleans(), seed=seeds)
def test_a_depth_gated_stack_equals_the_papers_equations(lengths, both, seed):
    rng = np.random.default_rng(seed)
    frames, units = max(*lengths, 1), 3
    x = features(rng, len(lengths), frames)
    mask = masked(lengths, frames)
    options = dict(return_sequences=True, zero_output_for_mask=True)
    bottom = layers.DepthGatedLSTM(units, return_cells=True, **options)
    top = layers.DepthGatedLSTM(units, lower_cells=1 + both, **options)
    if both:
        bottom, top = keras.layers.Bidirectional(bottom), keras.layers.Bidirectional(top)
    with_random_weights(bottom, rng, x)
    outputs, cells = layers.split_cells(bottom(x, mask=mask), units)
    between = tf.concat([outputs, cells], axis=-1)
    with_random_weights(top, rng, between)
    found = top(between, mask=mask).numpy()

    def expected(row):
        """Two layers, each direction by itself; a direction's memory cells go up to it alone."""
        count = 1 + both
        lower_weights, upper_weights = (
            [weights[i * 4 : (i + 1) * 4] for i in range(count)]
            for weights in (bottom.get_weights(), top.get_weights())
        )
        turns = [slice(None), slice(None, None, -1)][:count]
        lower = [
            [part[turn] for part in depth_gated(row[turn], *weights, None)]
            for turn, weights in zip(turns, lower_weights, strict=True)
        ]
        h = np.concatenate([part[0] for part in lower], axis=-1)
        upper = [
            depth_gated(h[turn], *weights, c[turn])[0][turn]
            for turn, weights, (_, c) in zip(turns, upper_weights, lower, strict=True)
        ]
        return np.concatenate(upper, axis=-1)

    for row, length, output in zip(x, lengths, found, strict=True):
        assert_near(output[:length], expected(row[:length].astype(np.float64)))
        assert not output[length:].any()


# The contract


@every_cell
@settings(max_examples=5, deadline=None)
@given(lengths=lengths_of_rows, seed=seeds)
def test_gradients_equal_finite_differences(cell, lengths, seed):
    rng = np.random.default_rng(seed)
    frames = max(*lengths, 1)
    x = features(rng, len(lengths), frames, np.float64)
    mask = masked(lengths, frames)
    layer = CELLS[cell](return_sequences=True, return_state=True, dtype="float64")
    with_random_weights(layer, rng, x)
    point = [x, *layer.get_weights()]

    def loss(point):
        layer.set_weights(point[1:])
        outputs = layer(point[0], mask=mask)[:2]  # not a clock, which is not differentiable
        return sum(np.sin(3 * out.numpy()).sum() for out in outputs)

    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, mask=mask)[:2]
        value = tf.add_n([tf.reduce_sum(tf.sin(3 * out)) for out in outputs])
    gradients = tape.gradient(value, [inputs, *layer.trainable_variables])
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=point[i].shape)
        moved = [
            loss([*point[:i], point[i] + step * direction, *point[i + 1 :]])
            for step in (1e-6, -1e-6)
        ]
        # Central differences in float64: errors of the order of step ** 2 and 1e-16 / step.
        expected = (moved[0] - moved[1]) / 2e-6
        found = np.sum(gradient.numpy() * direction)
        assert abs(found - expected) <= 1e-6 * (1 + abs(expected) + np.abs(direction).sum())


@every_cell
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@settings(max_examples=6, deadline=None)
@given(lengths=lengths_of_rows, padding=st.integers(0, 6), seed=seeds)
def test_padding_and_batch_mates_change_nothing(cell, both, lengths, padding, seed):
    rng = np.random.default_rng(seed)
    frames = max(*lengths, 1) + padding
    x = features(rng, len(lengths), frames)  # noise in the padding too
    layer, graph = made(cell, both, zero_output_for_mask=True)
    with_random_weights(layer, rng, x)
    together = graph(x, masked(lengths, frames)).numpy()
    for row, length, output in zip(x, lengths, together, strict=True):
        assert not output[length:].any()
        if length:
            alone = graph(row[None, :length], masked([length], length))[0]
            assert_near(output[:length], alone)


@every_cell
@settings(max_examples=10, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4),
    seed=seeds,
)
def test_chunks_with_the_state_carried_give_what_the_whole_gives(cell, chunks, seed):
    # Two rows, whose chunks hold different numbers of valid frames: rows keep their own time.
    rng = np.random.default_rng(seed)
    layer, graph = made(cell, return_state=True)
    with_random_weights(layer, rng, features(rng, 2, 3))
    state, rows = tf.nest.flatten(layer.get_initial_state(2)), [([], []), ([], [])]
    for lengths in chunks:
        frames = max(*lengths, 1)
        x = features(rng, 2, frames)
        output, *state = graph(x, masked(lengths, frames), *state)
        for row, length in enumerate(lengths):
            rows[row][0].append(x[row, :length])
            rows[row][1].append(output[row, :length])
    for row, (inputs, outputs) in enumerate(rows):
        inputs, outputs = np.concatenate(inputs), np.concatenate(outputs)
        if len(inputs):
            whole, *final = graph(inputs[None], masked([len(inputs)], len(inputs)))
            assert_near(outputs, whole[0])
            for carried, at_once in zip(state, final, strict=True):
                assert_near(carried[row], at_once[0])


@every_cell
def test_a_stateful_layer_goes_on_where_it_was(cell):
    rng = np.random.default_rng(0)
    x = features(rng, 2, 9)
    layer = with_random_weights(CELLS[cell](return_sequences=True, stateful=True), rng, x)
    layer.reset_state()
    whole = layer(x)
    layer.reset_state()
    parts = [layer(x[:, :4]), layer(x[:, 4:5]), layer(x[:, 5:])]
    assert_near(tf.concat(parts, axis=1), whole)


@every_cell
def test_the_fast_loop_equals_keras_loop_over_the_cell(cell):
    rng = np.random.default_rng(0)
    x = features(rng, 3, 9)
    options = dict(return_sequences=True, return_state=True)
    ours = with_random_weights(CELLS[cell](**options), rng, x)
    theirs = keras.layers.RNN(type(ours.cell).from_config(ours.cell.get_config()), **options)
    theirs(x)
    theirs.set_weights(ours.get_weights())
    mask = masked([9, 0, 4], 9)
    for a, b in zip(results(ours, x, mask=mask), results(theirs, x, mask=mask), strict=True):
        assert_near(a, b)


@every_cell
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
def test_config_round_trip_builds_the_same_layer(cell, both):
    rng = np.random.default_rng(0)
    x = features(rng, 2, 6)
    layer = CELLS[cell](return_sequences=True, product_dtype="bfloat16", go_backwards=not both)
    layer = keras.layers.Bidirectional(layer) if both else layer
    with_random_weights(layer, rng, x)
    again = type(layer).from_config(layer.get_config())
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), layer(x))
    assert again.get_config() == layer.get_config()


@every_cell
# Keras 3.15 saves weights with a form of np.array that NumPy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_saved_and_loaded_models_are_equal(cell, tmp_path):
    rng = np.random.default_rng(0)
    x = features(rng, 2, 6)
    inputs = keras.Input((None, INPUTS))
    outputs = keras.layers.Bidirectional(CELLS[cell](return_sequences=True))(inputs)
    model = with_random_weights(keras.Model(inputs, outputs), rng, x)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


@every_cell
def test_mixed_precision_stays_near_float32(cell):
    rng = np.random.default_rng(0)
    x = features(rng, 2, 12)
    mask = masked([12, 7], 12)
    exact = with_random_weights(CELLS[cell](return_sequences=True), rng, x, scale=0.3)
    mixed = CELLS[cell](return_sequences=True, dtype="mixed_bfloat16")
    mixed(x)
    mixed.set_weights(exact.get_weights())
    assert mixed(x).dtype == tf.bfloat16
    assert {w.dtype for w in mixed.weights} == {"float32"}
    for a, b in zip(results(mixed, x, mask=mask), results(exact, x, mask=mask), strict=True):
        # bfloat16 keeps 8 bits, 0.4 % of each operand; gradients add up 24 frames of it.
        assert_near(a, b, tolerance=0.05)


@every_cell
def test_bfloat16_products_stay_near_float32_and_differ(cell):
    rng = np.random.default_rng(0)
    x = features(rng, 2, 12)
    exact = with_random_weights(CELLS[cell](return_sequences=True), rng, x, scale=0.3)
    rough = CELLS[cell](return_sequences=True, product_dtype="bfloat16")
    rough(x)
    rough.set_weights(exact.get_weights())
    assert rough(x).dtype == tf.float32
    assert 0 < np.abs(exact(x).numpy() - rough(x).numpy()).max() < 0.05


@every_cell
def test_one_graph_serves_every_length_and_batch_size(cell):
    rng = np.random.default_rng(0)
    layer = with_random_weights(CELLS[cell](return_sequences=True), rng, features(rng, 2, 3))
    signature = [tf.TensorSpec([None, None, INPUTS]), tf.TensorSpec([None, None], tf.bool)]
    graph = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=signature)
    for rows, frames in ((1, 1), (3, 8), (2, 17)):
        x, mask = features(rng, rows, frames), masked(rng.integers(0, frames + 1, rows), frames)
        assert_near(graph(x, mask), layer(x, mask=mask))
    assert graph.experimental_get_tracing_count() == 1


@every_cell
def test_the_form_for_tflite_equals_the_layer(cell):
    rng = np.random.default_rng(0)
    layer = CELLS[cell](return_sequences=True)
    layer = with_random_weights(keras.layers.Bidirectional(layer), rng, features(rng, 1, 3))
    whole = lowering.recurrent(layer)
    graph = tf.function(lambda x: whole(x)[0], input_signature=[tf.TensorSpec([None, INPUTS])])
    for frames in (1, 31, 32, 33, 65):
        x = features(rng, 1, frames)
        assert_near(graph(x[0]), layer(x)[0])


@pytest.mark.parametrize("mask", [[False, True, True], [True, False, True]])
def test_padding_that_does_not_follow_the_frames_is_refused(mask):
    with pytest.raises(tf.errors.InvalidArgumentError, match="holes or begins with padding"):
        layers.LSTM(4)(tf.zeros([1, 3, 2]), mask=tf.constant([mask]))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: layers.ClockworkRNN(7, periods=(1, 2)), "7 units do not divide into 2 modules"),
        (lambda: layers.ClockworkRNN(4, periods=(2, 1)), "positive and rising"),
        (lambda: layers.ClockworkRNN(0), "at least 1"),
        (lambda: layers.DepthGatedLSTM(4, lower_cells=3), "lower_cells is 3; 0, 1 or 2"),
        (lambda: layers.LSTM(4, product_dtype="int8"), "use float32 or bfloat16"),
        (lambda: layers.DepthGatedLSTM(4, lower_cells=1)(tf.zeros([1, 2, 4])), "at least one more"),
        (
            lambda: layers.ClockworkRNN(4, (1, 512), dtype="mixed_bfloat16")(tf.zeros([1, 2, 4])),
            "repeat after 512 frames",
        ),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
