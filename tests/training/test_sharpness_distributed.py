"""Sharpness-aware steps on several devices, against NumPy."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests import fresh, workers
from tests.training import reference

pytestmark = pytest.mark.tensorflow_only

SETUP = """
import keras, numpy as np, tensorflow as tf
from hwa_keras.training import SharpnessAwareModel
from tests.training import test_sharpness_aware as t

def build(optimizer, **kwargs):
    model = SharpnessAwareModel(*t.ends(), **kwargs)
    model.compile(optimizer, t.LOSS)
    t.started(model)
    return model

def weights(model):
    return [w.numpy().tolist() for w in model.trainable_variables]
"""
MIRRORED = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""
TAKE_STEPS = """
x, y = t.problem(12)
found = {}
for name, kwargs in arguments.items():
    with strategy.scope():
        model = build(keras.optimizers.SGD(0.1), **kwargs)
    history = model.fit(x, y, batch_size=12, shuffle=False, verbose=0).history
    found[name] = weights(model), history["loss"][0]
"""


def start():
    rng = np.random.default_rng(0)
    shapes = [(5, 7), (7,), (7,), (7,), (7, 3), (3,)]
    weights = [rng.normal(size=shape) for shape in shapes]
    weights[2] += 1.0
    weights = [w.astype("float32").astype("float64") for w in weights]
    return dict(zip(reference.NAMES, weights, strict=True))


def expected(method, rho, synchronized):
    """One step of two replicas, each with half of the batch."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)).astype("float32"), rng.integers(0, 3, 12)
    w = start()
    halves = [(x[:6], y[:6]), (x[6:], y[6:])]
    firsts = [reference.loss_and_gradients(w, *half) for half in halves]
    gradients = [g for _, g, _ in firsts]
    if synchronized:
        mean = {k: (gradients[0][k] + gradients[1][k]) / 2 for k in w}
        gradients = [mean, mean]
    total = {k: np.zeros_like(v) for k, v in w.items()}
    for half, g in zip(halves, gradients, strict=True):
        e = reference.worst(w, g, method, rho)
        point = {k: w[k] + e[k] for k in w}
        _, ahead, _ = reference.loss_and_gradients(point, *half)
        total = {k: total[k] + ahead[k] / 2 for k in w}
    loss = (firsts[0][0] + firsts[1][0]) / 2
    return {k: w[k] - 0.1 * total[k] for k in w}, loss


ARGUMENTS = {
    "own": {"method": "asam", "rho": 0.5},
    "one": {"method": "asam", "rho": 0.5, "synchronized": True, "every": 2},
}


def check(found):
    for name, (weights, loss) in found.items():
        synchronized = ARGUMENTS[name].get("synchronized", False)
        after, expected_loss = expected("asam", 0.5, synchronized)
        for value, key in zip(weights, reference.NAMES, strict=True):
            np.testing.assert_allclose(value, after[key], atol=2e-6, err_msg=name + key)
        assert loss == pytest.approx(expected_loss, abs=1e-5)
    own, one = (np.array(found[name][0][0]) for name in ("own", "one"))
    assert np.abs(own - one).max() > 1e-4  # The argument matters.


def test_two_replicas_have_an_epsilon_each_or_one():
    printed = fresh.run(
        SETUP + MIRRORED + TAKE_STEPS + "import json; print(json.dumps(found))",
        arguments=ARGUMENTS,
    )
    check(json.loads(printed.splitlines()[-1]))


def test_a_replica_that_is_not_finite_holds_the_weights_of_all():
    fresh.run(
        SETUP
        + MIRRORED
        + """
x, y = t.problem(12)
bad = x.copy()
bad[7, 2] = np.inf  # In the half of the second replica.
sgd = lambda: keras.optimizers.SGD(0.1, momentum=0.9)
for optimizer in (sgd, lambda: keras.optimizers.LossScaleOptimizer(sgd())):
    with strategy.scope():
        model = build(optimizer(), method="samson")
    fit = lambda x: model.fit(x, y, batch_size=12, shuffle=False, verbose=0)
    fit(x)
    before = weights(model)
    fit(bad)
    assert weights(model) == before
    fit(x)
    assert weights(model) != before
    assert np.all([np.all(np.isfinite(w)) for w in weights(model)])
"""
    )


# A loop of one's own around `train_step`: Keras 3's `fit` does not run on several
# workers (keras-team/keras#20585).
WORKER = (
    """
import os
os.environ["TF_CONFIG"] = config
"""
    + SETUP
    + """
import json
strategy = tf.distribute.MultiWorkerMirroredStrategy()
x, y = t.problem(12)
found = {}
for name, kwargs in arguments.items():
    with strategy.scope():
        model = build(keras.optimizers.SGD(0.1), **kwargs)
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def step(batch):
        logs = strategy.run(model.train_step, args=(batch,))
        return strategy.reduce("MEAN", logs["loss"], axis=None)

    def half(context):
        i = context.input_pipeline_id
        part = x[6 * i : 6 * i + 6], y[6 * i : 6 * i + 6]
        return tf.data.Dataset.from_tensor_slices(part).batch(6)

    [batch] = strategy.distribute_datasets_from_function(half)
    loss = float(step(batch))
    found[name] = weights(model), loss
print(json.dumps(found))
"""
)


def test_two_workers_take_the_same_step():
    def work(config):
        return fresh.run(WORKER, config=config, arguments=ARGUMENTS)

    with ThreadPoolExecutor(2) as pool:
        for printed in pool.map(work, workers.clusters(2)):
            check(json.loads(printed.splitlines()[-1]))
