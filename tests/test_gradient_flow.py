"""The gradient by every state: walked frame by frame, held against derivatives written out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from speechrnn import model as network
from speechrnn.errors import MissingExtra, ModelError
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.training.gradient_flow import gradient_flow, plot, walk

CELLS = ["simple_rnn", "lstm", "gru", "clockwork", "depth_gated"]
FRAMES = [9, 14, 4]


def recogniser(seed=3, **model):
    defaults = {"units": 8, "layers": 2, "subsampling": "stack", "time_stride": 1}
    spec = RecogniserSpec(
        FeatureSpec(mels=5), AlphabetSpec(("a", "b", "c")), ModelSpec(**{**defaults, **model})
    )
    return network.build(spec, seed)


def example(seed=0, frames=FRAMES):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(frames), max(frames), 5)).astype(np.float32)
    return {
        "features": tf.constant(features),
        "frames": tf.constant(frames, tf.int32),
        "labels": tf.constant([[1, 2, 0], [3, 1, 2], [2, 0, 0]][: len(frames)], tf.int32),
    }


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_walking_gives_the_networks_own_logits(cell, bidirectional):
    """On valid frames; 1e-5 is a few sums of float32 in another order."""
    model = recogniser(
        cell=cell, bidirectional=bidirectional, subsampling="conv", time_stride=2, conv_channels=3
    )
    batch = example()
    logits, walks = walk(model, batch["features"], batch["frames"])
    expected = model(batch["features"], batch["frames"])
    for row, frames in enumerate([5, 7, 2]):
        np.testing.assert_allclose(logits[row, :frames], expected[row, :frames], atol=1e-5)
    order = [(0, "forward"), (0, "backward"), (1, "forward"), (1, "backward")]
    assert [(w.layer, w.direction) for w in walks] == order[:: 1 if bidirectional else 2]


def test_models_in_chunks_are_refused_and_a_lookahead_is_walked():
    batch = example()
    model = recogniser(cell="gru", bidirectional=False, lookahead=2)
    logits, _ = walk(model, batch["features"], batch["frames"])
    expected = model(batch["features"], batch["frames"])
    np.testing.assert_allclose(logits[1], expected[1], atol=1e-5)
    with pytest.raises(ModelError, match=r"model\.chunk=0"):
        walk(recogniser(cell="gru", chunk=3), batch["features"], batch["frames"])


def ctc(logits, labels):
    """-log p by the forward recursion of Graves et al. 2006, in float64, and its derivative by
    central differences: (frames, symbols) both."""

    def loss(logits):
        p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        path = [0]
        for label in labels:
            path += [label, 0]
        alpha = np.zeros(len(path))
        alpha[:2] = p[0, path[:2]]
        for frame in p[1:]:
            before = alpha.copy()
            alpha[1:] += before[:-1]
            for s in range(2, len(path)):
                if path[s] != 0 and path[s] != path[s - 2]:
                    alpha[s] += before[s - 2]
            alpha *= frame[path]
        return -np.log(alpha[-2:].sum())

    gradient = np.zeros_like(logits)
    for at in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-5
        gradient[at] = (loss(logits + step) - loss(logits - step)) / 2e-5
    return gradient


def through_time(model, features, labels):
    """|d loss / d h_t| of a plain one-layer network, by back-propagation through time in float64.

    d loss / d h_t = V dy_t + U ((1 - h_{t+1}^2) * d loss / d h_{t+1}), where y = h V + b.
    """
    kernel, recurrent, bias, readout, offset = (w.astype(np.float64) for w in model.get_weights())
    h, states = np.zeros(len(recurrent)), []
    for x in features.astype(np.float64):
        h = np.tanh(x @ kernel + h @ recurrent + bias)
        states.append(h)
    by_logits = ctc(np.array(states) @ readout + offset, labels)
    norms, later = [], np.zeros(len(recurrent))
    for h, dy in zip(reversed(states), reversed(by_logits), strict=True):
        dh = readout @ dy + later
        norms.append(np.linalg.norm(dh))
        later = recurrent @ ((1 - h**2) * dh)
    return norms[::-1]


def test_the_gradient_is_that_of_back_propagation_through_time():
    """float32 against float64: 1e-4 of the largest norm."""
    model = recogniser(cell="simple_rnn", layers=1, bidirectional=False, layer_norm=False)
    batch = example()
    flow = gradient_flow(model, batch)
    [norms] = [layer["forward"] for layer in flow.norms]
    for row, frames in enumerate(FRAMES):
        labels = [label for label in batch["labels"][row].numpy() if label]
        expected = through_time(model, batch["features"][row, :frames].numpy(), labels)
        np.testing.assert_allclose(norms[row, :frames], expected, rtol=1e-4, atol=1e-5)
        assert np.isnan(norms[row, frames:]).all()


def test_backwards_the_gradient_runs_the_other_way_and_is_given_in_the_order_of_time():
    """Features and labels mirrored, the two directions change places, and so do the frames."""
    model = recogniser(layers=1)
    weights = model.get_weights()
    mirrored = recogniser(layers=1)
    third, half = 3, model.spec.model.units
    norm, bias = weights[6:8], weights[9]
    swapped = [np.concatenate([w[half:], w[:half]]) for w in [*norm, weights[8]]]
    mirrored.set_weights([*weights[third:6], *weights[:third], *swapped, bias])

    batch = example()
    frames, labels = batch["frames"], batch["labels"]
    lengths = tf.reduce_sum(tf.cast(labels > 0, tf.int32), axis=1)
    turned = {
        "features": tf.reverse_sequence(batch["features"], frames, seq_axis=1),
        "frames": frames,
        "labels": tf.reverse_sequence(labels, lengths, seq_axis=1),
    }
    flow, other = gradient_flow(model, batch), gradient_flow(mirrored, turned)
    for one, two in (("forward", "backward"), ("backward", "forward")):
        for row, n in enumerate(FRAMES):
            np.testing.assert_allclose(
                flow.norms[0][one][row, :n], other.norms[0][two][row, :n][::-1], rtol=1e-4
            )


@pytest.mark.parametrize("cell", CELLS)
def test_batch_mates_and_padding_change_no_gradient(cell):
    model = recogniser(cell=cell)
    batch = example()
    together = gradient_flow(model, batch)
    assert together.layers == ("recurrent_1", "recurrent_2")
    assert together.frames.tolist() == FRAMES
    frames = FRAMES[2]
    alone = {
        "features": batch["features"][2:, :frames],
        "frames": batch["frames"][2:],
        "labels": batch["labels"][2:, :1],
    }
    for ours, theirs in zip(gradient_flow(model, alone).norms, together.norms, strict=True):
        assert list(ours) == ["forward", "backward"]
        for direction in ours:
            assert (ours[direction] > 0).all()
            np.testing.assert_allclose(ours[direction][0], theirs[direction][2, :frames], rtol=1e-4)


def test_the_figure_has_a_panel_a_direction_and_a_line_a_layer(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra [notebooks] is not installed")
    figure = plot(gradient_flow(recogniser(), example()))
    assert [panel.get_title() for panel in figure.axes] == ["forward", "backward"]
    assert all(panel.get_yscale() == "log" for panel in figure.axes)
    assert [len(panel.lines) for panel in figure.axes] == [2, 2]
    figure.savefig(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 0


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"speechrnn\[notebooks\]"):
        plot(gradient_flow(recogniser(), example()))
