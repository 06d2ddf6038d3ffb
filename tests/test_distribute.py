"""`tf.distribute`, each in a process of its own that splits its CPU first."""

import pytest

from tests import fresh

pytestmark = pytest.mark.tensorflow_only

SETUP = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
import contextlib
import hwa_keras
from tests import zoo

def mirrored():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def trained(scope, build, wrap):
    keras.utils.set_random_seed(3)
    with scope:
        base = build()
        model = wrap(base)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
    x = zoo.inputs_for(base, batch=32)
    model.fit(x, np.arange(32) % 3, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return [w.numpy() for w in base.weights]
"""


def test_two_replicas_train_to_the_result_of_one_device():
    fresh.run(
        SETUP
        + """
grid = hwa_keras.quantizers.Uniform(64, "max")
quantized = lambda m: hwa_keras.to_hwa(m, grid, verbose=0)
one = trained(contextlib.nullcontext(), zoo.mlp, quantized)
two = trained(mirrored().scope(), zoo.mlp, quantized)
start = [w.numpy() for w in (keras.utils.set_random_seed(3), zoo.mlp())[1].weights]
for a, b, before in zip(one, two, start):
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(a - before).max() > 1e-3
"""
    )


def test_batch_norm_statistics_move_as_in_plain_keras():
    fresh.run(
        SETUP
        + """
plain = trained(mirrored().scope(), zoo.residual_cnn, lambda m: m)
hardware = trained(
    mirrored().scope(), zoo.residual_cnn, lambda m: hwa_keras.to_hwa(m, verbose=0)
)
for a, b in zip(plain, hardware):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
"""
    )


def test_replicas_draw_independent_noise_and_train_with_it():
    fresh.run(
        SETUP
        + """
strategy = mirrored()
with strategy.scope():
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(50)])
    hwa = hwa_keras.to_hwa(
        model, kernel_noise=hwa_keras.noise.AdditiveGaussian(1.0), seed=5, verbose=0
    )
    hwa.compile("sgd", "mse")
eye = tf.eye(40)

@tf.function
def step():
    return strategy.run(lambda: hwa(eye, training=True) - hwa(eye, training=False))

errors = [e.numpy().ravel() for e in strategy.experimental_local_results(step())]
again = [e.numpy().ravel() for e in strategy.experimental_local_results(step())]
draws = [*errors, *again]
for i, a in enumerate(draws):
    for b in draws[:i]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
history = hwa.fit(np.eye(40, dtype="float32"), np.ones((40, 50)), verbose=0)
assert np.isfinite(history.history["loss"][0])
"""
    )
