"""What else is measured in a process of its own: the machine's peak, one layer, parts of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from implementations import Actions
from shapes import MATRICES, PEAK_SIZE, Shape, draw_batch
from tensorflow_stack import TensorFlowStack, keras_layer, keras_rnn, our_layer

from speechrnn.training import threads


def build(job: dict[str, Any], shape: Shape) -> Actions:
    """The actions of job["implementation"]: peak, layer-<...>, scaling-<dtype>, parts-<dtype>."""
    kind, _, variant = job["implementation"].partition("-")
    if kind == "peak":
        return peak()
    if kind == "layer":
        return one_layer(variant, shape)
    stack = TensorFlowStack(f"ours-{variant}", shape)
    if kind == "scaling":
        return every_size(stack, job["batches"], job["frames"])
    return parts_of_a_step(stack, variant)


def peak() -> Actions:
    """One large product on all cores, by dtype."""
    multiply = tf.function(tf.matmul)
    square = tf.random.normal([PEAK_SIZE, PEAK_SIZE], seed=0)
    operands = {dtype: tf.cast(square, dtype) for dtype in ("float32", "bfloat16")}
    return {dtype: partial(multiply, x, x) for dtype, x in operands.items()}


def one_layer(variant: str, shape: Shape) -> Actions:
    """One forward layer on frames that are all valid, without a mask."""
    if variant.startswith("ours"):
        threads.configure("auto")
        layer = our_layer(shape, 0, variant.removeprefix("ours-"), both=False)
    else:
        layer = keras_layer(shape) if variant == "keras" else keras_rnn(shape, 0, False)
    x = tf.random.normal([shape.batch, shape.frames, shape.features], seed=0)
    upstream = tf.random.normal([shape.batch, shape.frames, shape.units], seed=1)
    layer(x[:, :2])

    @tf.function
    def forward(x: tf.Tensor) -> tf.Tensor:
        return layer(x, training=False)

    @tf.function
    def both_ways(x: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
        # By the input too, as for any layer but the lowest.
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, [x, *layer.trainable_weights], upstream)

    return {"infer": lambda: forward(x), "train": lambda: both_ways(x, upstream)}


def loss_alone(stack: TensorFlowStack) -> Callable[..., tf.Tensor]:
    """CTC and its gradient by the logits: (logits, frames, labels) -> the gradient."""

    @tf.function(reduce_retracing=True)
    def gradient(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = tf.reduce_mean(stack.loss(logits, frames, labels))
        return tape.gradient(loss, logits)

    return gradient


def every_size(stack: TensorFlowStack, batches: Sequence[int], frames: Sequence[int]) -> Actions:
    """Training steps of one graph on batches of many sizes, "16x250", and of each the loss's part
    in it, "16x250 loss"."""
    loss = loss_alone(stack)
    found: Actions = {}
    for count in batches:
        for length in frames:
            shape = dataclasses.replace(stack.shape, batch=count, frames=length)
            batch = [tf.constant(array) for array in draw_batch(shape)]
            logits = tf.random.normal([count, length, shape.symbols], seed=0)
            found[f"{count}x{length}"] = partial(_float_of, stack.step, *batch)
            found[f"{count}x{length} loss"] = partial(loss, logits, *batch[1:])
    return found


def _float_of(function: Callable[..., tf.Tensor], *given: tf.Tensor) -> float:
    return float(function(*given))


def parts_of_a_step(stack: TensorFlowStack, dtype: str) -> Actions:
    """The step and what it is made of, each in a graph of its own."""
    x, frames, labels = stack.batch
    logits = tf.function(lambda: stack.logits(x, frames, training=True))
    gradients = tf.function(lambda: stack.gradients(x, frames, labels))
    known_logits, (_, known_gradients) = logits(), gradients()
    return {
        "step": partial(_float_of, stack.step, *stack.batch),
        "forward": logits,
        "loss": partial(loss_alone(stack), known_logits, frames, labels),
        "gradients": gradients,
        "update": tf.function(lambda: stack.update(known_gradients)),
        **bare_products(stack.shape, dtype),
    }


def bare_products(shape: Shape, dtype: str) -> Actions:
    """The step's matrix products by themselves, on noise: those of all frames at once, those
    within the loops over frames, and the same loops without a product in them."""
    if shape.cell not in MATRICES:
        return {}  # the clockwork cell's modules multiply matrices of as many shapes
    directions = [_Direction(shape, layer) for layer in range(shape.layers) for _ in range(2)]
    # As in the step, the two directions of a layer run side by side, one layer after the other.
    pairs = list(zip(directions[0::2], directions[1::2], strict=True))

    def for_each_layer(products: Callable) -> Callable[[], object]:
        graphs = [
            tf.function(lambda pair=pair: [products(direction, dtype) for direction in pair])
            for pair in pairs
        ]
        return lambda: [graph() for graph in graphs]

    forth, back = for_each_layer(_loop_forth), for_each_layer(_loop_back)
    empty_forth, empty_back = for_each_layer(_empty_forth), for_each_layer(_empty_back)
    return {
        "large_products": for_each_layer(_products_at_once),
        "loop_products": lambda: [forth(), back()],
        "empty_loops": lambda: [empty_forth(), empty_back()],
    }


class _Direction:
    """Noise of the shapes that one direction of one layer multiplies."""

    def __init__(self, shape: Shape, layer: int):
        from_input, from_output = (n * shape.units for n in MATRICES[shape.cell])
        inputs = 2 * shape.units if layer else shape.features
        rows, normal = shape.batch * shape.frames, tf.random.normal
        self.lowest = layer == 0
        self.x, self.dx = normal([rows, inputs]), normal([rows, from_input])
        self.kernel, self.recurrent = (
            normal([inputs, from_input]),
            normal([shape.units, from_output]),
        )
        self.h = normal([shape.frames, shape.batch, shape.units])
        self.du = normal([shape.frames, shape.batch, from_output])


def _product(a: tf.Tensor, b: tf.Tensor, dtype: str, **transpose: bool) -> tf.Tensor:
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **transpose), tf.float32)


def _products_at_once(noise: _Direction, dtype: str) -> list[tf.Tensor]:
    """Of each product one number, so that no memory need be held for the result."""
    h, du = (tf.reshape(y, [-1, y.shape[2]]) for y in (noise.h, noise.du))
    products = [
        _product(noise.x, noise.kernel, dtype),
        _product(noise.x, noise.dx, dtype, transpose_a=True),
        _product(h, du, dtype, transpose_a=True),
    ]
    if not noise.lowest:  # the features need no gradient
        products.append(_product(noise.dx, noise.kernel, dtype, transpose_b=True))
    return [p[0, 0] for p in products]


def _loop_forth(noise: _Direction, dtype: str) -> tf.Tensor:
    weight = tf.cast(noise.recurrent, dtype)
    return _loop(noise.h, lambda h: _product(h, weight, dtype), noise.du.shape[2])


def _loop_back(noise: _Direction, dtype: str) -> tf.Tensor:
    weight = tf.cast(noise.recurrent, dtype)
    return _loop(
        noise.du, lambda du: _product(du, weight, dtype, transpose_b=True), noise.h.shape[2]
    )


def _empty_forth(noise: _Direction, dtype: str) -> tf.Tensor:
    return _loop(noise.h, tf.identity, noise.h.shape[2])


def _empty_back(noise: _Direction, dtype: str) -> tf.Tensor:
    return _loop(noise.du, tf.identity, noise.du.shape[2])


def _loop(x: tf.Tensor, body: Callable, width: int) -> tf.Tensor:
    """``body`` of one frame after the other of x (frames, batch, n); what the last one gave."""
    array = tf.TensorArray(x.dtype, x.shape[0]).unstack(x)
    return tf.while_loop(
        lambda t, _: t < x.shape[0],
        lambda t, _: (t + 1, body(array.read(t))),
        (0, tf.zeros([x.shape[1], width])),
        parallel_iterations=1,
    )[1]
