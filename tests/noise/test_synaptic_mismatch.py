"""`SynapticMismatch`: what a chip adds to the weights of its synapses."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

import hwa_keras
from hwa_keras.core import random
from hwa_keras.layers import HWADense
from hwa_keras.noise import SynapticMismatch
from hwa_keras.quantizers import Uniform

RNG = np.random.default_rng(8)
X = RNG.normal(size=(8, 6)).astype("float32")


def test_deviations_are_normal_and_the_same_for_all_weights():
    w = RNG.uniform(-0.9, 0.9, (200, 100)).astype("float32")
    w[:100] = 0.0
    noise = SynapticMismatch(0.04, 0.9)
    z = (ops.convert_to_numpy(noise(w, random.seed_from(3))) - w) / (0.04 * 0.9)
    for half in (z[:100], z[100:]):
        assert abs(half.mean()) < 4 / np.sqrt(half.size)
        assert abs(half.std() - 1) < 4 / np.sqrt(2 * half.size)
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 0.01
    noise.scale.assign(3.0)
    larger = ops.convert_to_numpy(noise(w, random.seed_from(3))) - w
    np.testing.assert_allclose(larger, 3 * 0.036 * z, atol=1e-6)
    noise.scale.assign(0.0)
    np.testing.assert_array_equal(noise(w, random.seed_from(3)), w)


def test_gradient_passes_as_if_nothing_had_happened():
    noise = SynapticMismatch(0.04, 0.9)
    _, (gradient,) = hwa_keras.backend.value_and_gradient(
        lambda tensors: (ops.sum(noise(tensors[0], random.seed_from(1)) * X), None),
        [ops.convert_to_tensor(X)],
    )
    np.testing.assert_array_equal(gradient, X)


def test_the_synapses_of_the_tutorial_have_31_levels_within_0_9():
    w = np.linspace(-1.2, 1.2, 10_001).astype("float32")
    levels = np.unique(ops.convert_to_numpy(Uniform(levels=16, scale=0.9)(w)))
    np.testing.assert_allclose(levels, np.linspace(-0.9, 0.9, 31), atol=1e-6)
    assert Uniform(levels=16, scale=0.9).precision == 5


@pytest.mark.parametrize("hold", [True, False])
def test_a_chip_is_held_or_each_step_is_another(hold, tmp_path):
    layer = HWADense(
        5,
        kernel_quantizer=Uniform(levels=16, scale=0.9),
        kernel_noise=SynapticMismatch(0.04, 0.9, hold=hold),
        noise_seed=1,
    )
    model = keras.Sequential([keras.Input((6,)), layer])
    first, second = (ops.convert_to_numpy(model(X, training=True)) for _ in range(2))
    assert np.array_equal(first, second) is hold
    held = ops.convert_to_numpy(layer.kernel_quantizer(layer.kernel))
    np.testing.assert_allclose(model(X), X @ held, rtol=1e-4, atol=1e-6)
    model.compile("adam", "mse")
    model.fit(X, np.ones((8, 5)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(X, training=True), model(X, training=True))
    noise = again.layers[0].noises()[0]
    assert (noise.std, noise.range, noise.hold) == (0.04, 0.9, hold)


def test_monte_carlo_draws_chips_from_their_seeds():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    model.compile("adam", "mse")
    noise = SynapticMismatch(0.12, 0.9)
    data = X, np.ones((8, 5), "float32")
    found = hwa_keras.monte_carlo(model, noise, data, chips=3, seed=5, verbose=0)
    expected = [
        hwa_keras.program(model, noise, seed=5 + i).evaluate(*data, verbose=0)
        for i in range(3)
    ]
    np.testing.assert_allclose(found.values(metric="loss"), expected, rtol=1e-6)
    assert len(set(expected)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 0.9), "`std` of SynapticMismatch must be a finite.*std=-0.1"),
        ((0.1, 0.0), "`range` of SynapticMismatch must be a positive.*range=0.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SynapticMismatch(*arguments)
    with pytest.raises(ValueError, match="no default for std, range"):
        hwa_keras.noise.get("synaptic_mismatch")
