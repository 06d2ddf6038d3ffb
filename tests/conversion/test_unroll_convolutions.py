"""Convolutions as dense layers on the whole input."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.devices import Memristor

pytestmark = pytest.mark.slow

CASES = {
    "same": (layers.Conv2D(3, 3, padding="same"), (6, 5, 2)),
    "strides": (layers.Conv2D(4, (3, 2), 2, activation="relu"), (7, 6, 2)),
    "dilation": (layers.Conv2D(2, 3, dilation_rate=2, use_bias=False), (8, 8, 1)),
    "groups": (layers.Conv2D(4, 3, groups=2), (5, 5, 4)),
    "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 3)),
    "causal": (layers.Conv1D(3, 4, padding="causal"), (9, 2)),
    "volume": (layers.Conv3D(2, 2), (3, 4, 3, 1)),
}


def of(layer, shape):
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten()])
    for w in model.weights:
        w.assign(keras.random.normal(w.shape, seed=1))
    return model


def examples(shape):
    return np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_convolution(case):
    layer, shape = CASES[case]
    model, x = of(layer, shape), examples(shape)
    unrolled = hwa_keras.unroll_convolutions(model)
    [kernel] = [w for w in unrolled.weights if w.name == "kernel"]
    assert kernel.shape[0] == np.prod(shape)
    found, expected = (ops.convert_to_numpy(m(x)) for m in (unrolled, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_functional_model_with_a_skip():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 3, padding="same")(inputs)
    x = layers.BatchNormalization()(layers.Add()([inputs, x]))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model.compile("sgd", "mse", metrics=["mae"])
    unrolled = hwa_keras.unroll_convolutions(model)
    x, y = examples((6, 6, 2)), np.ones((3, 3))
    found, expected = (m.evaluate(x, y, verbose=0) for m in (unrolled, model))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_zeros_of_the_matrix_are_noisy():
    model, x = of(layers.Conv2D(2, 3), (8, 8, 1)), examples((8, 8, 1))
    device = Memristor(sigma=0.1)
    errors = []
    for net in (model, hwa_keras.unroll_convolutions(model)):
        found = hwa_keras.analysis.output_error(net, device, x, method="moments")
        errors.append(found.mse)
    # 64 rows in place of 9, all of them noisy.
    assert 3 < errors[1] / errors[0] < 12


def test_a_matrix_that_is_too_large_is_refused():
    model = of(layers.Conv2D(2, 3, name="big"), (8, 8, 1))
    with pytest.raises(ValueError, match="'big' has 64 rows and 72 columns, 4,608 w"):
        hwa_keras.unroll_convolutions(model, most_weights=4607)


def test_a_model_on_hardware_is_refused():
    model = of(layers.Conv2D(2, 3), (8, 8, 1))
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
    with pytest.raises(ValueError, match="is on hardware"):
        hwa_keras.unroll_convolutions(model)
