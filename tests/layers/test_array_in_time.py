"""Recurrent layers and attention on hardware, against NumPy, step by step."""

import keras
import numpy as np
import pytest
from keras import layers

from hwa_keras import Hardware
from hwa_keras import layers as hwa
from hwa_keras.circuits import ADC, DAC, OutputNoise
from tests.layers.test_array import as_numpy, quantized

RNG = np.random.default_rng(1)

TILE = (5, 3)
ADC_BITS = 12  # Fine: a code that is off by one is another state at the next step.


def array(x, w, bound=2.0):
    """x·W behind the converters, tile by tile."""
    x, height = quantized(x, 12, bound), TILE[0]
    blocks = [slice(i, i + height) for i in range(0, len(w), height)]
    return sum(quantized(x[:, rows] @ w[rows], ADC_BITS, 4.0) for rows in blocks)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simple_rnn(x, h, w, u, b, **options):
    return np.tanh(array(x, w) + array(h[0], u) + b), []


def lstm(x, states, w, u, b, **options):
    h, c = states
    i, f, g, o = np.split(array(x, w) + array(h, u) + b, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), [c]


def gru(x, states, w, u, b, reset_after):
    h = states[0]
    outer, inner = b if reset_after else (b, 0.0)
    xz, xr, xh = np.split(array(x, w) + outer, 3, axis=-1)
    hz, hr, hh = np.split(array(h, u) + inner, 3, axis=-1)
    z, r = sigmoid(xz + hz), sigmoid(xr + hr)
    if reset_after:
        candidate = np.tanh(xh + r * hh)
    else:
        candidate = np.tanh(xh + np.split(array(r * h, u), 3, axis=-1)[2])
    return z * h + (1 - z) * candidate, []


SLOW = pytest.mark.slow
RECURRENT = [
    pytest.param("SimpleRNN", simple_rnn, {}, id="SimpleRNN", marks=SLOW),
    pytest.param("LSTM", lstm, {}, id="LSTM"),
    pytest.param("GRU", gru, {"reset_after": True}, id="GRU"),
    pytest.param(
        "GRU", gru, {"reset_after": False}, id="GRU(reset before)", marks=SLOW
    ),
]


def recurrent(name, kwargs, hardware, **more):
    layer = getattr(hwa, f"HWA{name}")(
        6, return_sequences=True, hardware=hardware, **kwargs, **more
    )
    x = RNG.normal(size=(3, 5, 7)).astype("float32")
    layer(x)
    layer.cell.bias.assign(RNG.normal(size=layer.cell.bias.shape))
    return layer, x


def test_each_step_has_input_ranges_of_its_own():
    hardware = Hardware(dac=DAC(12, "vector_max"), adc=ADC(ADC_BITS, 4.0), tile=TILE)
    layer, x = recurrent("SimpleRNN", {}, hardware)
    cell = layer.cell
    w, u, b = map(as_numpy, (cell.kernel, cell.recurrent_kernel, cell.bias))
    found, h = as_numpy(layer(x)), np.zeros((3, 6))
    for t in range(x.shape[1]):
        largest = np.abs(h).max(1, keepdims=True)
        largest = np.where(largest > 0, largest, 1.0)
        now = x[:, t].astype("float64")
        driven = array(now, w, np.abs(now).max(1, keepdims=True))
        h = np.tanh(driven + array(h, u, largest) + b)
        np.testing.assert_allclose(found[:, t], h, atol=5e-3)


@pytest.mark.parametrize(("name", "step", "kwargs"), RECURRENT)
@pytest.mark.parametrize("unroll", [False, True])
def test_a_recurrent_layer_converts_at_both_products_of_each_step(
    name, step, kwargs, unroll
):
    hardware = Hardware(dac=DAC(12, 2.0), adc=ADC(ADC_BITS, 4.0), tile=TILE)
    layer, x = recurrent(name, kwargs, hardware, unroll=unroll)
    cell = layer.cell
    w, u, b = map(as_numpy, (cell.kernel, cell.recurrent_kernel, cell.bias))
    states, outputs = [np.zeros((3, 6)) for _ in range(2)], []
    for t in range(x.shape[1]):
        h, others = step(x[:, t].astype("float64"), states, w, u, b, **kwargs)
        states = [h, *others]
        outputs.append(h)
    # A few codes may differ by one step of 4/2047.
    np.testing.assert_allclose(layer(x), np.stack(outputs, axis=1), atol=0.01)
    assert np.mean(np.abs(as_numpy(layer(x)) - np.stack(outputs, axis=1))) < 1e-3


@pytest.mark.parametrize(("name", "step", "kwargs"), RECURRENT)
def test_a_recurrent_layer_in_tiles_alone_is_that_of_keras(name, step, kwargs):
    layer, x = recurrent(name, kwargs, Hardware(tile=TILE))
    plain = getattr(layers, name)(6, return_sequences=True, **kwargs)
    plain(x)
    plain.set_weights(layer.get_weights()[:3])
    np.testing.assert_allclose(layer(x), plain(x), atol=2e-6)


@pytest.mark.parametrize(("name", "step", "kwargs"), RECURRENT)
def test_a_recurrent_adc_clips_the_products_and_not_the_outputs(name, step, kwargs):
    layer, x = recurrent(name, kwargs, Hardware(adc=ADC(8, 1e-6)))
    b = np.zeros(layer.cell.bias.shape)
    layer.cell.bias.assign(b)
    near_nothing = as_numpy(layer(x))
    assert np.abs(near_nothing).max() < 1e-3
    layer.cell.bias.assign(b + 1.0)
    assert np.abs(as_numpy(layer(x))).min() > 0.1  # The bias is digital.


def test_masks_and_states_pass_through_a_recurrent_layer_on_hardware():
    layer, x = recurrent("LSTM", {}, Hardware(adc=ADC(16, 16.0)), return_state=True)
    plain = layers.LSTM(6, return_sequences=True, return_state=True)
    plain(x)
    plain.set_weights(layer.get_weights()[:3])
    mask = np.arange(5) < np.array([[5], [2], [3]])
    for found, right in zip(layer(x, mask=mask), plain(x, mask=mask), strict=True):
        np.testing.assert_allclose(found, right, atol=0.01)


@pytest.mark.parametrize("unroll", [False, True])
def test_the_noise_of_outputs_differs_from_step_to_step(unroll):
    """And is no longer there where the sequence is masked."""
    hardware = Hardware(output_noise=OutputNoise(0.1), dac=DAC(8, "learned"))
    layer = hwa.HWASimpleRNN(
        50,
        activation=None,
        recurrent_initializer="zeros",
        return_sequences=True,
        hardware=hardware,
        unroll=unroll,
    )
    x = np.ones((20, 6, 4), "float32")
    model = keras.Sequential([keras.Input((6, 4)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, np.zeros((20, 6, 50)), verbose=0)  # Ranges start from the data.
    error = as_numpy(model(x, training=True)) - as_numpy(model(x))
    assert np.std(error) == pytest.approx(0.1 * np.sqrt(2), rel=0.05)
    steps = np.corrcoef(error.transpose(1, 0, 2).reshape(6, -1))
    assert np.abs(steps - np.eye(6)).max() < 0.15


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others keep it")
def test_a_plain_rnn_is_no_place_for_noise_of_outputs_on_jax():
    cell = hwa.HWALSTMCell(3, output_noise=OutputNoise(0.1))
    x = np.ones((2, 4, 5), "float32")
    layers.RNN(cell)(x)
    with pytest.raises(ValueError, match="Put the cell into hwa_keras.layers.HWARNN"):
        layers.RNN(cell)(x, training=True)
    assert np.any(hwa.HWARNN(cell)(x, training=True) != hwa.HWARNN(cell)(x))


# --- Attention


def test_attention_converts_at_its_projections():
    hardware = Hardware(dac=DAC(12, 2.0), adc=ADC(ADC_BITS, 4.0), tile=TILE)
    layer = hwa.HWAMultiHeadAttention(2, 3, hardware=hardware)
    x = RNG.normal(size=(2, 4, 8)).astype("float32")
    layer(x, x)

    def projected(dense, x, outputs):
        kernel, bias = as_numpy(dense._kernel), as_numpy(dense.bias)
        flat = x.reshape(-1, np.prod(x.shape[2:]))
        w = kernel.reshape(flat.shape[1], -1)
        return array(flat, w).reshape(2, 4, *outputs) + bias

    for dense in layer._flatten_layers(include_self=False):
        if isinstance(dense, layers.EinsumDense):
            dense.bias.assign(RNG.normal(size=dense.bias.shape))
    q, k, v = (
        projected(dense, x.astype("float64"), (2, 3))
        for dense in (layer._query_dense, layer._key_dense, layer._value_dense)
    )
    scores = np.einsum("bqhd,bkhd->bhqk", q / np.sqrt(3), k)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", scores, v)
    y = projected(layer._output_dense, mixed, (8,))
    np.testing.assert_allclose(layer(x, x), y, atol=0.01)
    assert np.mean(np.abs(as_numpy(layer(x, x)) - y)) < 1e-3
