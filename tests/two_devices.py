"""Run by test_distribution.py in a process of its own, whose processor is split into two devices:
steps on both of them beside steps on one. Prints what differs at most, as JSON."""

import json
import sys

import numpy as np
import tensorflow as tf

from speechrnn import model as network
from speechrnn import recipe
from speechrnn.data.dataset import recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.training import distribution
from speechrnn.training.recogniser import RecogniserLearner


def learner(path, strategy, *changes):
    loaded = recipe.load(path, [f"training.strategy={strategy}", *changes])
    here = distribution.start(loaded.training)
    spec = recogniser_spec(loaded, prepare(loaded, progress=False))
    with here.scope():
        model = network.build(spec, loaded.seed)
    return RecogniserLearner(model, spec, loaded, here)


def batch(rows, dimension=20, frames=30):
    rng = np.random.default_rng(rows)
    return {
        "features": rng.normal(size=[rows, frames, dimension]).astype(np.float32),
        "frames": np.full(rows, frames, np.int32),
        "labels": rng.integers(1, 4, [rows, 3]).astype(np.int32),
    }


def far(found, wanted):
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
        for a, b in zip(found, wanted, strict=True)
    )


def copies(variable):
    return [value.numpy() for value in variable.value.values]


def main():
    [processor] = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    path = sys.argv[1]
    still = "model.dropout=0", "training.ema_decay=0.9"
    one, two = learner(path, "one", *still), learner(path, "mirrored", *still)
    told = {"replicas": two.distribution.replicas, "steps": 0.0}
    for rows in (5, 2, 1):  # shares of three and two rows, of one each, and of one and none
        found, wanted = two.step(batch(rows), 0.01), one.step(batch(rows), 0.01)
        told["steps"] = max(told["steps"], far([found[0], found[2]], [wanted[0], wanted[2]]))
    bad = batch(4)
    bad["features"][3] = np.nan
    before = two.model.get_weights()
    told["finite"] = bool(two.step(bad, 0.01)[1])
    told["changed by what is not finite"] = far(two.model.get_weights(), before)
    arrays, others = two.arrays(), one.arrays()
    told["weights"] = far(arrays["model"], others["model"])
    told["average"] = far(arrays["average"], others["average"])
    told["copies"] = max(far(*[[c] for c in copies(w)]) for w in two.model.trainable_variables)
    two.restore(others)
    told["restored"] = far(two.arrays()["optimizer"], others["optimizer"])

    dropping = learner(path, "mirrored", "model.dropout=0.5")
    dropping.step(batch(4), 0.01)
    state = dropping.model.dropouts[0].seed_generator.state
    told["masks are drawn apart"] = len({copy.tobytes() for copy in copies(state)}) == 2
    print(json.dumps(told))


if __name__ == "__main__":
    main()
