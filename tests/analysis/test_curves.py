"""Curves of a metric over noise and bits, and what correlates with them."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

import hwa_keras
from hwa_keras import circuits, noise, random
from hwa_keras.analysis import (
    Correlation,
    correlation,
    quantization_curve,
    robustness_curve,
)
from tests import zoo

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 5)).astype("float32")


def linear(*units):
    layers = [keras.layers.Dense(n, use_bias=False) for n in units]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def normalized():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(5),
        ]
    )
    model.compile("adam", "mse")
    return model


def numpy_of(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def mse(weights, y):
    outputs = X
    for w in weights:
        outputs = outputs @ w
    return np.mean((outputs - y) ** 2)


def z_of(shape, chip, kernel):
    """The numbers that the devices of a kernel of a chip are off by."""
    seed = random.fold_in(random.fold_in(random.seed_from(chip), kernel), 0)
    return ops.convert_to_numpy(random.normal(shape, seed))


def test_every_sample_is_that_of_the_kernels_off_by_the_draws_of_its_chip():
    model = linear(4, 5)
    weights = numpy_of(model.weights)
    curve = robustness_curve(
        model, (X, Y), sigmas=[0.1, 0.4], chips=3, metric="loss", seed=7, verbose=0
    )
    assert curve.levels == [0.1, 0.4] and curve.name == model.name
    assert "σ_c" in curve.axes[0].label
    for sigma in curve.levels:
        expected = [
            mse(
                [w * (1 + sigma * z_of(w.shape, c, i)) for i, w in enumerate(weights)],
                Y,
            )
            for c in (7, 8, 9)
        ]
        np.testing.assert_allclose(curve.values(sigma), expected, rtol=1e-4)


@pytest.mark.slow
def test_mean_loss_grows_with_the_variance_of_the_conductances():
    model = linear(5)
    (w,) = numpy_of(model.weights)
    curve = robustness_curve(
        model, (X, X @ w), sigmas=[0.1, 0.2], chips=20, metric="loss", verbose=0
    )
    # E[(Σ x·w·σ·z)²] = σ²·Σ x²·w² for independent z of variance 1.
    unit = np.mean(X**2 @ w**2)
    for sigma in curve.levels:
        found = curve.estimate(sigma)
        assert abs(found.mean - sigma**2 * unit) < 4 * found.std / np.sqrt(20)


@pytest.mark.slow
@pytest.mark.parametrize("on_hardware", [False, True])
def test_samples_are_those_of_programmed_chips(on_hardware):
    x, y = zoo.digits_like()
    model = zoo.mlp()
    if on_hardware:
        dac, adc = circuits.DAC(6, range=4.0), circuits.ADC(8, range=8.0)
        hardware = hwa_keras.Hardware("ste_sign", dac=dac, adc=adc, tile=(5, 3))
        hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    curve = robustness_curve(model, (x, y), sigmas=[0.3], chips=2, seed=3, verbose=0)
    assert curve.metric == "accuracy"
    device = noise.MultiplicativeGaussian(0.3)
    chip = hwa_keras.program(model, device, seed=4, read_noise="off")
    found = chip.evaluate(x, y, verbose=0, return_dict=True)
    for name, value in found.items():
        assert curve.values(0.3, metric=name)[1] == pytest.approx(value, rel=1e-4)


def test_another_noise_is_scaled_by_each_sigma_and_not_changed():
    model = linear(4, 5)
    variation = noise.ProcessVariation(0.5, granularity="column", scale=0.8)
    chain = noise.Compose([variation, noise.StuckAt(0.2)])
    curve = robustness_curve(
        model, (X, Y), sigmas=[0.5], chips=2, noise=chain, metric="loss", verbose=0
    )
    assert curve.axes[0].label == "scale of Compose"
    assert float(chain.scale.value) == 1.0
    chain.scale.assign(0.5)
    found = hwa_keras.monte_carlo(model, chain, (X, Y), chips=2, verbose=0)
    np.testing.assert_allclose(
        curve.values(0.5), found.values(metric="loss"), rtol=1e-4
    )


@pytest.mark.slow
def test_batchnorm_is_adapted_on_every_chip():
    model = normalized()
    common = {"seed": 2, "verbose": 0}
    # A generator is used up once, for all chips.
    batches = (X[i : i + 20] for i in (0, 20))
    curve = robustness_curve(
        model, (X, Y), sigmas=[0.3], chips=2, calibration=batches, **common
    )
    device = noise.MultiplicativeGaussian(0.3)
    batches = iter([X[:20], X[20:]])
    found = hwa_keras.monte_carlo(
        model, device, (X, Y), chips=2, calibration=batches, **common
    )
    np.testing.assert_allclose(
        curve.values(0.3), found.values(metric="loss"), rtol=1e-4
    )
    plain = robustness_curve(model, (X, Y), sigmas=[0.3], chips=2, **common)
    assert not np.allclose(plain.values(0.3), found.values(metric="loss"), rtol=1e-2)


@keras.saving.register_keras_serializable(package="tests")
class Offset(noise.Noise):
    """Not exact at scale 0, against the rule for noises."""

    def perturb(self, w, seed, strength):
        return w + 0.1


def test_one_sample_suffices_where_nothing_is_perturbed():
    model = linear(5)
    common = {"sigmas": [0.0, 0.1], "chips": 3, "verbose": 0}
    curve = robustness_curve(model, (X, Y), **common)
    assert [curve.values(s).size for s in curve.levels] == [1, 3]
    plain = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert curve.values(0.0, metric="mae") == pytest.approx(plain["mae"], rel=1e-5)
    inexact = robustness_curve(model, (X, Y), noise=Offset(), **common)
    assert inexact.values(0.0).size == 3


@keras.saving.register_keras_serializable(package="tests")
class Counted(keras.layers.Layer):
    calls = 0

    def call(self, inputs):
        Counted.calls += 1
        return inputs


def test_levels_and_chips_share_one_compiled_graph():
    model = keras.Sequential([keras.Input((6,)), Counted(), keras.layers.Dense(5)])
    model.compile("adam", "mse")
    traced = []
    for sigmas, bits in ([0.2], [4]), ([0.1, 0.2, 0.3], [5, 4, 3]):
        Counted.calls = 0
        robustness_curve(model, (X, Y), sigmas=sigmas, chips=2, verbose=0)
        quantization_curve(model, (X, Y), bits=bits, skip=(), verbose=0)
        traced.append(Counted.calls)
    assert traced[0] == traced[1]


def test_the_model_is_left_as_it_is():
    model = normalized()
    variables = [id(v) for v in model.variables]
    before = numpy_of(model.variables)
    robustness_curve(model, (X, Y), sigmas=[0.4], chips=1, calibration=X, verbose=0)
    quantization_curve(model, (X, Y), bits=[2], verbose=0)
    assert [id(v) for v in model.variables] == variables
    for old, new in zip(before, numpy_of(model.variables), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sigmas": []}, "`sigmas` must be one or more"),
        ({"sigmas": [-0.1]}, "finite numbers ≥ 0"),
        ({"sigmas": [float("nan")]}, "finite numbers ≥ 0"),
        ({"chips": 0}, "`chips` of ChipStudy must be an integer"),
        ({"metric": "f1"}, "not among the compiled ones: .*mae"),
        ({"data": None}, "`data` is missing"),
        ({"noise": "flash"}, "Unknown noise 'flash'"),
    ],
)
def test_bad_input_of_a_robustness_curve(kwargs, message):
    arguments = {"data": (X, Y), "sigmas": [0.1], "chips": 1, "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=message):
        robustness_curve(linear(5), **arguments)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(TypeError, match="must be a hwa_keras noise"):
        robustness_curve(linear(5), (X, Y), noise=lambda w, seed: w, verbose=0)
    for measure in (robustness_curve, quantization_curve):
        with pytest.raises(ValueError, match="not compiled"):
            measure(zoo.mlp(), (X, Y), verbose=0)
    with pytest.raises(ValueError, match="no kernel left to round"):
        quantization_curve(linear(5), (X, Y), verbose=0)


def test_correlation_is_pearson_s():
    a, b = np.random.default_rng(3).normal(size=(2, 8))
    found = correlation(a, a + 0.5 * b)
    r = np.corrcoef(a, a + 0.5 * b)[0, 1]
    t = r * np.sqrt(6 / (1 - r**2))
    ends = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.959964 / np.sqrt(8 - 3))
    assert found.r == pytest.approx(r) and found.count == 8
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(t, 6))
    assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-5)
    assert correlation([1, 2, 3], [3.0, 2.0, 1.0]).r == pytest.approx(-1)
    assert isinstance(found, Correlation)


@pytest.mark.parametrize(
    ("robustness", "message"),
    [
        ([1.0, 2.0], r"`robustness` must hold .* three models.*\[1.0, 2.0\]"),
        ([1.0, 2.0, 3.0, 4.0], "Received: 3 and 4 numbers"),
        ([2.0, 2.0, 2.0], "`robustness` is the same for all models"),
        ([1.0, 2.0, float("nan")], "`robustness` must hold finite numbers"),
    ],
)
def test_bad_input_of_a_correlation(robustness, message):
    with pytest.raises(ValueError, match=message):
        correlation([1.0, 2.0, 3.5], robustness)
