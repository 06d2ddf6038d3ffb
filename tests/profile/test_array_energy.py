import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import layers as hwa
from hwa_keras.circuits import ADC, DAC
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import BitSlices, Memristor, OffsetColumn
from hwa_keras.profile import Periphery, array_energy, driven_array
from tests.profile.arrays import (
    CLOSE,
    DEVICE,
    SI,
    numbers,
    pair,
    sequential,
)


@pytest.mark.parametrize("range_", [2.0, "vector_max"])
def test_joules_are_volts_times_amperes_and_conversions(range_):
    stack = [layers.Dense(5, activation="relu"), layers.Dense(2, use_bias=False)]
    model = sequential((7,), *stack)
    crossbar = Crossbar(DEVICE, 3, 2, dac=DAC(8, range_), adc=ADC(6, 9.0), **SI)
    periphery = Periphery(technology=22, tia_resistance=1e4, addition=2e-13)
    x = np.clip(numbers(50, 7), -1.9, 1.9)
    bound = np.abs(x).max(1, keepdims=True) if range_ == "vector_max" else range_
    found = array_energy(model, x, crossbar, periphery)
    row = found.kernels[0]
    codes = np.round(x.astype("float64") / bound * 127) / 127
    volts, array, tias = 0.2 * codes, 0.0, 0.0
    w = np.asarray(model.layers[0].kernel)
    for i in range(0, 7, 3):
        for j in range(0, 5, 2):
            for g in pair(w[i : i + 3, j : j + 2]):
                amperes = volts[:, i : i + 3, None] * g * 1e-6
                array += (volts[:, i : i + 3, None] * amperes).sum() / 50
                tias += np.square(amperes.sum(axis=1)).sum() / 50
    np.testing.assert_allclose(row.array, 1e-7 * array, **CLOSE)
    np.testing.assert_allclose(row.tias, 1e-7 * 1e4 * tias, **CLOSE)
    np.testing.assert_allclose(row.dacs, 7 * 3 * 1.2e-15 * 2**8)
    np.testing.assert_allclose(row.adcs, 5 * 3 * 0.53e-12)
    # Two sums to add, a bias and a relu for each of 5 outputs; one sum for each of 2.
    np.testing.assert_allclose(row.digital, 5 * (2 + 1 + 1) * 2e-13)
    np.testing.assert_allclose(found.kernels[1].digital, 2 * 1 * 2e-13)
    assert found.joules == found.total == pytest.approx(sum(found.parts.values()))
    np.testing.assert_allclose(found.watts, found.joules / 2e-7)
    np.testing.assert_allclose(found.watts_of(row), row.total / 1e-7)
    assert (row.dac_bits, row.adc_bits, row.wires) == (8, 6, 0.0)


def test_each_patch_of_a_convolution_is_scaled_on_its_own():
    """As the rows of a dense layer that holds the same kernel."""
    conv = sequential((6, 6, 2), layers.Conv2D(3, 3, groups=1))
    x = numbers(4, 6, 6, 2) * np.array([1, 9, 0.1, 3]).reshape(4, 1, 1, 1)
    x = x.astype("float32")
    dense = sequential((18,), layers.Dense(3))
    kernel, bias = conv.get_weights()
    dense.set_weights([kernel.reshape(18, 3), bias])
    patches = ops.image.extract_patches(x, 3, strides=1, padding="valid")
    dac = DAC(8, "vector_max")
    for bias in ("digital", "analog"):
        crossbar = Crossbar(DEVICE, dac=dac, adc=ADC(8, 9.0), bias=bias, **SI)
        whole = array_energy(conv, x, crossbar).kernels[0]
        rows = array_energy(dense, ops.reshape(patches, (-1, 18)), crossbar).kernels[0]
        for part in ("array", "tias", "dacs", "adcs"):
            np.testing.assert_allclose(
                getattr(whole, part), 16 * getattr(rows, part), rtol=1e-5
            )


@pytest.mark.slow
def test_without_a_dac_the_largest_input_takes_v_read():
    model = sequential((7,), layers.Dense(5, name="first"))
    x = numbers(30, 7)
    free = array_energy(model, x, Crossbar(DEVICE))
    found = array_energy(model, x, Crossbar(DEVICE, **SI))
    volt = 0.2 / np.abs(x).max()
    expected_joules = 1e-7 * volt**2 * 1e-6 * free.parts["array"]
    np.testing.assert_allclose(found.parts["array"], expected_joules, **CLOSE)
    w = np.asarray(model.layers[0].kernel)
    amperes = np.stack([volt * x @ g * 1e-6 for g in pair(w)])
    resistance = 0.2 / np.abs(amperes).max()
    tias = 1e-7 * resistance * np.square(amperes).sum() / 30
    np.testing.assert_allclose(found.parts["tias"], tias, **CLOSE)
    assert found.parts["dacs"] == found.parts["adcs"] == 0
    assert "no DAC, so that its part is 0: first/kernel" in str(found)
    assert "no ADC" in str(found)


@pytest.mark.slow
def test_own_converters_and_tiles_of_hardware_layers():
    crossbar = Crossbar(DEVICE, 4, dac=DAC(8, 2.0), adc=ADC(6, 9.0), **SI)
    model = sequential((7,), layers.Dense(5, name="a"), layers.Dense(3, name="b"))
    plain = array_energy(model, x := np.clip(numbers(9, 7), -2, 2), crossbar)
    model = hwa_keras.to_hwa(model, hardware=crossbar, skip=("last",), verbose=0)
    own = array_energy(model, x)
    assert [row.path for row in own.kernels] == ["a/kernel"]
    assert own.digital == ("b/kernel",) and "on no array: b/kernel" in str(own)
    assert own.kernels[0] == plain.kernels[0]
    other = array_energy(
        model, x, Crossbar(Memristor(g_max=1.0), adc=ADC(8, 1.0), **SI)
    )
    assert other.kernels[0].adcs == own.kernels[0].adcs
    assert other.kernels[0].array < own.kernels[0].array


@pytest.mark.slow
def test_an_analog_bias_is_one_row_more():
    model = sequential((6,), layers.Dense(4, name="dense"))
    crossbar = Crossbar(DEVICE, bias="analog", dac=DAC(8, 4.0), **SI)
    x = np.clip(numbers(20, 6), -4, 4)
    w, b = (np.asarray(v, "float64") for v in model.get_weights())
    rows = [np.concatenate(gs) for gs in zip(pair(w), pair(b[None]), strict=True)]
    # Driven so that the largest bias takes the largest conductance.
    driven = np.full((20, 1), np.abs(b).max() / np.abs(w).max())
    codes = np.round(x / 4.0 * 127) / 127 * 4.0
    volts = 0.2 * np.concatenate([codes, driven], axis=1) / 4.0
    currents = [volts @ g * 1e-6 for g in rows]
    watts = sum((np.square(volts) @ g).sum() * 1e-6 for g in rows) / 20
    found = array_energy(model, x, crossbar, Periphery(tia_resistance=1e3))
    np.testing.assert_allclose(found.parts["array"], 1e-7 * watts, **CLOSE)
    tias = 1e-7 * 1e3 * sum(np.square(i).sum() for i in currents) / 20
    np.testing.assert_allclose(found.parts["tias"], tias, **CLOSE)
    np.testing.assert_allclose(found.parts["dacs"], 7 * 1.2e-15 * 2**8)
    assert found.parts["digital"] == 0
    converted = hwa_keras.to_hwa(model, hardware=crossbar, verbose=0)
    own = array_energy(converted, x, periphery=Periphery(tia_resistance=1e3))
    assert own.kernels == found.kernels


def nodal(g, v, wire):
    """Node voltages of a crossbar in NumPy; the power of devices and of wires."""
    (m, n), size = g.shape, g.size
    y, source = np.zeros((2 * size, 2 * size)), np.zeros(2 * size)
    edges = []
    for i, j in np.ndindex(m, n):
        row, column = i * n + j, size + i * n + j
        edges.append((row, column, g[i, j], None))
        edges.append((row, row - 1 if j else None, 1 / wire[0], v[i]))
        below = column + n if i < m - 1 else None
        edges.append((column, below, 1 / wire[1], 0.0))
    for a, b, s, outside in edges:
        y[a, a] += s
        if b is None:
            source[a] += s * outside
        else:
            y[b, b] += s
            y[a, b] -= s
            y[b, a] -= s
    u = np.linalg.solve(y, source)
    powers = [0.0, 0.0]
    for k, (a, b, s, outside) in enumerate(edges):
        powers[k % 3 > 0] += s * (u[a] - (outside if b is None else u[b])) ** 2
    return powers


@pytest.mark.parametrize("ir_drop", ["off", "exact"])
def test_wires_take_what_a_nodal_solver_says(ir_drop):
    wire, device = (40.0, 90.0), Memristor(g_min=5.0, g_max=200.0)
    crossbar = Crossbar(
        device, 5, 3, wire=wire, ir_drop=ir_drop, dac=DAC(12, 3.0), **SI
    )
    model = sequential((5,), layers.Dense(3, use_bias=False))
    x = np.clip(numbers(12, 5), -3, 3)
    volts = 0.2 * np.round(x.astype("float64") / 3.0 * 2047) / 2047
    w = np.asarray(model.layers[0].kernel)
    arrays = [1e-6 * g for g in pair(w, device)]
    powers = sum(np.array(nodal(g, v, wire)) for g in arrays for v in volts) / 12
    found = array_energy(model, x, crossbar)
    np.testing.assert_allclose(found.parts["array"], 1e-7 * powers[0], rtol=1e-4)
    np.testing.assert_allclose(found.parts["wires"], 1e-7 * powers[1], rtol=1e-4)
    assert 0.02 < powers[1] / powers[0] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("signs", ["both", "positive"])
def test_wires_of_many_inputs_are_told_by_16_of_their_directions(signs, monkeypatch):
    crossbar = Crossbar(DEVICE, 100, 10, wire=(5.0, 5.0), **SI)
    model = sequential((120,), layers.Dense(16))
    x = numbers(300, 120) if signs == "both" else np.maximum(numbers(300, 120), 0)
    found = array_energy(model, x, crossbar)
    monkeypatch.setattr(driven_array, "_SOLVED", 100)
    exact = array_energy(model, x, crossbar)
    np.testing.assert_allclose(found.parts["wires"], exact.parts["wires"], rtol=5e-3)
    np.testing.assert_allclose(found.parts["array"], exact.parts["array"], rtol=1e-4)
    assert exact.parts["wires"] > 1e-3 * exact.parts["array"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mapping, subtraction, conversions, additions",
    [
        (None, "analog", 5 * 3, 5 * 2),
        (None, "digital", 5 * 3 * 2, 5 * 5),
        (BitSlices(5, 2), "analog", 5 * 3 * 2, 5 * 5),
        (BitSlices(5, 2), "digital", 5 * 3 * 4, 5 * 11),
        (OffsetColumn(), "analog", 5 * 3, 5 * 2),
        (OffsetColumn(), "digital", (5 + 3) * 3, 24 - 5),
    ],
)
def test_conversions_by_mapping(mapping, subtraction, conversions, additions):
    chosen = {} if mapping is None else {"mapping": mapping}
    device = Memristor(g_min=1.0, **chosen)
    crossbar = Crossbar(device, 3, 2, adc=ADC(8, 9.0), **SI)
    model = sequential((7,), layers.Dense(5, use_bias=False))
    x = numbers(6, 7)
    found = array_energy(model, x, crossbar, Periphery(subtraction=subtraction))
    np.testing.assert_allclose(found.parts["adcs"], conversions * 3.2e-12)
    np.testing.assert_allclose(found.parts["digital"], additions * 1e-13)
    w = np.zeros((9, 6), "float32")
    w[:7, :5] = model.layers[0].kernel
    tiles = w.reshape(3, 3, 3, 2).transpose(0, 2, 1, 3)
    g = np.array(device.targets(ops.convert_to_tensor(tiles))[0], "float64")
    g[:, :, 2, :, 1] = 0.0  # The last column tile has one column in use.
    rows = np.pad(np.square(x, dtype="float64"), [(0, 0), (0, 2)]).reshape(6, 3, 3)
    free = np.einsum("nkr,dkmrc->", rows, g) / 6
    volt = 0.2 / np.abs(x).max()
    np.testing.assert_allclose(found.parts["array"], 1e-13 * volt**2 * free, **CLOSE)


@pytest.mark.slow
def test_attention_and_figures_that_json_can_hold():
    inputs = keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    found = array_energy(model, numbers(3, 5, 8), Crossbar(DEVICE, **SI))
    assert [row.products for row in found.kernels] == [5.0] * 4
    figures = json.loads(json.dumps(found.to_dict()))
    assert figures["total"] == found.joules
    assert len(figures["kernels"]) == 4 and figures["watts"] == found.watts


@pytest.mark.slow
def test_summary_shows_the_arrays_of_each_layer():
    bits = {
        "kernel_quantizer": "ste_sign",
        "kernel_noise": hwa_keras.noise.BitFlip(0.1),
    }
    stack = (hwa.HWADense(5, **bits, name="a"), layers.ReLU(), layers.Dense(2))
    model = sequential((7,), *stack)
    x, crossbar = numbers(20, 7), Crossbar(DEVICE, **SI)
    found = hwa_keras.summary(model, verbose=0, data=x, crossbar=crossbar)
    energy = array_energy(model, x, crossbar)
    assert [row.array_energy for row in found.layers] == [energy.joules, None, None]
    shown = str(found)
    for text in ("memory_energy; η(p)", "array energy", "array_energy; "):
        assert text in shown
    assert json.loads(json.dumps(found.to_dict()))["array_energy"] == energy.joules
    assert "array" not in str(hwa_keras.summary(model, verbose=0))
    with pytest.raises(ValueError, match="depends on the inputs"):
        hwa_keras.summary(model, verbose=0, crossbar=crossbar)


class OfOnesOwn(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)


@pytest.mark.slow
def test_errors_say_what_is_missing():
    model, x = sequential((7,), layers.Dense(5, name="dense")), numbers(4, 7)
    found = array_energy(model, x, Crossbar(DEVICE))
    for name in ("joules", "watts"):
        with pytest.raises(ValueError, match="v_read=0.2, t_read=130e-9"):
            getattr(found, name)
    with pytest.raises(ValueError, match="v_read=0.2, t_read=None"):
        array_energy(model, x, Crossbar(DEVICE, v_read=0.2))
    with pytest.raises(ValueError, match="1 GS/s"):
        array_energy(model, x, Crossbar(DEVICE, v_read=0.2, t_read=1e-10))
    with pytest.raises(ValueError, match="on no hardware"):
        array_energy(model, x)
    with pytest.raises(ValueError, match="'dense/kernel' are not finite"):
        array_energy(model, x * np.nan, Crossbar(DEVICE))
    with pytest.raises(TypeError, match=r"crossbar.Crossbar"):
        array_energy(model, x, hwa_keras.Hardware(device="pcm"))
    with pytest.raises(TypeError, match="built Keras model"):
        array_energy(layers.Dense(2), x, Crossbar(DEVICE))
    with pytest.raises(TypeError, match="profile.Periphery"):
        array_energy(model, x, Crossbar(DEVICE), 14)
    chip = hwa_keras.program(model, hwa_keras.noise.ProcessVariation(0.1), seed=0)
    with pytest.raises(TypeError, match="must hold conductances"):
        array_energy(chip, x)
    with pytest.raises(ValueError, match="OfOnesOwn, a layer of no known family"):
        array_energy(sequential((7,), OfOnesOwn(name="own")), x, Crossbar(DEVICE))
    grouped = sequential((7, 4), layers.Conv1D(4, 2, groups=2))
    with pytest.raises(ValueError, match="2 groups of columns"):
        array_energy(
            grouped, numbers(2, 7, 4), Crossbar(Memristor(mapping=OffsetColumn()))
        )


@pytest.mark.slow
def test_a_kernel_that_is_not_reached_is_an_error():
    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3, name="unused")

        def build(self, shape):
            self.used.build(shape)
            self.unused.build(shape)

        def call(self, x):
            return self.used(x)

    model = Half()
    model.build((None, 4))
    with pytest.raises(ValueError, match="'unused/kernel' was not called"):
        array_energy(model, numbers(2, 4), Crossbar(DEVICE))
