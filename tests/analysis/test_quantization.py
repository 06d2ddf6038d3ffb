"""Curves of a metric over the bits of kernels that were not trained for them."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import circuits
from hwa_keras.analysis import quantization_curve

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 5)).astype("float32")


def linear(*units):
    layers = [keras.layers.Dense(n, use_bias=False) for n in units]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def numpy_of(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def mse(weights, y):
    outputs = X
    for w in weights:
        outputs = outputs @ w
    return np.mean((outputs - y) ** 2)


def rounded(w, bits):
    step = np.abs(w).max() / (2 ** (bits - 1) - 1)
    return np.round(w / step) * step


@pytest.mark.parametrize("around", ["nothing", "quantizers", "sam"])
def test_kernels_after_the_first_are_rounded(around):
    model = linear(4, 3, 5)
    first, *rest = numpy_of(model.weights)
    if around == "sam":
        model = hwa_keras.training.SharpnessAwareModel.wrap(model)
        model.compile("adam", "mse")
    if around == "quantizers":
        model = hwa_keras.to_hwa(
            model, "ste_sign", "programming_noise", skip=("last",), verbose=0
        )
        model.compile("adam", "mse")
    curve = quantization_curve(model, (X, Y), bits=(8, 3), metric="loss", verbose=0)
    assert curve.levels == [8, 3] and curve.axes[0].label == "bits per weight"
    for bits in curve.levels:
        expected = mse([first, *(rounded(w, bits) for w in rest)], Y)
        assert curve.values(bits).tolist() == pytest.approx([expected], rel=1e-4)


def test_converters_stay_and_a_chip_is_refused():
    model = linear(5)
    (w,) = numpy_of(model.weights)
    dac = circuits.DAC(3, range=2.0)
    hardware = hwa_keras.Hardware("ste_sign", dac=dac)
    hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    model.compile("adam", "mse")
    curve = quantization_curve(
        model, (X, Y), bits=[3], skip=(), metric="loss", verbose=0
    )
    expected = np.mean((numpy_of([dac(X)])[0] @ rounded(w, 3) - Y) ** 2)
    assert curve.values(3).tolist() == pytest.approx([expected], rel=1e-4)
    with pytest.raises(ValueError, match="is a chip.*model that was programmed"):
        quantization_curve(hwa_keras.program(model, "pcm"), (X, Y), verbose=0)


@pytest.mark.parametrize("converted", [False, True])
def test_layers_that_quantize_on_their_own_still_do(converted):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            hwa_keras.layers.HWADense(4, use_bias=False, kernel_quantizer="ste_sign"),
            keras.layers.Dense(5, use_bias=False),
        ]
    )
    model.compile("adam", "mse")
    first, second = numpy_of(model.weights)
    if converted:
        hwa_keras.to_hwa(model, "ste_sign", verbose=0)
        model.compile("adam", "mse")
    curve = quantization_curve(
        model, (X, Y), bits=[3], skip=(), metric="loss", verbose=0
    )
    expected = mse([np.where(first >= 0, 1, -1), rounded(second, 3)], Y)
    assert curve.values(3).tolist() == pytest.approx([expected], rel=1e-4)


@pytest.mark.parametrize("bits", [[], [1], [4.5]])
def test_bad_bits(bits):
    with pytest.raises(ValueError, match="`bits` must be one or more integers ≥ 2"):
        quantization_curve(linear(5), (X, Y), bits=bits, verbose=0)
