"""The LSTM as one operation of the device, UNIDIRECTIONAL_SEQUENCE_LSTM.

For tools that look for that operation, such as compilers for microcontrollers and neural
accelerators. It is slower than the loops of ``lowering``, and it keeps its state: each call goes
on where the last one of the same length ended, unless the variable tensors are reset between
them, as ``runtime.Recognizer`` does.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import flatbuffers
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from speechrnn import layers
from speechrnn.errors import UsageError
from speechrnn.layers import scan
from speechrnn.runtime.container import FLATBUFFER_IDENTIFIER


class FusedLSTM:
    """(frames, inputs) -> (frames, units), beginning with zeros; what ``lowering.Recurrent`` is to
    a loop. It can be given no state, for the operation takes it from its own memory only."""

    state_sizes: Sequence[int] = ()

    def __init__(self, layer: layers.LSTM):
        self._layer, self._weights = layer, layer.get_weights()

    def __call__(
        self, x: tf.Tensor, state: Sequence[tf.Tensor] | None = None, chunk: object = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """
        Raises:
            UsageError: there is a state.
        """
        if state is not None:
            raise UsageError("the fused LSTM does not stream; export with --lowering nested")
        # The converter puts the operation in the place of any function with these attributes,
        # whose six arguments and five results it takes to be those of Keras 2's LSTM. It wants
        # a name of its own for each, and crashes where an argument is a variable.
        function = tf.function(
            self._as_in_keras_2,
            autograph=False,
            experimental_attributes={
                "api_implements": f"lstm_{uuid.uuid4()}",
                "api_preferred_device": "CPU",
                "go_backwards": False,
                "time_major": False,
            },
        )
        zeros = tf.zeros([1, self._layer.units])
        weights = [tf.constant(weight) for weight in self._weights]
        _, outputs, *_ = function(tf.expand_dims(x, 0), zeros, zeros, *weights)
        return tf.reshape(outputs, [-1, self._layer.units]), []

    def _as_in_keras_2(
        self,
        x: tf.Tensor,
        h: tf.Tensor,
        c: tf.Tensor,
        kernel: tf.Tensor,
        recurrent: tf.Tensor,
        bias: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """What the operation computes: x (1, frames, inputs), two states (1, units), the weights
        in Keras's order of gates -> the last output, all outputs, the two states, a device."""
        states = self._layer.recurrence(
            [kernel, recurrent, bias],
            tf.transpose(x, [1, 0, 2]),
            [h, c],
            lambda equations, x, state: scan.run(equations, x, state, "float32", len(state)),
        )
        outputs, cells = (tf.transpose(sequence, [1, 0, 2]) for sequence in states)
        return outputs[:, -1], outputs, outputs[:, -1], cells[:, -1], tf.constant(0.0)


def without_clipping(flatbuffer: bytes) -> bytes:
    """The same model with memory cells that may take any value.

    The converter has the operation limit them to 10 either way, which no Keras layer does: a
    cell that counts for longer than ten frames would be wrong.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            options = operator.builtinOptions
            if isinstance(options, schema.UnidirectionalSequenceLSTMOptionsT):
                options.cellClip = 0.0  # none
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), file_identifier=FLATBUFFER_IDENTIFIER)
    return bytes(builder.Output())
