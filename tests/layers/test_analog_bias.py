"""A bias that is a row of the array: before the ADC, programmed, drifting."""

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.circuits import ADC

IDEAL = dict(programming_scale=0.0, drift_scale=0.0, read_scale=0.0)


def converted(**settings):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(8)])
    bias = np.linspace(-1, 1, 8).astype("float32")
    model.layers[0].bias.assign(bias)
    hardware = hwa_keras.Hardware(bias="analog", **settings)
    return hwa_keras.to_hwa(model, hardware=hardware, verbose=0)


def inputs():
    return np.random.default_rng(0).normal(size=(5, 12)).astype("float32")


def digitized(y, bits, bound):
    step = 2 * bound / (2**bits - 2)
    return np.round((np.clip(y, -bound, bound) + bound) / step) * step - bound


def test_it_is_added_before_the_adc():
    model, x = converted(adc=ADC(4, 1.0)), inputs()
    kernel, bias = (w.astype("float64") for w in model.layers[0].get_weights()[:2])
    expected = digitized(x @ kernel + bias, 4, 1.0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_it_belongs_to_the_last_row_tile():
    model, x = converted(adc=ADC(4, 1.0), tile=(5, 3)), inputs()
    kernel, bias = (w.astype("float64") for w in model.layers[0].get_weights()[:2])
    parts = [x[:, i : i + 5] @ kernel[i : i + 5] for i in (0, 5, 10)]
    parts[-1] = parts[-1] + bias
    expected = sum(digitized(part, 4, 1.0) for part in parts)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_with_everything_ideal_outputs_are_those_of_keras():
    model, x = converted(tile=(5, 3)), inputs()
    kernel, bias = model.layers[0].get_weights()[:2]
    np.testing.assert_allclose(
        model.predict(x, verbose=0), x @ kernel + bias, atol=1e-5
    )


def test_training_noise_reaches_it_and_a_quantizer_does_not():
    model = converted(
        kernel_quantizer="ste_sign", kernel_noise=hwa_keras.noise.DropConnect(1.0)
    )
    zeros = np.zeros((1, 12), "float32")
    bias = model.layers[0].bias.numpy()
    np.testing.assert_array_equal(model(zeros, training=False)[0], bias)
    np.testing.assert_array_equal(model(zeros, training=True)[0], 0 * bias)


def test_on_a_chip_it_is_on_devices_and_drifts():
    model, zeros = converted(), np.zeros((1, 12), "float32")
    bias = model.layers[0].bias.numpy()
    ideal = hwa_keras.program(model, hwa_keras.devices.PCM(**IDEAL), seed=0)
    np.testing.assert_allclose(ideal(zeros)[0], bias, atol=1e-6)
    chip = hwa_keras.program(
        model, "pcm", seed=0, compensation="none", read_noise="off"
    )
    names = [k.path.rpartition("/")[2] for k in chip.programmed_kernels()]
    assert names == ["kernel", "bias"]
    chip.t = 31_536_000.0
    drifted = np.abs(keras.ops.convert_to_numpy(chip(zeros)[0]))
    assert drifted.sum() < 0.7 * np.abs(bias).sum()


@pytest.mark.parametrize("tile", [None, (5, 3)], ids=["whole", "tiles"])
@pytest.mark.parametrize("adc", [None, ADC(16, range=40.0)], ids=["plain", "adc"])
def test_drift_is_compensated_once(adc, tile):
    model, x = converted(adc=adc, tile=tile), inputs()
    device = hwa_keras.devices.PCM(programming_scale=0.0, read_scale=0.0)
    chip = hwa_keras.program(model, device, seed=1)
    expected, chip.t = model(x, training=False), 31_536_000.0
    found, expected = (keras.ops.convert_to_numpy(y) for y in (chip(x), expected))
    share = np.vdot(found, expected) / np.vdot(expected, expected)
    assert share == pytest.approx(1.0, abs=0.1)


def test_a_layer_without_such_a_row_refuses_it():
    model = keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(5)])
    with pytest.raises(ValueError, match="digital"):
        hwa_keras.to_hwa(model, hardware=hwa_keras.Hardware(bias="analog"), verbose=0)
    einsum = keras.layers.EinsumDense("ab,bcd->acd", (3, 4), bias_axes="cd")
    model = keras.Sequential([keras.Input((5,)), einsum])
    with pytest.raises(ValueError, match="bias of shape"):
        hwa_keras.to_hwa(model, hardware=hwa_keras.Hardware(bias="analog"), verbose=0)
