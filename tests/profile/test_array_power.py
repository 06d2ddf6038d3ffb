import keras
import numpy as np
import pytest
from keras import layers

import hwa_keras
from hwa_keras import Hardware
from hwa_keras import layers as hwa
from hwa_keras.circuits import ADC, DAC
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import PCM, Memristor
from hwa_keras.profile import array_energy
from tests.layers import references
from tests.layers.references import expected
from tests.profile.arrays import (
    CLOSE,
    DEVICE,
    SI,
    numbers,
    power,
    sequential,
)


def power_of_layer(layer, x):
    w = np.array(layer.kernel)

    def product(x, g):
        layer.kernel.assign(g)
        try:
            return expected(layer, np.asarray(x))
        finally:
            layer.kernel.assign(w)

    return power(product, x, w)


IMAGE = (7, 6, 4)
FAMILIES = [
    ((4,), lambda: layers.Dense(5)),
    ((3, 4), lambda: layers.Dense(5)),
    ((9, 4), lambda: layers.Conv1D(6, 3, padding="causal", strides=2, groups=2)),
    (IMAGE, lambda: layers.Conv2D(6, (3, 2), strides=(2, 1), groups=2)),
    (IMAGE, lambda: layers.Conv2D(6, 2, padding="same", dilation_rate=(2, 3))),
    ((4, 5, 4, 2), lambda: layers.Conv3D(3, 2, strides=(1, 2, 1), padding="same")),
    (IMAGE, lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)),
    ((9, 4), lambda: layers.DepthwiseConv1D(3, padding="same", dilation_rate=2)),
    ((5, 4), lambda: layers.Conv1DTranspose(6, 3, strides=2)),
    ((4, 3, 4), lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same")),
    ((3, 4), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5))),
    ((3, 2, 4), lambda: layers.EinsumDense("btnh,nhd->btd", (None, 5))),
    ((3, 4, 5), lambda: layers.EinsumDense("btgd,gde->btge", (None, 4, 6))),
    ((3, 4), lambda: layers.EinsumDense("abc,c->abc", (None, 4))),
]


# On JAX, where each shape compiles by itself, two of them.
MARKED = [
    pytest.param(*pair, id=f"{i}", marks=[] if i in (1, 3) else pytest.mark.slow)
    for i, pair in enumerate(FAMILIES)
]


@pytest.mark.parametrize("shape, make", MARKED)
def test_unit_free_power_is_that_of_loops(shape, make):
    model = sequential(shape, make())
    x = numbers(2, *shape)
    memory, tias = power_of_layer(model.layers[0], x)
    found = array_energy(model, x, Crossbar(DEVICE), batch_size=1)
    np.testing.assert_allclose(found.parts["array"], memory, **CLOSE)
    np.testing.assert_allclose(found.parts["tias"], tias, **CLOSE)
    assert found.total == found.parts["array"] + found.parts["tias"]
    [row] = found.kernels
    assert row.seconds is None and row.adcs == row.dacs == row.digital == 0


@pytest.mark.slow
def test_both_products_of_a_separable_convolution():
    layer = layers.SeparableConv2D(5, 3, depth_multiplier=2, name="separable")
    model = sequential(IMAGE, layer)
    x, one = numbers(2, *IMAGE), (1, 1)
    first, second = array_energy(model, x, Crossbar(DEVICE)).kernels
    depthwise = np.asarray(layer.depthwise_kernel)

    def products(x, g):
        return references.depthwise(x, g, one, one, "valid")

    def mixed(x, g):
        return references.conv(x, g, one, one, "valid", 1)

    y = products(x, depthwise)
    for row, (memory, tias) in (
        (first, power(products, x, depthwise)),
        (second, power(mixed, y, layer.pointwise_kernel)),
    ):
        np.testing.assert_allclose([row.array, row.tias], [memory, tias], rtol=1e-4)
        assert row.products == 5 * 4


def test_deeper_arrays_are_driven_by_what_converters_hand_on():
    on = {"dac": DAC(3, 1.0), "adc": ADC(3, 4.0)}
    pair = [hwa.HWADense(n, use_bias=False, hardware=Hardware(**on)) for n in (5, 3)]
    x = numbers(40, 6)
    [_, found] = array_energy(sequential((6,), *pair), x, Crossbar(DEVICE)).kernels
    rest = keras.Sequential([keras.Input((5,)), pair[1]])
    inputs = np.asarray(pair[0](x))
    assert len(np.unique(inputs)) <= 7  # The codes of the ADC.
    [expected] = array_energy(rest, inputs, Crossbar(DEVICE)).kernels
    np.testing.assert_allclose(found.array, expected.array, rtol=1e-5)
    np.testing.assert_allclose(found.tias, expected.tias, rtol=1e-5)


def test_recurrent_cells_multiply_at_each_step():
    model = sequential((6, 3), layers.SimpleRNN(4, activation="tanh", name="rnn"))
    x = numbers(2, 6, 3)
    inputs, recurrent = array_energy(model, x, Crossbar(DEVICE, **SI)).kernels
    assert inputs.products == recurrent.products == 6
    w, u, b = (np.asarray(v, "float64") for v in model.get_weights())
    h, states = np.zeros((2, 4)), []
    for t in range(6):
        states.append(h)
        h = np.tanh(x[:, t] @ w + h @ u + b)
    found = array_energy(model, x, Crossbar(DEVICE)).kernels
    for row, seen, kernel in zip(
        found, (x.transpose(1, 0, 2), np.stack(states)), (w, u), strict=True
    ):
        memory, tias = power(np.matmul, np.swapaxes(seen, 0, 1), kernel)
        np.testing.assert_allclose([row.array, row.tias], [memory, tias], rtol=1e-4)
    # A bias; the second sum and an activation: 8 and 2·4 additions at each step.
    additions = [row.digital / 1e-13 for row in (inputs, recurrent)]
    assert additions == pytest.approx([6 * 4, 6 * 8])


@pytest.mark.slow
def test_each_tile_by_itself():
    model = sequential((7,), layers.Dense(5))
    x = numbers(4, 7)
    w = np.asarray(model.layers[0].kernel)
    memory = tias = 0.0
    for i in range(0, 7, 3):
        for j in range(0, 5, 2):
            found = power(np.matmul, x[:, i : i + 3], w[i : i + 3, j : j + 2])
            memory, tias = memory + found[0], tias + found[1]
    [row] = array_energy(model, x, Crossbar(DEVICE, 3, 2)).kernels
    np.testing.assert_allclose([row.array, row.tias], [memory, tias], **CLOSE)
    assert row.tiles == (3, 3)


@pytest.mark.slow
def test_weights_by_the_largest_of_the_network():
    model = sequential((6,), layers.Dense(4), layers.Dense(3))
    largest = max(float(np.abs(w).max()) for w in model.get_weights()[::2])
    x, given = numbers(9, 6), Memristor(per="network", largest_weight=largest)
    found = array_energy(model, x, Crossbar(Memristor(per="network")))
    assert found.kernels == array_energy(model, x, Crossbar(given)).kernels
    assert found.total < array_energy(model, x, Crossbar(Memristor())).total


def test_a_chip_conducts_what_was_programmed_and_drifts():
    model = sequential((6,), layers.Dense(4))
    x = numbers(20, 6)
    chip = hwa_keras.program(model, PCM(), seed=3)
    found = []
    for t in (0.0, 1e6):
        chip.t = t
        [tile] = chip.tiles
        g = np.asarray(tile.device.conductances(tile.state_now(), t), "float64")
        memory = np.sum(np.square(x, dtype="float64") @ g.sum(0)) / 20
        tias = sum(np.square(x @ array).sum() for array in g) / 20
        before = [np.asarray(v.value) for v in chip.variables]
        result = array_energy(chip, x)
        for value, variable in zip(before, chip.variables, strict=True):
            np.testing.assert_array_equal(value, variable.value)
        np.testing.assert_allclose(result.parts["array"], memory, **CLOSE)
        np.testing.assert_allclose(result.parts["tias"], tias, **CLOSE)
        found.append(result.total)
    assert found[1] < 0.5 * found[0]


def test_a_stateful_layer_keeps_its_states():
    inputs = keras.Input(batch_shape=(2, 4, 3))
    model = keras.Model(inputs, layers.LSTM(5, stateful=True)(inputs))
    x = numbers(2, 4, 3)
    model.predict(x, verbose=0)
    [lstm] = [layer for layer in model.layers if isinstance(layer, layers.LSTM)]
    before = [np.asarray(state.value) for state in lstm.states]
    array_energy(model, x, Crossbar(DEVICE))
    for value, state in zip(before, lstm.states, strict=True):
        np.testing.assert_array_equal(value, state.value)
