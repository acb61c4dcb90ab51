"""Your own training loop on speechrnn's batches, network and loss: script.py RECIPE"""

import sys

import keras
import tensorflow as tf

from speechrnn import ctc, data, model, recipe


def main():
    settings = recipe.load(sys.argv[1], sys.argv[2:])
    spec = data.recogniser_spec(settings)
    network = model.build(spec, seed=settings.seed)
    optimizer = keras.optimizers.Adam(settings.training.learning_rate)

    @tf.function(reduce_retracing=True)
    def step(features, frames, labels):
        with tf.GradientTape() as tape:
            logits = network(features, frames, training=True)
            loss = tf.reduce_mean(ctc.loss(logits, model.output_frames(frames, spec.model), labels))
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    for batch in data.batches(settings, "train", settings.training.epochs):
        print(f"loss {step(batch['features'], batch['frames'], batch['labels']):.2f}")


if __name__ == "__main__":  # preparation starts processes, which import this file
    main()
