"""Cells with recurrent weights: against NumPy, against `LIF`, on hardware."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import Hardware
from hwa_keras.circuits import ADC, DAC
from hwa_keras.noise import ProcessVariation
from hwa_keras.spiking import LIF, HWALIFCell, LIFCell
from tests import fresh
from tests.gradients import gradient
from tests.spiking.networks import LABELS, TAUS, X

RNG = np.random.default_rng(6)
BETA = np.exp(-8e-3 / 64e-3)


def as_numpy(x):
    return ops.convert_to_numpy(x)


def recurrent(units=6, cell=LIFCell, kind=layers.RNN, **arguments):
    options = {"bias_initializer": "random_normal", "seed": 0, **arguments}
    layer = kind(cell(units, **TAUS, **options), return_sequences=True)
    layer(X)
    layer.cell.kernel.assign(RNG.normal(scale=0.8, size=layer.cell.kernel.shape))
    return layer


def reference(x, w, u, b, reset="zero", floor=None, beta=BETA):
    """A recurrent layer in float64: spikes."""
    z = v = np.zeros((len(x), w.shape[1]))
    spikes = []
    for step in np.moveaxis(x.astype("float64"), 1, 0):
        membrane = beta * v + step @ w + z @ u + b
        z = (membrane > 1).astype(float)
        v = {"zero": membrane * (1 - z), "subtract": membrane - z}[reset]
        v = v if floor is None else np.maximum(v, floor)
        spikes.append(z)
    return np.stack(spikes, 1)


@pytest.mark.parametrize("cell", [LIFCell, HWALIFCell])
@pytest.mark.parametrize("setting", [{}, {"reset": "subtract", "floor": -0.3}])
def test_a_cell_computes_what_numpy_computes(cell, setting):
    layer = recurrent(cell=cell, **setting)
    weights = [as_numpy(w).astype("float64") for w in layer.cell.trainable_weights]
    expected = reference(X, *weights, **setting)
    np.testing.assert_array_equal(as_numpy(layer(X)), expected)
    assert 0.05 < expected.mean() < 0.9


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("through", [False, True])
def test_without_recurrent_weights_gradients_are_those_of_the_layer(reset, through):
    options = {"reset": reset, "floor": -0.3, "reset_gradient": through}
    layer = recurrent(use_bias=False, recurrent_initializer="zeros", **options)
    neurons, kernel = LIF(**TAUS, **options), layer.cell.kernel.value
    g = RNG.normal(size=(4, 20, 6)).astype("float32")

    def currents(x):
        return neurons(ops.matmul(x, kernel)) * g

    found = gradient(lambda x: layer(x) * g, X)
    expected = gradient(currents, X)
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


def test_a_cell_goes_on_hardware_with_its_converters():
    layer = recurrent(bias_initializer="zeros")
    model = keras.Sequential([keras.Input((20, 5)), layer])
    hardware = Hardware(dac=DAC(12, 4.0), adc=ADC(12, 8.0), tile=(4, 4))
    on_hardware = hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    cell = on_hardware.layers[0].cell
    assert isinstance(cell, HWALIFCell)
    assert [k.keys for k in cell.hardware_kernels] == [
        ("kernel",),
        ("recurrent_kernel",),
    ]
    close = as_numpy(on_hardware(X)) == as_numpy(model(X))
    assert close.mean() > 0.98
    back = hwa_keras.to_digital(on_hardware)
    assert type(back.layers[0].cell) is LIFCell
    np.testing.assert_array_equal(as_numpy(back(X)), as_numpy(model(X)))


def test_mismatch_is_one_draw_for_a_sequence():
    options = {"tau_noise": ProcessVariation(0.5, hold=False), "mismatch_seed": 3}
    layer, twin = (recurrent(**options) for _ in range(2))
    twin.set_weights(layer.get_weights())
    weights = [as_numpy(w).astype("float64") for w in layer.cell.trainable_weights]
    for _ in range(2):
        [beta], _ = twin.cell.constants(training=True)
        expected = reference(X, *weights, beta=as_numpy(beta).astype("float64"))
        assert np.any(expected != reference(X, *weights))
        np.testing.assert_array_equal(as_numpy(layer(X, training=True)), expected)
    np.testing.assert_array_equal(as_numpy(layer(X)), reference(X, *weights))


def test_training_files_and_chips(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((20, 5))
    cell = LIFCell(12, **TAUS, tau_noise=0.3, learn_tau=True)
    x = layers.RNN(cell, return_sequences=True)(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    model = hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=True)
    history = model.fit(2 * X, LABELS, epochs=20, verbose=0).history["loss"]
    assert np.isfinite(history).all() and np.mean(history[-3:]) < 0.9 * history[0]
    chips = [hwa_keras.program(model, "pcm", s, verbose=0) for s in (1, 1, 2)]
    first, same, other = (as_numpy(chip.layers[1].cell.tau_factor) for chip in chips)
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)
    chips[0].read_noise = "frozen"
    models = {"model": model, "chip": chips[0]}
    fresh.assert_loads_equal(models, dict.fromkeys(models, X), tmp_path)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`units` of LIFCell must be an integer ≥ 1"):
        LIFCell(0, **TAUS)
    with pytest.raises(ValueError, match="`dt` of LIFCell must be less than 5·tau"):
        LIFCell(3, tau=1e-3, dt=8e-3)
    with pytest.raises(ValueError, match="`floor` of LIFCell must be below"):
        LIFCell(3, **TAUS, floor=2.0)
    with pytest.raises(ValueError, match="`tau`.*broadcasts with the neurons"):
        layers.RNN(LIFCell(3, tau=[0.1, 0.1], dt=8e-3))(X)
