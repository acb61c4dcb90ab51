"""How far the loss reaches back through a trained network: its gradient by every state.

A vanishing gradient is one that shrinks with every step through a recurrence, so that early
frames learn nothing from late ones (Bengio, Simard, Frasconi 1994). What is measured here is not
that factor by itself but what a state receives in all: through the layers above it at its own
frame, and through every later step of its recurrence.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from speechrnn import ctc
from speechrnn.errors import MissingExtra, ModelError
from speechrnn.model import Recogniser, output_frames

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class GradientFlow:
    """Norms of the loss's derivatives by the outputs of recurrent layers.

    ``norms[layer][direction]`` is (batch, frames) float32 in the order of time, NaN past each
    row's end: the Euclidean norm of d loss / d h_t, the total derivative of the row's own CTC
    loss (nats) by the output h_t that the layer's cell gives at frame t. A bidirectional layer
    has the directions ``forward`` and ``backward``, any other only ``forward``.
    """

    layers: tuple[str, ...]  # from the bottom up, as TensorBoard's gradient norms name them
    norms: tuple[dict[str, np.ndarray], ...]
    frames: np.ndarray  # (batch,) int32, the valid ones
    seconds_per_frame: float


def gradient_flow(model: Recogniser, batch: Mapping[str, tf.Tensor]) -> GradientFlow:
    """A network and a batch as ``data.batches`` makes them -> the gradient at every frame.

    Dropout is off. The frames are walked one at a time outside of any graph, which takes seconds
    for a batch of some ten clips; the memory grows with frames x layers.

    Args:
        model: as ``model.build`` or ``run.load`` gives it.
        batch: ``features``, ``frames`` and ``labels``.
    """
    with tf.GradientTape() as tape:
        logits, walks = walk(model, batch["features"], batch["frames"])
        frames = output_frames(batch["frames"], model.spec.model)
        # The sum, since rows know nothing of each other: each has its own loss's derivative.
        loss = tf.reduce_sum(ctc.loss(logits, frames, batch["labels"]))
    gradients = tape.gradient(loss, [walk.outputs for walk in walks])
    norms: list[dict[str, np.ndarray]] = [{} for _ in model.recurrent]
    for walked, by_output in zip(walks, gradients, strict=True):
        by_step = tf.norm(tf.stack(by_output, axis=1), axis=-1)
        by_frame = walked.in_order(by_step).numpy()
        by_frame[np.arange(by_frame.shape[1]) >= frames.numpy()[:, None]] = np.nan
        norms[walked.layer][walked.direction] = by_frame
    names = tuple(f"recurrent_{i + 1}" for i in range(len(norms)))
    return GradientFlow(names, tuple(norms), frames.numpy(), model.spec.seconds_per_output_frame)


@dataclass
class Walk:
    """One direction of one layer, frame by frame."""

    layer: int  # from the bottom, 0 first
    direction: str
    lengths: tf.Tensor  # (batch,) valid frames
    outputs: list[tf.Tensor]  # h of every step, (batch, units); meaningless past a row's end

    def in_order(self, x: tf.Tensor) -> tf.Tensor:
        """(batch, frames, ...) in the order of time -> of steps, or back: the two directions of
        one permutation, which is its own inverse."""
        return x if self.direction == FORWARD else tf.reverse_sequence(x, self.lengths, seq_axis=1)

    def run(self, layer: keras.layers.RNN, x: tf.Tensor) -> tf.Tensor:
        """(batch, frames, inputs) -> the layer's output, zero past each row's end."""
        steps = tf.unstack(self.in_order(x), axis=1)
        states = layer.get_initial_state(tf.shape(x)[0])
        shown = []
        for t, step in enumerate(steps):
            output, after = layer.cell(step, states)
            self.outputs.append(after[0])
            valid = (t < self.lengths)[:, None]
            states = [tf.where(valid, new, old) for new, old in zip(after, states, strict=True)]
            shown.append(tf.where(valid, output, tf.zeros_like(output)))
        return self.in_order(tf.stack(shown, axis=1))


def walk(model: Recogniser, features: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, list[Walk]]:
    """The model's logits and, for each layer and direction, the outputs that led to them.

    The logits are those of ``model(features, frames)``, up to the order of sums.

    Raises:
        ModelError: the model computes in chunks, where a frame has several gradients.
    """
    if model.spec.model.chunk:
        raise ModelError(
            "the gradient flow of a model in chunks is not defined; build it with model.chunk=0"
        )
    walks: list[Walk] = []

    def walked(index: int, layer: keras.layers.Layer) -> Any:
        def call(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
            sides = [(FORWARD, layer)]
            if isinstance(layer, keras.layers.Bidirectional):
                sides = [(FORWARD, layer.forward_layer), (BACKWARD, layer.backward_layer)]
            results = []
            for direction, side in sides:
                walks.append(Walk(index, direction, lengths, []))
                results.append(walks[-1].run(side, x))
            return tf.concat(results, axis=-1)

        return call

    # All but the recurrent layers is the network's own, and so is the way between them.
    parts = SimpleNamespace(
        spec=model.spec,
        layered=model.layered,
        subsampling=model.subsampling,
        recurrent=[walked(i, layer) for i, layer in enumerate(model.recurrent)],
        norms=model.norms,
        dropouts=model.dropouts,
        lookahead=model.lookahead,
        logits=model.logits,
    )
    parts.stack = functools.partial(Recogniser.stack, cast(Any, parts))
    return Recogniser.call(cast(Any, parts), features, frames), walks


def plot(flow: GradientFlow) -> Any:
    """A matplotlib figure: the norm against the frame, a panel for each direction and a line for
    each layer, the median over the rows with the band of its middle half.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plotting the gradient flow", "notebooks") from error
    directions = list(flow.norms[0])
    figure = Figure(figsize=(5.5 * len(directions), 4), layout="constrained")
    panels = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for panel, direction in zip(panels, directions, strict=True):
        for name, norms in zip(flow.layers, flow.norms, strict=True):
            within = norms[direction][:, : flow.frames.max()]  # beyond, no row has a number
            low, middle, high = np.nanpercentile(within, [25, 50, 75], axis=0)
            at = np.arange(len(middle))
            [line] = panel.plot(at, middle, label=name.replace("_", " "), linewidth=1.2)
            panel.fill_between(at, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        panel.set_yscale("log")
        panel.set_title(direction)
        panel.set_xlabel(f"output frame ({1000 * flow.seconds_per_frame:g} ms each)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("norm of d loss / d h (nats per unit)")
    panels[0].legend()
    clips = f"{len(flow.frames)} clips: median and middle half"
    figure.suptitle(f"Gradient of the CTC loss by the state at each frame ({clips})")
    return figure
