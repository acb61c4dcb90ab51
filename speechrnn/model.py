"""The networks: features -> subsampling -> recurrent layers -> logits; symbols -> the next one."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from speechrnn import layers
from speechrnn.language import CharacterLMSpec
from speechrnn.specs import CONVOLUTION_STRIDES, ModelSpec, RecogniserSpec

CELLS: dict[str, type[keras.layers.RNN]] = {
    "simple_rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "clockwork": layers.ClockworkRNN,
    "depth_gated": layers.DepthGatedLSTM,
}


def build(
    spec: RecogniserSpec, seed: int | None = 0, product_dtype: str = "float32"
) -> keras.Model:
    """A network with fresh weights: model(features, frames) -> logits.

    features (batch, frames, dimension) float32, normalised; frames (batch,) int32, the valid
    ones of each row; logits (batch, ceil(frames / time_stride), alphabet size) float32.

    An utterance's logits do not depend on its batch-mates nor on the padding behind it.

    Args:
        seed: of the initial weights and of dropout. It becomes Keras's global seed, and so
            Python's, NumPy's and TensorFlow's: None, for weights about to be replaced, touches
            none of them.
        product_dtype: ``bfloat16`` computes the recurrent layers' products in it.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    model = Recogniser(spec, seed or 0, product_dtype)
    model(tf.zeros([1, spec.model.time_stride, spec.features.dimension]), tf.constant([1]))
    return model


class Recurrent(keras.Model):
    """What recognisers and language models share: recurrent layers, each with what follows it."""

    def _add_stack(self, model: ModelSpec, seed: int, product_dtype: str) -> None:
        self.layered = model
        self.recurrent = [_recurrent(model, i, product_dtype) for i in range(model.layers)]
        self.norms = [
            keras.layers.LayerNormalization()
            for _ in range(model.layers if model.layer_norm else 0)
        ]
        # The dropouts' own random state is part of the model's variables, so that a checkpoint
        # of them continues the same sequence of masks.
        self.dropouts = [
            keras.layers.Dropout(model.dropout, seed=seed + i) for i in range(model.layers + 1)
        ]

    def stack(self, x: tf.Tensor, lengths: tf.Tensor, training: bool) -> tf.Tensor:
        """(batch, frames, width), or in chunks, and the valid frames of each row -> as many."""
        model = self.layered
        valid = None if model.chunk else tf.sequence_mask(lengths, tf.shape(x)[1])
        for i, layer in enumerate(self.recurrent):
            if model.chunk:
                x = layers.chunks.latency_controlled(layer, x, lengths, model.chunk)
            else:
                x = layer(x, mask=valid)
            if hands_up_cells(model, i):
                x, cells = layers.split_cells(x, model.units)
            if self.norms:
                x = self.norms[i](x)
            x = self.dropouts[i + 1](x, training=training)
            if hands_up_cells(model, i):
                x = tf.concat([x, cells], axis=-1)
        return x


class Recogniser(Recurrent):
    """The layers, in the order of the data; ``build`` makes one ready to use."""

    def __init__(self, spec: RecogniserSpec, seed: int, product_dtype: str):
        super().__init__(name="recogniser")
        self.spec = spec
        model = spec.model
        self.subsampling = SUBSAMPLING[model.subsampling](model)
        self._add_stack(model, seed, product_dtype)
        self.lookahead = layers.Lookahead(model.lookahead) if model.lookahead else None
        self.logits = keras.layers.Dense(spec.alphabet.size)

    def call(self, features: tf.Tensor, frames: tf.Tensor, training: bool = False) -> tf.Tensor:
        model = self.spec.model
        x = self.subsampling(features, frames)
        x = self.dropouts[0](x, training=training)
        lengths, most = output_frames(frames, model), tf.shape(x)[1]
        if model.chunk:
            x = layers.chunks.cut(x, model.chunk, model.right_context)
        x = self.stack(x, lengths, training)
        if model.chunk:
            x = layers.chunks.joined(x, model.chunk, most)
        if self.lookahead:
            x = self.lookahead(x, mask=tf.sequence_mask(lengths, most))
        return self.logits(x)


class CharacterModel(Recurrent):
    """A character language model: embedding, recurrent layers, logits of the next symbol."""

    def __init__(self, spec: CharacterLMSpec, seed: int, product_dtype: str):
        super().__init__(name="character_model")
        self.spec = spec
        self.embedding = keras.layers.Embedding(spec.alphabet.size, spec.model.embedding)
        self._add_stack(spec.model.stack, seed, product_dtype)
        self.logits = keras.layers.Dense(spec.alphabet.size)

    def call(self, labels: tf.Tensor, lengths: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.dropouts[0](self.embedding(labels), training=training)
        return self.logits(self.stack(x, lengths, training))


def build_language_model(
    spec: CharacterLMSpec, seed: int | None = 0, product_dtype: str = "float32"
) -> CharacterModel:
    """A language model with fresh weights: model(labels, lengths) -> logits.

    labels (batch, steps) int32, the edge (0) first, as ``CharacterLMSpec`` numbers them; lengths
    (batch,) int32, the valid ones of each row; logits (batch, steps, alphabet size) float32 of
    what follows each label. The arguments are those of ``build``.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    model = CharacterModel(spec, seed or 0, product_dtype)
    model(tf.zeros([1, 1], tf.int32), tf.constant([1]))
    return model


def hands_up_cells(model: ModelSpec, layer: int) -> bool:
    """Whether this recurrent layer gives the one above it its memory cells, as they are, behind
    its outputs, which are normalised and dropped out."""
    return model.cell == "depth_gated" and layer < model.layers - 1


def output_frames(frames: tf.Tensor, model: ModelSpec) -> tf.Tensor:
    """Feature frames -> logit frames, any shape; ``ModelSpec.output_frames`` as a graph."""
    return (frames + model.time_stride - 1) // model.time_stride


def _recurrent(model: ModelSpec, index: int, product_dtype: str) -> keras.layers.Layer:
    of_cell: dict[str, Any] = {}
    if model.cell == "clockwork":
        of_cell["periods"] = model.periods
    if model.cell == "depth_gated":
        of_cell["lower_cells"] = (1 + model.bidirectional) if index else 0
        of_cell["return_cells"] = hands_up_cells(model, index)
    layer = CELLS[model.cell](
        model.units,
        product_dtype=product_dtype,
        return_sequences=True,
        zero_output_for_mask=True,
        **of_cell,
    )
    return keras.layers.Bidirectional(layer) if model.bidirectional else layer


class Stack(keras.layers.Layer):
    """Frame stacking: ``time_stride`` feature frames side by side make one frame."""

    def __init__(self, model: ModelSpec):
        super().__init__(name="stack")
        self.stride = model.time_stride

    def call(self, features: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
        x = _zero_after(features, frames)
        x = tf.pad(x, [[0, 0], [0, -tf.shape(x)[1] % self.stride], [0, 0]])
        return tf.reshape(x, [tf.shape(x)[0], -1, self.stride * x.shape[2]])


class Convolutions(keras.layers.Layer):
    """Two 3 x 3 convolutions over time and frequency, both halving the frequency axis.

    Zeros pad one frame before and after the valid ones, whatever the length: TensorFlow's own
    "same" padding shifts by a frame with the padded length. Frames behind an utterance are
    set to zero before each convolution.
    """

    def __init__(self, model: ModelSpec):
        super().__init__(name="convolutions")
        self.strides = CONVOLUTION_STRIDES[model.time_stride]
        self.convolutions = [
            keras.layers.Conv2D(model.conv_channels, 3, strides=(stride, 2), activation="relu")
            for stride in self.strides
        ]

    def call(self, features: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
        x = features[..., None]
        for stride, convolution in zip(self.strides, self.convolutions, strict=True):
            x = convolution(tf.pad(_zero_after(x, frames), [[0, 0], [1, 1], [1, 1], [0, 0]]))
            frames = (frames + stride - 1) // stride
        return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], x.shape[2] * x.shape[3]])


SUBSAMPLING: dict[str, type[keras.layers.Layer]] = {"stack": Stack, "conv": Convolutions}


def _zero_after(x: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    valid = tf.sequence_mask(frames, tf.shape(x)[1], x.dtype)
    return x * tf.reshape(
        valid, tf.concat([tf.shape(valid), tf.ones(x.shape.rank - 2, tf.int32)], 0)
    )
