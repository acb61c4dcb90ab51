"""The network as a graph that TFLite runs in linear time with builtin operations only.

Keras's own graph will not do: its loop converts to operations that device runtimes lack, or to
one that copies all outputs at every frame, which is quadratic in the length. Here the products
with the inputs are taken of a block of frames at a time, before the loop over its frames, and
loops are nested: each fills a block of what the next one outwards puts side by side.

Weights are taken out of the Keras layers as arrays and become constants of the graph, so that
no variable can be left behind in the conversion.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn import layers
from speechrnn.errors import ModelError
from speechrnn.export.front_end import FrontEnd
from speechrnn.model import Recogniser, hands_up_cells
from speechrnn.specs import RecogniserSpec
from speechrnn.text import BLANK

# Frames in one turn of the innermost loop, in all its turns, and so on outwards. A loop carries
# what it writes, and the runtime copies that at every turn: with few levels a long recording
# takes more than its share. Measured with 3 x BiLSTM(256) on one core, int8, 10 and 160 s of
# audio, in milliseconds: two levels of 4 and 32 frames 18 and 480; these 18.5 and 360; 4, 32, 128
# and 1024: 19 and 370, and more graph. In float32 two levels take 43 and 990, these 47 and 790.
LEVELS = (4, 64, 512)
STREAMING_LEVELS = LEVELS[:1]  # a piece has few frames

State = Sequence[tf.Tensor]
Stage = Callable[[tf.Tensor], tf.Tensor]


class LoweredRecogniser(tf.Module):
    """The trained model as functions of a waveform at its sample rate, float32 in [-1, 1].

    They equal the Keras model's log-softmax on the same waveform to 1e-4. Later changes of the
    model's weights do not reach them.

    Args:
        precision: that the weights are going to have: float32, float16 or int8.
    """

    def __init__(self, model: Recogniser, spec: RecogniserSpec, precision: str = "float32"):
        super().__init__()
        self._front_end = FrontEnd(model.subsampling, spec, precision)
        self._recurrent = [recurrent(layer) for layer in model.recurrent]
        self._after: list[Stage] = []  # each recurrent layer
        for i in range(len(model.recurrent)):
            norm = _layer_norm(model.norms[i]) if model.norms else tf.identity
            hands_up = hands_up_cells(spec.model, i)
            self._after.append(_beside_cells(norm, spec.model.units) if hands_up else norm)
        self._logits = _affine(*model.logits.get_weights())
        self.state_sizes = [size for layer in self._recurrent for size in layer.state_sizes]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "waveform")])
    def transcribe(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        """A whole recording of at least one window ->

        log_probs  (frames, alphabet size) float32
        tokens     (n,) int32 labels: the best of each frame, repeats collapsed, blanks dropped
        frames     (n,) int32: where each token begins
        """
        log_probs, _ = self._log_probs(self._front_end.whole(waveform), None)
        best = tf.argmax(log_probs, axis=1, output_type=tf.int32)
        before = tf.concat([[BLANK], best[:-1]], axis=0)
        begins = tf.not_equal(best, before) & tf.not_equal(best, BLANK)
        frames = tf.cast(tf.reshape(tf.where(begins), [-1]), tf.int32)
        return {"log_probs": log_probs, "tokens": tf.gather(best, frames), "frames": frames}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "waveform")])
    def features(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        """A whole recording of at least one window -> features (frames, dimension) float32, as
        the network gets them."""
        return {"features": self._front_end.features(waveform)}

    def step(self) -> tf.types.experimental.PolymorphicFunction:
        """A recording piece by piece, each as long as you like:

            waveform  (samples,)   the piece
            carried   (samples,)   what is carried from one piece to the next: at first
                                   ``spec.carried_samples`` of silence
            frame     () int32     output frames given so far, 0 at first
            final     () int32     not 0: nothing follows
            state_i   (1, size)    of the recurrent layers, zeros at first

        -> ``log_probs`` of the frames that are complete with this piece, and the next ``carried``,
        ``frame`` and ``state_i``. Together the pieces' ``log_probs`` are those of the whole. The
        piece and what is carried must suffice for one output frame.
        """

        def step(
            waveform: tf.Tensor,
            carried: tf.Tensor,
            frame: tf.Tensor,
            final: tf.Tensor,
            **state: Any,
        ) -> dict[str, tf.Tensor]:
            samples = tf.concat([carried, waveform], axis=0)
            x, carried = self._front_end.piece(samples, frame, final)
            log_probs, after = self._log_probs(x, [state[name] for name in names])
            after_by_name = dict(zip(names, after, strict=True))
            next_frame = frame + tf.shape(log_probs)[0]
            return {
                "log_probs": log_probs, "carried": carried, "frame": next_frame, **after_by_name
            }  # fmt: skip

        names = [f"state_{i}" for i in range(len(self.state_sizes))]
        state = {
            name: tf.TensorSpec([1, size], tf.float32, name)
            for name, size in zip(names, self.state_sizes, strict=True)
        }
        return tf.function(step).get_concrete_function(
            tf.TensorSpec([None], tf.float32, "waveform"),
            tf.TensorSpec([None], tf.float32, "carried"),
            tf.TensorSpec([], tf.int32, "frame"),
            tf.TensorSpec([], tf.int32, "final"),
            **state,
        )

    def _log_probs(self, x: tf.Tensor, state: State | None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """(frames, width) and the layers' states -> log_probs and the states after."""
        remaining, after = list(state or []), []
        for layer, stage in zip(self._recurrent, self._after, strict=True):
            own = None if state is None else [remaining.pop(0) for _ in layer.state_sizes]
            x, own = layer(x, own)
            after += own
            x = stage(x)
        return tf.nn.log_softmax(self._logits(x)), after


def _affine(kernel: np.ndarray, bias: np.ndarray) -> Stage:
    return lambda x: tf.matmul(x, kernel) + bias


def _layer_norm(layer: keras.layers.LayerNormalization) -> Stage:
    gamma, beta = layer.get_weights()

    def stage(x: tf.Tensor) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + layer.epsilon) * gamma + beta

    return stage


def _beside_cells(norm: Stage, units: int) -> Stage:
    """For a layer that hands up its memory cells: they pass by what is done to its outputs."""

    def stage(x: tf.Tensor) -> tf.Tensor:
        outputs, cells = layers.split_cells(x, units)
        return tf.concat([norm(outputs), cells], axis=-1)

    return stage


class Recurrent:
    """(frames, inputs), state -> (frames, units), the state after the last frame.

    Without a state it begins with zeros and gives none.
    """

    def __init__(self, layer: layers.FastRecurrence):
        self._layer, self._weights = layer, layer.get_weights()
        self.state_sizes: list[int] = tf.nest.flatten(layer.cell.state_size)

    def __call__(
        self, x: tf.Tensor, state: State | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        shown = self._layer.shown
        if state is None:
            initial = [tf.zeros([1, size]) for size in self.state_sizes]
            run = functools.partial(_nested_loop, sequences=shown, levels=LEVELS)
        else:
            initial = list(state)
            run = functools.partial(_nested_loop, sequences=len(initial), levels=STREAMING_LEVELS)
        # One utterance: the batch axis of the scan's step order comes and goes.
        states = self._layer.recurrence(self._weights, tf.expand_dims(x, 1), initial, run)
        states = [tf.reshape(sequence, [-1, sequence.shape[2]]) for sequence in states]
        after = [] if state is None else [sequence[-1:] for sequence in states]
        return tf.concat(states[:shown], axis=-1), after


class BothWays:
    """(frames, inputs) -> (frames, 2 * units). It has to know the end: it has no state."""

    state_sizes: Sequence[int] = ()

    def __init__(self, layer: keras.layers.Bidirectional):
        self._forward, self._backward = (
            recurrent(one) for one in (layer.forward_layer, layer.backward_layer)
        )

    def __call__(
        self, x: tf.Tensor, state: State | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        forward, _ = self._forward(x)
        backward, _ = self._backward(tf.reverse(x, [0]))
        return tf.concat([forward, tf.reverse(backward, [0])], axis=-1), []


def recurrent(layer: keras.layers.Layer) -> Recurrent | BothWays:
    """The form of a recurrent Keras layer for the device.

    Raises:
        ModelError: it has none.
    """
    if isinstance(layer, keras.layers.Bidirectional):
        return BothWays(layer)
    if not isinstance(layer, layers.FastRecurrence) or not layer.has_equations():
        raise ModelError(
            f"{layer.name}, a {type(layer).__name__}, has no form for TFLite; the layers of "
            "speechrnn.layers have, with plain activations and without dropout within the "
            "recurrence. Export a SavedModel."
        )
    return Recurrent(layer)


def _nested_loop(
    cell: layers.Equations, x: tf.Tensor, initial: State, sequences: int, levels: Sequence[int]
) -> list[tf.Tensor]:
    """``scan.run`` in operations of the device: (frames, 1, inputs) -> ``sequences`` of the states.

    Zeros fill the last block: a backward layer's input must be reversed before it comes here.

    Args:
        levels: frames in a block of every level, the smallest first, each a multiple of the one
            before. The largest shrinks to what the recording has.
    """
    count, frames = min(sequences, cell.states), tf.shape(x)[0]
    x = tf.reshape(x, [-1, x.shape[2]])
    if len(levels) == 1:
        x = cell.inputs(x)
    shape = _blocks(frames, levels[1:] or levels)
    x = tf.pad(x, [[0, tf.reduce_prod(shape) - frames], [0, 0]])
    x = tf.reshape(x, tf.concat([shape, x.shape[1:]], axis=0))
    width = count * cell.units
    # What the loops write to, by level. Made here and once: in a loop's body it would be a constant
    # in the file, or be made at every turn.
    rooms = [tf.zeros(tf.concat([shape, [width]], axis=0))]
    while rooms[-1].shape.rank > 2:
        rooms.append(tf.gather(rooms[-1], 0))
    loops = _Loops(cell, count, levels[0], rooms)
    outputs, _ = loops(x, frames, list(initial))
    # Not outputs[:frames]: that is another operation, which copies number by number.
    outputs = tf.slice(tf.reshape(outputs, [-1, 1, width]), [0, 0, 0], tf.stack([frames, 1, width]))
    return tf.split(outputs, count, axis=-1)


def _blocks(frames: tf.Tensor, levels: Sequence[int]) -> tf.Tensor:
    """Blocks of blocks of frames: how many there are of each in the next larger one, the whole
    first, the frames of the smallest last."""
    within = [large // small for small, large in itertools.pairwise(levels)]
    if not within:
        return tf.stack([-(-frames // levels[0]), levels[0]])
    blocks = -(-frames // levels[-2])
    together = tf.minimum(within.pop(), blocks)
    return tf.stack([-(-blocks // together), together, *reversed(within), levels[0]])


class _Loops:
    """(.., frames, inputs), as ``_blocks`` says -> the outputs (.., frames, width), the last state.

    The innermost loop runs over a block's frames, their inputs' products having been taken before
    it. A block of frames that are projected already is one turn.
    """

    def __init__(self, cell: layers.Equations, count: int, turn: int, rooms: Sequence[tf.Tensor]):
        self._cell, self._count, self._turn = cell, count, turn
        self._rooms = {room.shape.rank: room for room in rooms}

    def __call__(self, x: tf.Tensor, left: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """``left`` counts the frames from here to the recording's end: those behind it are left
        out, and their outputs zeros."""
        if x.shape.rank > 2:
            return self._loop(x, self._rooms[x.shape.rank], left, state)
        if x.shape[0] == self._turn:
            return self._frames(x, state)
        room, projected = self._rooms[2], self._cell.inputs(x)
        turns = [x.shape[0] // self._turn, self._turn]
        x = tf.reshape(projected, [*turns, projected.shape[1]])
        outputs, state = self._loop(x, tf.reshape(room, [*turns, room.shape[1]]), left, state)
        return tf.reshape(outputs, room.shape), state

    def _frames(self, x: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        cell, outputs = self._cell, []
        for row in tf.split(x, self._turn):
            u = tf.matmul(state[0], cell.recurrent)
            state, _ = cell.step(row, u, state, cell.vectors)
            outputs.append(tf.concat(state[: self._count], axis=-1))
        return tf.concat(outputs, axis=0), list(state)

    def _loop(
        self, x: tf.Tensor, room: tf.Tensor, left: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, State]:
        frames = x.shape[1:-1].num_elements() or tf.reduce_prod(tf.shape(x)[1:-1])
        turns = tf.minimum(tf.shape(x)[0], -(-left // frames))

        def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
            outputs, state = self(tf.gather(x, i), left - i * frames, state)
            return i + 1, written.write(i, outputs), state

        written = tf.TensorArray(tf.float32, tf.shape(room)[0], element_shape=room.shape[1:])
        _, written, state = tf.while_loop(
            lambda i, *_: i < turns, body, (tf.constant(0), written.unstack(room), state)
        )
        return written.stack(), state
