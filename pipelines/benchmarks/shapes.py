"""What is trained on: the shapes, the batch drawn from them, and the multiply-adds they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRAME_SECONDS = 0.03  # three feature frames of 10 ms side by side, as the recipes stack them

PEAK_SIZE = 2048  # rows and columns of the matrices whose product shows the machine's peak

# Cell -> (matrices from the input, matrices from the last output), each units wide.
MATRICES = {"simple_rnn": (1, 1), "lstm": (4, 4), "gru": (3, 3), "depth_gated": (5, 4)}
CELLS = ["simple_rnn", "lstm", "gru", "clockwork", "depth_gated"]


@dataclass(frozen=True)
class Shape:
    """A stack of bidirectional recurrent layers, Dense(symbols) above it, and one batch."""

    cell: str
    batch: int = 16
    frames: int = 250
    units: int = 256
    layers: int = 3
    features: int = 512
    symbols: int = 32
    seed: int = 0
    periods: Sequence[int] = (1, 2, 4, 8)  # of the clockwork cell's modules

    def __str__(self) -> str:
        return f"{self.cell} {self.batch} x {self.frames} x {self.units}, {self.layers} layers"


def frame_lengths(shape: Shape) -> np.ndarray:
    """(batch,) int32 valid frames: 60 to 100 % of the frames, the first row all of them."""
    rng = np.random.default_rng(shape.seed)
    shortest = -(-6 * shape.frames // 10)
    lengths = rng.integers(shortest, shape.frames + 1, shape.batch).astype(np.int32)
    lengths[0] = shape.frames
    return lengths


def draw_batch(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """features (batch, frames, features) float32, valid frames (batch,), labels (batch, labels).

    An eighth of a row's frames are labels, so that CTC can always write them; 0 (the blank) pads.
    """
    rng = np.random.default_rng(shape.seed + 1)
    lengths = frame_lengths(shape)
    x = rng.standard_normal((shape.batch, shape.frames, shape.features), dtype=np.float32)
    counts = np.maximum(lengths // 8, 1)
    labels = rng.integers(1, shape.symbols, (shape.batch, counts.max())).astype(np.int32)
    labels[np.arange(labels.shape[1]) >= counts[:, None]] = 0
    return x, lengths, labels


def layer_multiply_adds(shape: Shape, layer: int, lengths: np.ndarray) -> tuple[int, int]:
    """Of one direction's matrix products, forward: (with its input, with its last output).

    ``layer`` counts from 0 at the bottom; ``lengths`` are the frames computed of each row.
    """
    inputs = 2 * shape.units if layer else shape.features
    if shape.cell != "clockwork":
        from_input, from_output = MATRICES[shape.cell]
        # The bottom layer has no memory cell below it and projects its input to one.
        from_input += shape.cell == "depth_gated" and layer == 0
        frames = int(lengths.sum())
        return (
            frames * from_input * inputs * shape.units,
            frames * from_output * shape.units * shape.units,
        )
    # Koutnik et al. 2014: a module is updated every period-th frame, and hears itself and the
    # slower ones.
    module = shape.units // len(shape.periods)
    total_input = total_output = 0
    for slower, period in enumerate(sorted(shape.periods, reverse=True)):
        updates = int((-(-lengths // period)).sum())
        total_input += updates * module * inputs
        total_output += updates * module * module * (slower + 1)
    return total_input, total_output


def multiply_adds(shape: Shape, padding: bool) -> dict[str, int]:
    """Of the matrix products of the whole stack: of one inference pass and of one training step.

    A training step takes three times the inference's: backward there is a product for the
    weights and one for the input, except that the features need no gradient.

    Args:
        padding: count the frames behind each row's end, as whoever computes them does.
    """
    lengths = np.full(shape.batch, shape.frames) if padding else frame_lengths(shape)
    by_layer = [layer_multiply_adds(shape, layer, lengths) for layer in range(shape.layers)]
    dense = int(lengths.sum()) * 2 * shape.units * shape.symbols
    forward = 2 * sum(sum(pair) for pair in by_layer) + dense
    return {"infer": forward, "train": 3 * forward - 2 * by_layer[0][0]}


def audio_seconds(shape: Shape) -> float:
    """The audio of one batch without its padding, at 30 ms a frame."""
    return FRAME_SECONDS * int(frame_lengths(shape).sum())
