"""Models that hear a bounded stretch of what follows: lookahead, and chunks of both directions."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from speechrnn import layers, model
from speechrnn.errors import UsageError
from speechrnn.export.chunked import in_chunks
from speechrnn.runtime.tensorflow import posteriors
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics
from speechrnn.training.run import Recording, Trained

FEATURES = FeatureSpec(mels=8, fft_length=256, window_ms=16.0)


def spec(**changes):
    small = {"units": 4, "layers": 2, "conv_channels": 2, "periods": (1, 2)} | changes
    statistics = Statistics((-6.0,) * 8, (3.0,) * 8)
    return RecogniserSpec(FEATURES, AlphabetSpec(tuple("abc ")), ModelSpec(**small), statistics)


def sound(frames, seed=0):
    return np.random.default_rng(seed).normal(size=[2, frames, 8]).astype(np.float32)


def two_layers(cell):
    """Bidirectional layers, the upper one with the memory cells of the lower one where it has a
    use for them."""
    make = model.CELLS[cell]
    of_cell = {"clockwork": {"periods": (1, 2)}}.get(cell, {})
    gated = cell == "depth_gated"
    options = {"return_sequences": True, "zero_output_for_mask": True, **of_cell}
    lower = make(4, **options, **({"return_cells": True} if gated else {}))
    upper = make(4, **options, **({"lower_cells": 2} if gated else {}))
    return [keras.layers.Bidirectional(layer) for layer in (lower, upper)]


def walked(stack, x, chunk, right):
    """One utterance (frames, inputs) through ``stack`` as the definition has it: chunk after chunk,
    by Keras's own calls with states handed on."""
    states = [None] * len(stack)
    outputs = []
    for start in range(0, len(x), chunk):
        y = x[None, start : start + chunk + right]
        for i, layer in enumerate(stack):
            own, behind = y[:, :chunk], y[:, chunk:]
            ahead, *states[i] = with_state(layer.forward_layer, own, states[i])
            if behind.shape[1]:
                more, *_ = with_state(layer.forward_layer, behind, states[i])
                ahead = tf.concat([ahead, more], axis=1)
            back, *_ = with_state(layer.backward_layer, y, None)
            y = tf.concat([ahead, back[:, ::-1]], axis=-1)
        outputs.append(y[0, :chunk])
    return tf.concat(outputs, axis=0)


def with_state(layer, x, state):
    layer.return_state = True
    return layer(x, initial_state=state)


@pytest.mark.parametrize("cell", model.CELLS)
@pytest.mark.parametrize(
    ("chunk", "right"),
    [(3, 2), *(pytest.param(*pair, marks=pytest.mark.long) for pair in ((2, 5), (5, 0)))],
)
def test_chunks_are_what_a_walk_from_chunk_to_chunk_gives(cell, chunk, right):
    """Results and gradients, of utterances of two lengths in a batch."""
    stack, x, lengths = two_layers(cell), tf.constant(sound(11)), [11, 7]
    upstream = np.random.default_rng(1).normal(size=[2, 11, 8]).astype(np.float32)

    def by_chunks():
        y = layers.chunks.cut(x, chunk, right)
        for layer in stack:
            y = layers.chunks.latency_controlled(layer, y, tf.constant(lengths), chunk)
        return layers.chunks.joined(y, chunk, 11)

    by_chunks()  # builds
    weights = [w.value for layer in stack for w in layer.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found = by_chunks()
        expected = [walked(stack, x[i, :n], chunk, right) for i, n in enumerate(lengths)]
        loss = sum(tf.reduce_sum(found[i, :n] * upstream[i, :n]) for i, n in enumerate(lengths))
        walk = sum(tf.reduce_sum(y * upstream[i, : len(y)]) for i, y in enumerate(expected))
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(found[i, :n], expected[i], atol=2e-6)
    for ours, theirs in zip(
        tape.gradient(loss, [x, *weights]), tape.gradient(walk, [x, *weights]), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("cell", model.CELLS)
def test_a_chunk_as_long_as_the_recording_changes_nothing(cell):
    whole = model.build(spec(cell=cell), seed=1)
    chunked = model.build(spec(cell=cell, chunk=10), seed=2)
    chunked.set_weights(whole.get_weights())
    x, frames = tf.constant(sound(30)), tf.constant([30, 13])
    np.testing.assert_allclose(chunked(x, frames)[0], whole(x, frames)[0], atol=1e-5)
    np.testing.assert_allclose(chunked(x, frames)[1, :5], whole(x, frames)[1, :5], atol=1e-5)


def test_a_lookahead_weighs_each_unit_by_itself_and_ends_with_the_utterance():
    layer, x = layers.Lookahead(2), sound(6)
    np.testing.assert_array_equal(layer(x), x)  # at first
    kernel = np.random.default_rng(2).normal(size=[3, 8]).astype(np.float32)
    layer.set_weights([kernel])
    mask = tf.sequence_mask([6, 3], 6)
    found = layer(x, mask=mask).numpy()
    for row, length in enumerate((6, 3)):
        for t in range(length):
            expected = sum(kernel[j] * x[row, t + j] for j in range(3) if t + j < length)
            np.testing.assert_allclose(found[row, t], expected, atol=1e-6)
    with pytest.raises(ValueError, match="0 frames"):
        layers.Lookahead(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"bidirectional": False},
        {"bidirectional": False, "lookahead": 3, "time_stride": 2},
        {"bidirectional": False, "lookahead": 2, "subsampling": "stack"},
        {"chunk": 4, "right_context": 2},
        {"chunk": 2, "right_context": 3, "subsampling": "stack", "time_stride": 4},
    ],
    ids=str,
)
def test_the_latency_is_how_far_a_frame_hears(changes):
    """Found by differentiating every output frame by every sample."""
    described = spec(cell="gru", layers=1, **changes)
    network = model.build(described, seed=1)
    rng = np.random.default_rng(3)
    network.set_weights([
        w + rng.normal(0, 0.4, w.shape) if w.dtype == np.float32 else w
        for w in network.get_weights()
    ])  # fmt: skip
    samples = 16 * described.model.time_stride * FEATURES.hop_samples + FEATURES.window_samples
    waveform = tf.constant(rng.normal(0, 0.1, [1, samples]).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(waveform)
        log_probs = posteriors(network, described, waveform, tf.constant([samples]))[0][0]
        # A direction that no probability's norm cancels.
        heard = tf.reduce_sum(log_probs * rng.normal(size=log_probs.shape), axis=1)
    by_sample = tape.jacobian(heard, waveform)[:, 0].numpy()
    hop = described.model.time_stride * FEATURES.hop_samples
    complete = described.model.complete_frames(FEATURES.frames(samples))
    assert complete > 4
    waits = [(np.flatnonzero(row)[-1] + 1 - (j + 1) * hop) / 16 for j, row in enumerate(by_sample)]
    # A window's first and last sample count for nothing.
    assert max(waits[:complete]) == pytest.approx(described.latency_ms, abs=0.1)


def test_what_cannot_be_is_refused():
    for changes, message in [
        ({"lookahead": 3}, "bidirectional to false"),
        ({"bidirectional": False, "chunk": 3}, "bidirectional to true"),
        ({"right_context": 3}, "without chunks"),
        ({"chunk": -1}, "at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ModelSpec(**changes)
    one_way = Trained(model.build(spec(bidirectional=False)), spec(bidirectional=False), {})
    with pytest.raises(UsageError, match="bidirectional to true"):
        in_chunks(one_way, 8, 4)
    with pytest.raises(UsageError, match="at least 1 frame"):
        in_chunks(one_way, 0, 0)
    by_utterance = dataclasses.replace(spec(), statistics=None)
    with pytest.raises(UsageError, match="normalisation=global"):
        in_chunks(Trained(one_way.model, by_utterance, {}), 8, 4)


def test_an_export_in_chunks_says_its_own_error_rate():
    described = spec()
    trained = Trained(model.build(described), described, {"dev": {"wer": 0.01}, "epoch": 3})
    assert in_chunks(trained, 2, 1).card == {"epoch": 3}
    waveform = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    chunked = in_chunks(trained, 2, 1, [Recording("a", waveform, "abc", "s")])
    assert chunked.card["dev"]["utterances"] == 1 and chunked.card["dev"]["wer"] > 0.01
    assert (chunked.spec.model.chunk, chunked.spec.model.right_context) == (2, 1)
    assert dataclasses.replace(chunked.spec.model, chunk=0, right_context=0) == described.model
