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
from speechrnn.errors import ModelError, UsageError
from speechrnn.export.front_end import FrontEnd
from speechrnn.export.fused import FusedLSTM
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

LOWERINGS = ("nested", "fused")  # of the recurrence: loops, or one operation

State = Sequence[tf.Tensor]
Stage = Callable[[tf.Tensor], tf.Tensor]


class LoweredRecogniser(tf.Module):
    """The trained model as functions of a waveform at its sample rate, float32 in [-1, 1].

    They equal the Keras model's log-softmax on the same waveform to 1e-4. Later changes of the
    model's weights do not reach them.

    Args:
        precision: that the weights are going to have: float32, float16 or int8.
        lowering: of the recurrence: ``nested`` loops, or the ``fused`` operation of an LSTM,
            which has no ``step``.

    Raises:
        UsageError: ``fused`` of another cell.
    """

    def __init__(
        self,
        model: Recogniser,
        spec: RecogniserSpec,
        precision: str = "float32",
        lowering: str = "nested",
    ):
        super().__init__()
        if lowering == "fused" and spec.model.cell != "lstm":
            raise UsageError(
                f"the fused lowering is for the cell lstm; this model's is {spec.model.cell}. "
                "Export with --lowering nested."
            )
        if lowering == "fused" and spec.model.chunk:
            raise UsageError(
                "the fused lowering cannot be given a state, which chunks need; export with "
                "--lowering nested"
            )
        self._spec = spec
        # Who asks for the fused operation has tools that know no loops.
        by_block = lowering == "nested"
        self._front_end = FrontEnd(model.subsampling, spec, precision, by_block)
        self._recurrent = [
            recurrent(layer, lowering, in_chunks=spec.model.chunk > 0) for layer in model.recurrent
        ]
        self._after: list[Stage] = []  # each recurrent layer
        for i in range(len(model.recurrent)):
            norm = _layer_norm(model.norms[i]) if model.norms else tf.identity
            hands_up = hands_up_cells(spec.model, i)
            self._after.append(_beside_cells(norm, spec.model.units) if hands_up else norm)
        self._lookahead = _lookahead(*model.lookahead.get_weights()) if model.lookahead else None
        self._logits = _affine(*model.logits.get_weights())
        self.state_shapes = [[1, size] for layer in self._recurrent for size in layer.state_sizes]
        if self._lookahead:
            self.state_shapes.append([spec.model.lookahead, spec.model.units])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "waveform")])
    def transcribe(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        """A whole recording of at least one window ->

        log_probs  (frames, alphabet size) float32
        tokens     (n,) int32 labels: the best of each frame, repeats collapsed, blanks dropped
        frames     (n,) int32: where each token begins
        """
        log_probs = self._whole(self._front_end.whole(waveform))
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
            frame     () int32     frames that the network has gone by, 0 at first
            final     () int32     not 0: nothing follows
            state_i                what the layers remember, zeros at first

        -> ``log_probs`` of the frames that are complete with this piece, and the next ``carried``,
        ``frame`` and ``state_i``. Together the pieces' ``log_probs`` are those of the whole. The
        piece and what is carried must suffice for one output frame
        (``ModelSpec.complete_frames``), unless it is the last.
        """

        def step(
            waveform: tf.Tensor,
            carried: tf.Tensor,
            frame: tf.Tensor,
            final: tf.Tensor,
            **state: Any,
        ) -> dict[str, tf.Tensor]:
            samples = tf.concat([carried, waveform], axis=0)
            x, frames = self._front_end.piece(samples, frame, final, self._spec.model.lookahead)
            before = [state[name] for name in names]
            if self._spec.model.chunk:
                frames = self._in_whole_chunks(frames, final)
                log_probs, after = self._in_chunks(x, frames, before)
            else:
                log_probs, after = self._piece(x, frames, frame, before)
            after_by_name = dict(zip(names, after, strict=True))
            carried = samples[frames * self._samples_per_frame :]
            return {
                "log_probs": log_probs, "carried": carried, "frame": frame + frames, **after_by_name
            }  # fmt: skip

        names = [f"state_{i}" for i in range(len(self.state_shapes))]
        state = {
            name: tf.TensorSpec(shape, tf.float32, name)
            for name, shape in zip(names, self.state_shapes, strict=True)
        }
        return tf.function(step).get_concrete_function(
            tf.TensorSpec([None], tf.float32, "waveform"),
            tf.TensorSpec([None], tf.float32, "carried"),
            tf.TensorSpec([], tf.int32, "frame"),
            tf.TensorSpec([], tf.int32, "final"),
            **state,
        )

    @property
    def _samples_per_frame(self) -> int:
        return self._spec.model.time_stride * self._spec.features.hop_samples

    def _whole(self, x: tf.Tensor) -> tf.Tensor:
        """(frames, width) -> log_probs."""
        if self._spec.model.chunk:
            zeros = [tf.zeros(shape) for shape in self.state_shapes]
            return self._in_chunks(x, tf.shape(x)[0], zeros)[0]
        x, _ = self._stack(x, None)
        if self._lookahead:
            x = self._lookahead(tf.pad(x, [[0, self._spec.model.lookahead], [0, 0]]))
        return self._log_probs(x)

    def _piece(
        self, x: tf.Tensor, frames: tf.Tensor, frame: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The one-way network's next (frames, width), and perhaps more that mean nothing."""
        if not self._lookahead:
            x, after = self._stack(x, state)
            return self._log_probs(x), after
        *before, waiting = state
        x, after = self._stack(x, before)
        x *= tf.cast(tf.range(tf.shape(x)[0]) < frames, tf.float32)[:, tf.newaxis]
        x = tf.concat([waiting, x], axis=0)
        ahead = self._spec.model.lookahead
        # Of the utterance's first piece the frames of ``waiting`` are none.
        first = tf.maximum(ahead - frame, 0)
        return self._log_probs(self._lookahead(x)[first:]), [*after, x[-ahead:]]

    def _in_whole_chunks(self, frames: tf.Tensor, final: tf.Tensor) -> tf.Tensor:
        model = self._spec.model
        complete = (frames - model.right_context) // model.chunk * model.chunk
        return tf.where(tf.equal(final, 0), complete, frames)

    def _in_chunks(
        self, x: tf.Tensor, outputs: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Some frames, (frames, width), as many outputs of them as are wanted, and the layers'
        states before them -> log_probs and the states after the last chunk.

        ``layers.chunks`` says what is computed. Behind the last chunk's context frames may be
        missing.
        """
        chunk = self._spec.model.chunk
        count = chunk + self._spec.model.right_context
        frames, labels = tf.shape(x)[0], self._spec.alphabet.size
        x = tf.pad(x, [[0, count], [0, 0]])

        def body(i: tf.Tensor, written: tf.TensorArray, state: State) -> tuple:
            y = tf.slice(x, tf.stack([i * chunk, 0]), [count, x.shape[1]])
            valid = tf.minimum(frames - i * chunk, count)
            y, after = self._stack(y, state, Chunk(chunk, count, valid))
            after = [tf.ensure_shape(a, b.shape) for a, b in zip(after, state, strict=True)]
            return i + 1, written.write(i, self._log_probs(y[:chunk])), after

        chunks = (outputs + chunk - 1) // chunk
        written = tf.TensorArray(tf.float32, chunks, element_shape=[chunk, labels])
        _, written, after = tf.while_loop(
            lambda i, *_: i < chunks, body, (tf.constant(0), written, list(state))
        )
        log_probs = tf.reshape(written.stack(), [-1, labels])
        return tf.slice(log_probs, [0, 0], tf.stack([outputs, labels])), list(after)

    def _stack(
        self, x: tf.Tensor, state: State | None, chunk: Chunk | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """(frames, width) and the layers' states -> (frames, width of the top layer) and the states
        after."""
        remaining, after = list(state or []), []
        for layer, stage in zip(self._recurrent, self._after, strict=True):
            own = None if state is None else [remaining.pop(0) for _ in layer.state_sizes]
            x, own = layer(x, own, chunk)
            after += own
            x = stage(x)
        return x, after

    def _log_probs(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(self._logits(x))


class Chunk:
    """One chunk of a latency-controlled model: ``count`` frames, of which ``own`` are its own and
    the first ``valid``, at least one, are not padding."""

    def __init__(self, own: int, count: int, valid: tf.Tensor):
        self.own = own
        time = tf.range(count)
        # An involution: the valid frames from the last to the first, then padding.
        self._mirrored = tf.where(time < valid, valid - 1 - time, time)

    def mirror(self, x: tf.Tensor) -> tf.Tensor:
        return tf.gather(x, self._mirrored)


def _affine(kernel: np.ndarray, bias: np.ndarray) -> Stage:
    return lambda x: tf.matmul(x, kernel) + bias


def _lookahead(kernel: np.ndarray) -> Stage:
    """(frames + n, units) -> (frames, units). Products frame by frame, so that int8 weights round
    nothing relative to another frame."""
    behind = len(kernel) - 1

    def stage(x: tf.Tensor) -> tf.Tensor:
        frames = tf.shape(x)[0] - behind
        return tf.add_n([x[i : i + frames] * row for i, row in enumerate(kernel)])

    return stage


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
    """(frames, inputs), state -> (frames, units), the state after the last frame, or the last of
    the chunk's own.

    Without a state it begins with zeros and gives none.
    """

    def __init__(self, layer: layers.FastRecurrence):
        self._layer, self._weights = layer, layer.get_weights()
        self.state_sizes: list[int] = tf.nest.flatten(layer.cell.state_size)

    def __call__(
        self, x: tf.Tensor, state: State | None = None, chunk: Chunk | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        shown = self._layer.shown
        initial = [tf.zeros([1, size]) for size in self.state_sizes]
        levels = LEVELS if state is None and chunk is None else STREAMING_LEVELS
        run = functools.partial(
            _nested_loop, sequences=shown if state is None else len(initial), levels=levels
        )
        if state is not None:
            initial = list(state)
        # One utterance: the batch axis of the scan's step order comes and goes.
        states = self._layer.recurrence(self._weights, tf.expand_dims(x, 1), initial, run)
        states = [tf.reshape(sequence, [-1, sequence.shape[2]]) for sequence in states]
        last = slice(chunk.own - 1, chunk.own) if chunk else slice(-1, None)
        after = [] if state is None else [sequence[last] for sequence in states]
        return tf.concat(states[:shown], axis=-1), after


class BothWays:
    """(frames, inputs) -> (frames, 2 * units). It has to know the end, and has no state, unless it
    is given chunk by chunk: then its state is that of the forward direction."""

    def __init__(self, layer: keras.layers.Bidirectional, lowering: str, in_chunks: bool):
        self._forward, self._backward = (
            _one_way(one, lowering) for one in (layer.forward_layer, layer.backward_layer)
        )
        self.state_sizes = self._forward.state_sizes if in_chunks else []

    def __call__(
        self, x: tf.Tensor, state: State | None = None, chunk: Chunk | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        mirror = chunk.mirror if chunk else lambda y: tf.reverse(y, [0])
        forward, after = self._forward(x, state, chunk)
        backward, _ = self._backward(mirror(x), None, chunk)
        return tf.concat([forward, mirror(backward)], axis=-1), after


def recurrent(
    layer: keras.layers.Layer, lowering: str = "nested", in_chunks: bool = False
) -> Recurrent | FusedLSTM | BothWays:
    """The form of a recurrent Keras layer for the device.

    Raises:
        ModelError: it has none.
    """
    if isinstance(layer, keras.layers.Bidirectional):
        return BothWays(layer, lowering, in_chunks)
    return _one_way(layer, lowering)


def _one_way(layer: keras.layers.Layer, lowering: str) -> Recurrent | FusedLSTM:
    if not isinstance(layer, layers.FastRecurrence) or not layer.has_equations():
        raise ModelError(
            f"{layer.name}, a {type(layer).__name__}, has no form for TFLite; the layers of "
            "speechrnn.layers have, with plain activations and without dropout within the "
            "recurrence. Export a SavedModel."
        )
    return FusedLSTM(layer) if lowering == "fused" else Recurrent(layer)


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
