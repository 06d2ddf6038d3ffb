"""The error of a network on chips: three methods, and chips drawn in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.analysis import output_error
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Memristor

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
SIGMA, G_MAX = 0.2, 25.0
DEVICE = Memristor(sigma=SIGMA, g_max=G_MAX)


def arrays(*tensors):
    return [ops.convert_to_numpy(t).astype("float64") for t in tensors]


def drawn_kernels(kernel, draws, tile=None, columns=None):
    """Kernels on pairs of devices g̃ = max(g + σ·z, 0), written out: [draws, ...]."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    alpha = np.zeros_like(matrix)
    rows, columns = tile or matrix.shape
    for i in range(0, matrix.shape[0], rows):
        for j in range(0, matrix.shape[1], columns):
            place = np.s_[i : i + rows, j : j + columns]
            alpha[place] = np.abs(matrix[place]).max()
    signs = matrix, -matrix
    g = [np.maximum(w, 0) / alpha * G_MAX for w in signs]
    noisy = [np.maximum(x + SIGMA * RNG.normal(size=(draws, *x.shape)), 0) for x in g]
    return ((noisy[0] - noisy[1]) / G_MAX * alpha).reshape(draws, *kernel.shape)


def check(found, drawn, bias=0.0):
    """Means and variances within 5 standard errors, apart from a relative bias."""
    n = len(drawn)
    mean, variance = drawn.mean(0), drawn.var(0, ddof=1)
    errors = np.sqrt(variance / n)
    fourth = ((drawn - mean) ** 4).mean(0)
    spread = np.sqrt(np.maximum(fourth - variance**2, 0) / n)
    assert np.all(np.abs(found.mean - mean) < 5 * errors + bias * np.sqrt(variance))
    assert np.all(np.abs(found.variance - variance) < 5 * spread + bias * variance)
    mse = ((drawn - found.outputs) ** 2).reshape(n, -1).mean(1)
    error = 5 * mse.std(ddof=1) / np.sqrt(n)
    assert abs(found.mse - mse.mean()) < error + bias * mse.mean()


def mlp(activation="relu", **kwargs):
    inner = [layers.Dense(n, activation=activation, **kwargs) for n in (6, 5)]
    model = keras.Sequential([keras.Input((4,)), *inner, layers.Dense(3)])
    fill(model)
    return model


def fill(model):
    """Draw the weights, with batch-norm statistics that are not negative."""
    for variable in model.weights:
        fan_in = max(1, np.prod(variable.shape[:-1]))
        values = RNG.normal(size=variable.shape) * np.sqrt(2 / fan_in)
        is_kernel = len(variable.shape) > 1
        variable.assign(values if is_kernel else RNG.uniform(0.5, 1.5, variable.shape))


def through(model, x, draws, activation, **kwargs):
    """The outputs of an MLP with kernels drawn in NumPy: [draws, examples, outputs]."""
    y = np.broadcast_to(x, (draws, *x.shape))
    for layer in model.layers:
        kernel, bias = arrays(layer.kernel, layer.bias)
        y = y @ drawn_kernels(kernel, draws, **kwargs) + bias
        y = y if layer is model.layers[-1] else activation(y)
    return y


X = RNG.normal(size=(5, 4)).astype("float32")


def test_linear_networks_are_exact():
    model = mlp("linear")
    found = output_error(model, DEVICE, X)
    check(found, through(model, X, 20_000, lambda y: y))


def test_moments_of_an_mlp_against_numpy():
    model = mlp()
    found = output_error(model, DEVICE, X)
    check(found, through(model, X, 20_000, lambda y: np.maximum(y, 0)), bias=0.02)
    assert not found.warnings and found.noise_to_signal < 0.1


def test_each_tile_has_a_range_of_its_own():
    model, crossbar = mlp("linear"), Crossbar(DEVICE, rows=3, columns=4)
    found = output_error(model, crossbar, X)
    check(found, through(model, X, 20_000, lambda y: y, tile=(3, 4)))
    assert type(model.layers[0]) is layers.Dense
    model = hwa_keras.to_hwa(model, hardware=crossbar, verbose=0)
    for given in (crossbar, None):
        again = output_error(model, given, X)
        np.testing.assert_array_equal(again.variance, found.variance)
    with pytest.raises(ValueError, match="other circuits than `crossbar` has: tile"):
        output_error(model, Crossbar(DEVICE, rows=2), X)


def test_devices_behind_wires():
    model, quiet = mlp("linear"), Memristor(sigma=1e-3, g_max=G_MAX)
    crossbar = Crossbar(quiet, wire=50.0, ir_drop="closed_form")
    wired = output_error(model, crossbar, X)
    alone = output_error(model, crossbar.device, X)
    np.testing.assert_array_equal(alone.mean, wired.mean)
    chip = hwa_keras.program(model, crossbar.device, seed=0, compensation="none")
    outputs = chip.predict(X, verbose=0)
    dropped = np.abs(outputs - model.predict(X, verbose=0)).max()
    assert np.abs(outputs - wired.mean).max() < 0.02 * dropped


def test_noise_of_an_analog_bias_is_shared_by_all_positions():
    x = RNG.normal(size=(3, 4, 4, 2)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(3, 3), layers.Flatten()]
    )
    model.layers[0].bias.assign([0.5, -1.0, 2.0])
    analog = output_error(model, Crossbar(DEVICE, bias="analog"), x)
    digital = output_error(model, DEVICE, x)
    row = drawn_kernels(np.array([[0.5, -1.0, 2.0]]), 100_000)[:, 0]
    extra = (analog.variance - digital.variance).reshape(3, 4, 3)
    np.testing.assert_allclose(
        extra, np.broadcast_to(row.var(0), extra.shape), rtol=0.05
    )
    shift = (analog.mean - digital.mean).reshape(3, 4, 3) - (row.mean(0) - [0.5, -1, 2])
    assert np.abs(shift).max() < 5e-4


def cnn():
    """A convolution, a skip and batch norms, small enough for NumPy."""
    x = keras.Input((4, 4, 2))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    z = layers.Conv2D(4, 3, padding="same", name="inner")(y)
    y = layers.ReLU()(layers.Add()([y, z]))
    y = layers.Flatten()(layers.AveragePooling2D(2)(y))
    model = keras.Model(x, layers.Dense(3, name="head")(y))
    fill(model)
    return model


def convolved(x, kernels):
    """[draws, examples, 4, 4, channels] with [draws, 3, 3, channels, filters]."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    parts = [
        np.einsum("dnhwi,dio->dnhwo", x[:, :, i : i + 4, j : j + 4], kernels[:, i, j])
        for i in range(3)
        for j in range(3)
    ]
    return sum(parts)


def cnn_in_numpy(model, x, draws):
    w = {
        name: arrays(*model.get_layer(name).weights)
        for name in ("stem", "norm", "inner", "head")
    }
    gamma, beta, mean, variance = w["norm"]
    y = convolved(
        np.broadcast_to(x, (draws, *x.shape)), drawn_kernels(w["stem"][0], draws)
    )
    y = np.maximum((y - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    z = convolved(y, drawn_kernels(w["inner"][0], draws)) + w["inner"][1]
    y = np.maximum(y + z, 0)
    y = y.reshape(*y.shape[:2], 2, 2, 2, 2, 4).mean((3, 5)).reshape(*y.shape[:2], -1)
    return y @ drawn_kernels(w["head"][0], draws) + w["head"][1]


@pytest.mark.slow
def test_moments_of_a_cnn_with_a_skip_against_numpy():
    model, x = cnn(), RNG.normal(size=(3, 4, 4, 2)).astype("float32")
    drawn = cnn_in_numpy(model, x, 4_000)
    found = output_error(model, DEVICE, x)
    check(found, drawn, bias=0.02)
    # Folded, the batch norm scales what is written to the devices.
    folded = output_error(hwa_keras.fold_batchnorm(model), DEVICE, x)
    assert folded.mse == pytest.approx(found.mse, rel=0.5) and folded.mse != found.mse


def test_delta_of_a_cnn_with_a_skip_against_numpy():
    model, x = cnn(), RNG.normal(size=(3, 4, 4, 2)).astype("float32")
    found = output_error(model, DEVICE, x, "delta")
    check(found, cnn_in_numpy(model, x, 4_000), bias=0.08)


def test_delta_and_moments_agree_where_both_are_exact():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    moments, delta = (output_error(model, DEVICE, X, m) for m in ("moments", "delta"))
    np.testing.assert_allclose(delta.mean, moments.mean, rtol=1e-5)
    np.testing.assert_allclose(delta.variance, moments.variance, rtol=1e-5)


def test_delta_takes_any_architecture():
    x = keras.Input((5,), dtype="int32")
    y = layers.SimpleRNN(4, name="rnn")(layers.Embedding(7, 3)(x))
    model = keras.Model(x, layers.Dense(2, activation="softmax")(y))
    data = RNG.integers(0, 7, size=(2, 5))
    found = output_error(model, DEVICE, data, "delta")
    drawn = output_error(model, DEVICE, data, "monte_carlo", draws=150)
    assert found.mse == pytest.approx(drawn.mse, rel=0.3)
    with pytest.raises(
        ValueError, match="layer 'rnn' \\(HWASimpleRNN\\). Use method='delta'"
    ):
        output_error(model, DEVICE, data)


def test_monte_carlo_draws_the_chips_that_program_writes():
    model = mlp()
    found = output_error(model, DEVICE, (X, None), "monte_carlo", draws=3, seed=4)
    settings = dict(compensation="none", read_noise="off", verbose=0)
    chips = [hwa_keras.program(model, DEVICE, seed=s, **settings) for s in (4, 5, 6)]
    outputs = np.stack([chip.predict(X, verbose=0) for chip in chips])
    np.testing.assert_allclose(found.mean, outputs.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found.variance, outputs.var(0, ddof=1), rtol=1e-3, atol=1e-8
    )
    each = ((outputs - model.predict(X, verbose=0)) ** 2).mean((1, 2))
    assert found.mse == pytest.approx(each.mean(), rel=1e-4)
    half = 4.302653 * each.std(ddof=1) / np.sqrt(3)
    wanted = [each.mean() - half, each.mean() + half]
    np.testing.assert_allclose(found.interval, wanted, rtol=1e-3, atol=1e-8)
    assert found.draws == 3


def test_monte_carlo_takes_converters_and_the_others_refuse_them():
    model = mlp()
    crossbar = Crossbar(DEVICE, dac=hwa_keras.circuits.DAC(4, range=2.0))
    rough = output_error(model, crossbar, X, "monte_carlo", draws=20)
    fine = output_error(model, DEVICE, X, "monte_carlo", draws=20)
    assert rough.mse > fine.mse
    for method in ("moments", "delta"):
        with pytest.raises(ValueError, match="has dac.*monte_carlo"):
            output_error(model, crossbar, X, method)


def test_inputs_come_as_arrays_batches_and_several():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], layers.Dense(2)(layers.Subtract()([a, b])))
    other = RNG.normal(size=X.shape).astype("float32")
    for method in ("moments", "delta"):
        found = output_error(model, DEVICE, [X, other], method)
        named = output_error(model, DEVICE, {"b": other, "a": X}, method)
        np.testing.assert_allclose(named.variance, found.variance, rtol=1e-6)
        np.testing.assert_allclose(named.outputs, found.outputs, rtol=1e-6)
    single = mlp()
    whole = output_error(single, DEVICE, X)
    parts = output_error(single, DEVICE, [(X[:3], None), (X[3:], None)].__iter__())
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-5)


def test_too_much_noise_is_said():
    noisy = Memristor(sigma=4.0, g_max=G_MAX)
    for method in ("moments", "delta"):
        with pytest.warns(UserWarning, match="of the signal, above 0.1, where"):
            found = output_error(mlp(), noisy, X, method)
        assert found.noise_to_signal > 0.1
        assert "above 0.1" in str(found) and "above 0.1" in found.warnings[0]


def test_the_result_prints_what_it_is():
    drawn = output_error(mlp(), DEVICE, X, "monte_carlo", draws=5)
    assert "monte_carlo: mean squared error" in str(drawn)
    assert "95 % interval" in str(drawn) and "5 draws" in str(drawn)
    assert drawn.interval[0] < drawn.mse < drawn.interval[1]
    assert "interval" not in str(output_error(mlp(), DEVICE, X))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def unknown(layer):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layer, layers.Dense(2)]
    )


def shared():
    x, dense = keras.Input((4,)), layers.Dense(4, name="twice")
    return keras.Model(x, dense(dense(x)))


def subclassed():
    model = Subclassed()
    model(X)
    return model


def broadcast():
    x = keras.Input((4,))
    added = layers.Add(name="added")([layers.Dense(4)(x), layers.Dense(1)(x)])
    return keras.Model(x, added)


def masked():
    x = keras.Input((4,))
    y = layers.Embedding(9, 3, mask_zero=True, name="words")(x)
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))


def half():
    dense = layers.Dense(3, dtype="mixed_bfloat16", name="low")
    return keras.Sequential([keras.Input((4,)), dense])


def scaled():
    x = keras.Input((4,))
    return keras.Model(x, 2.0 * layers.Dense(3)(x))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: unknown(layers.LayerNormalization(name="norm")), "layer 'norm'"),
        (
            lambda: unknown(layers.Activation("tanh", name="act")),
            "'tanh' of layer 'act'",
        ),
        (lambda: unknown(layers.ReLU(6.0, name="six")), r"layer 'six' \(ReLU\)"),
        (lambda: unknown(layers.Dense(3, activation="gelu")), "activation 'gelu' of"),
        (masked, r"\(NotEqual\) is called with other arguments"),  # It makes a mask.
        (shared, "'twice' serves twice"),
        (subclassed, "no sequential or functional model"),
        (broadcast, "at layer 'added'"),
        (half, "'low' computes in bfloat16"),
        (scaled, r"\(Multiply\) is called with other arguments than tensors"),
    ],
)
def test_what_moments_do_not_know_they_name(make, message):
    with pytest.raises(ValueError, match=f"{message}.*method='delta'"):
        output_error(make(), DEVICE, np.abs(X))


def test_bad_input():
    model = mlp()
    two = keras.Model(model.inputs, [model.outputs[0], model.layers[0].output])
    nothing = Memristor(sigma=0.1, mapping=hwa_keras.devices.Pairs())
    for arguments, message in [
        (dict(method="exact"), "`method` of output_error must be one of"),
        (dict(draws=0), "`draws` of output_error"),
        (dict(terms=0), "`terms` of output_error"),
        (dict(max_bytes=2.5), "`max_bytes` of output_error"),
        (dict(model=two), "has 2 outputs"),
        (dict(crossbar=hwa_keras.Hardware()), "`crossbar` must name a device"),
        (dict(data=X[:0]), "at least one"),
        (dict(data=iter([])), "is empty"),
        (dict(data=[X, X[:2]]), "one number of examples"),
        (dict(data=(X, X, X, X)), "a tuple of 4"),
        (dict(max_bytes=20), "max_bytes is 20"),
        (dict(data=X * np.nan), "is nan"),
    ]:
        arguments = {"model": model, "crossbar": nothing, "data": X, **arguments}
        with pytest.raises(ValueError, match=message):
            output_error(**arguments)


def test_devices_without_a_formula():
    noise = hwa_keras.noise.ProcessVariation(0.1)
    with pytest.raises(NotImplementedError, match="no formula.*monte_carlo"):
        output_error(mlp(), noise, X)
