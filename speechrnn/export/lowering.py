"""The network as a graph that TFLite runs in linear time with builtin operations only.

Keras's own graph will not do: its loop converts to operations that device runtimes lack, or to
one that copies all outputs at every frame, which is quadratic in the length. Here the products
with the inputs stand before the loop, as one product over all frames, and the loop is two
nested ones: the inner fills a block of frames, the outer appends finished blocks.

Weights are taken out of the Keras layers as arrays and become constants of the graph, so that
no variable can be left behind in the conversion.
"""

from __future__ import annotations

import functools
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

# Measured with 3 x BiLSTM(256) on one core, 10 s of audio. Blocks of 32 frames with 1, 2 and 4 an
# iteration: 80, 71 and 68 ms in float32; 41, 36 and 34 in int8. Blocks of 64 gained nothing.
BLOCK_FRAMES = 32  # of the inner loop
UNROLLED_FRAMES = 4  # in each of its iterations, a divisor of BLOCK_FRAMES

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
            run = functools.partial(_nested_loop, sequences=shown, block_frames=BLOCK_FRAMES)
        else:
            initial = list(state)
            run = functools.partial(
                _nested_loop, sequences=len(initial), block_frames=UNROLLED_FRAMES
            )
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
    cell: layers.Equations, x: tf.Tensor, initial: State, sequences: int, block_frames: int
) -> list[tf.Tensor]:
    """``scan.run`` in operations of the device: (frames, 1, inputs) -> ``sequences`` of the states.

    Zeros fill the last block: a backward layer's input must be reversed before it comes here.
    """
    count = min(sequences, cell.states)
    frames, width = tf.shape(x)[0], count * cell.units
    iterations = block_frames // UNROLLED_FRAMES
    projected = cell.inputs(tf.reshape(x, [-1, x.shape[2]]))
    projected = tf.pad(projected, [[0, -frames % block_frames], [0, 0]])
    blocks = tf.reshape(projected, [-1, iterations, UNROLLED_FRAMES, projected.shape[1]])

    def run_block(block: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
            outputs = []
            for row in tf.split(tf.gather(block, i), UNROLLED_FRAMES):
                u = tf.matmul(state[0], cell.recurrent)
                state, _ = cell.step(row, u, state, cell.vectors)
                outputs.append(tf.concat(state[:count], axis=-1))
            return i + 1, written.write(i, tf.concat(outputs, axis=0)), list(state)

        return _loop(tf.constant(iterations), body, [UNROLLED_FRAMES, width], state)

    def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
        outputs, state = run_block(tf.gather(blocks, i), state)
        return i + 1, written.write(i, tf.reshape(outputs, [block_frames, width])), state

    outputs, _ = _loop(tf.shape(blocks)[0], body, [block_frames, width], list(initial))
    # Not outputs[:frames]: that is another operation, which copies number by number.
    outputs = tf.slice(tf.reshape(outputs, [-1, 1, width]), [0, 0, 0], tf.stack([frames, 1, width]))
    return tf.split(outputs, count, axis=-1)


def _loop(
    iterations: tf.Tensor, body: Callable[..., tuple], shape: list[int], state: State
) -> tuple[tf.Tensor, State]:
    """body(i, written, state) for each i -> all that was written, (iterations, *shape), and the
    state."""
    written = tf.TensorArray(tf.float32, iterations, element_shape=shape)
    _, written, state = tf.while_loop(
        lambda i, *_: i < iterations, body, (tf.constant(0), written, state)
    )
    return written.stack(), state
