"""Fixed ranges, saturation, accumulators and output noise against NumPy."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import quantizers
from hwa_keras.circuits import ADC, DAC, Accumulator, OutputNoise, Saturation
from hwa_keras.core import random
from hwa_keras.layers import HWADense
from hwa_keras.training import NoiseRamp
from tests import fresh
from tests.gradients import gradient

pytestmark = pytest.mark.usefixtures("built_optimizers")

X = np.concatenate(
    [np.linspace(-20, 20, 3001), [-8, -7.5, 0, 7, 7.5, 8, -1e4, 1e4, -1, 1, 6]]
).astype("float32")
X64 = X.astype("float64")


def within(low, high):
    return ((X64 >= low) & (X64 <= high)) * 1.0


def grid(low, high, steps):
    step = (high - low) / steps
    return low + step * np.round((np.clip(X64, low, high) - low) / step)


def two_complement(k, bits):
    return (k.astype(np.int64) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


SMOOTH = np.tanh((X64 - 1) / 4)
CASES = {
    "saturation": (Saturation(-1, 6), np.clip(X64, -1, 6), within(-1, 6)),
    "saturation_passing": (
        Saturation(-1, 6, gradient="straight_through"),
        np.clip(X64, -1, 6),
        np.ones_like(X64),
    ),
    "saturation_smooth": (
        Saturation(-3, 5, smooth=True),
        1 + 4 * SMOOTH,
        1 - SMOOTH**2,
    ),
    "saturation_smooth_passing": (
        Saturation(-3, 5, smooth=True, gradient="straight_through"),
        1 + 4 * SMOOTH,
        np.ones_like(X64),
    ),
    "adc": (ADC(4, (-1.0, 14.0)), grid(-1, 14, 15), within(-1, 14)),
    "adc_symmetric": (ADC(4, 7.0), grid(-7, 7, 14), within(-7, 7)),
    "adc_one_bit": (ADC(1, (0.0, 1.0)), grid(0, 1, 1), within(0, 1)),
    "dac": (DAC(2, (0.0, 3.0)), grid(0, 3, 3), within(0, 3)),
    "accumulator": (
        Accumulator(4),
        np.clip(np.round(X64), -8, 7),
        within(-8, 7),
    ),
    "accumulator_wrapping": (
        Accumulator(4, overflow="wrap"),
        two_complement(np.round(X64), 4),
        np.ones_like(X64),
    ),
    "accumulator_of_halves": (
        Accumulator(5, step=0.5, overflow="wrap"),
        two_complement(np.round(X64 * 2), 5) / 2,
        np.ones_like(X64),
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_values_and_slopes_against_numpy(case):
    layer, values, slopes = case
    found = ops.convert_to_numpy(layer(ops.convert_to_tensor(X)))
    # Where float32 meets a tie of the rounding it may go the other way.
    differ = np.abs(found - values) > 1e-4
    assert differ.mean() < 0.01
    found = gradient(layer, X)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-6)


def test_configuration_round_trips_and_half_precision_is_kept(case):
    layer = case[0]
    config = json.loads(json.dumps(quantizers.serialize(layer)))
    again = quantizers.get(config)
    np.testing.assert_array_equal(again(X), layer(X))
    for dtype in ("float16", "bfloat16"):
        found = layer(ops.cast(X, dtype))
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        assert np.isfinite(ops.convert_to_numpy(ops.cast(found, "float32"))).all()


def test_zero_is_a_code_of_a_symmetric_range():
    codes = np.unique(ADC(3, 1.0)(np.linspace(-2, 2, 1000, dtype="float32")))
    assert 0.0 in codes and len(codes) == 7
    np.testing.assert_allclose(codes, -codes[::-1], atol=1e-7)


def test_wrapping_at_the_end_is_wrapping_all_along():
    addends = np.random.default_rng(0).integers(-5, 6, size=(50, 200))
    register = np.zeros(200, np.int64)
    for row in addends:
        register = two_complement(register + row, 4)
    found = Accumulator(4, overflow="wrap")(addends.sum(0).astype("float32"))
    np.testing.assert_array_equal(found, register)


def test_smooth_saturation_has_the_gradient_of_its_formula():
    layer, x, h = Saturation(-3, 5, smooth=True), np.array([-2.0, 0.3, 4.0]), 1e-2
    up, down = (np.array(layer((x + d).astype("float32"))) for d in (h, -h))
    found = gradient(layer, x.astype("float32"))
    np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_as_arguments_and_as_layers_they_do_the_same_and_train(policy, tmp_path):
    def dense(**kwargs):
        return HWADense(4, kernel_initializer="ones", dtype=policy, **kwargs)

    data = np.random.default_rng(1).normal(size=(32, 5)).astype("float32")
    dac, adc = DAC(4, 2.0), ADC(3, (-4.0, 4.5))
    argued = keras.Sequential(
        [keras.Input((5,)), dense(input_quantizer=dac, output_quantizer=adc)]
    )
    stood = keras.Sequential([keras.Input((5,)), DAC(4, 2.0), dense(), adc])
    found = ops.convert_to_numpy(ops.cast(argued(data), "float32"))
    np.testing.assert_array_equal(ops.cast(stood(data), "float32"), found)
    assert len(np.unique(found)) <= 8
    argued.compile(keras.optimizers.SGD(0.3), "mse")
    losses = argued.fit(data, np.ones((32, 4)), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    if policy == "float32":
        models = {"argued": argued, "stood": stood}
        fresh.assert_loads_equal(models, {"argued": data, "stood": data}, tmp_path)


# --- OutputNoise


def test_output_noise_is_relative_to_what_it_says():
    y = np.random.default_rng(2).normal(3.0, 2.0, size=(400, 500)).astype("float32")
    for relative_to, unit in (("absolute", 1), ("max", np.abs(y).max()), ("std", 2.0)):
        layer = OutputNoise(0.1, relative_to, always=True, seed=1)
        error = (ops.convert_to_numpy(layer(y)) - y).astype("float64")
        expected = 0.1 * unit
        assert abs(error.std() / expected - 1) < 5 / np.sqrt(2 * y.size) + 0.01 * (
            relative_to == "std"
        )


def test_output_noise_is_there_in_training_and_always_if_asked():
    y = np.ones((4, 3), "float32")
    layer = OutputNoise(0.1, seed=1)
    np.testing.assert_array_equal(layer(y), y)
    first = ops.convert_to_numpy(layer(y, training=True))
    assert not np.array_equal(first, y)
    assert not np.array_equal(layer(y, training=True), first)
    assert not np.array_equal(OutputNoise(0.1, always=True)(y), y)
    dense = HWADense(3, output_noise=OutputNoise(0.1, always=True))
    quiet = HWADense(3, output_noise=OutputNoise(0.1))
    x = np.ones((4, 2), "float32")
    assert not np.array_equal(dense(x), dense(x))
    np.testing.assert_array_equal(quiet(x), quiet(x))


def test_output_noise_as_a_layer_trains_saves_and_is_ramped(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), OutputNoise(0.1, seed=3)]
    )
    model.compile("adam", "mse")
    x, y = np.ones((8, 5)), np.ones((8, 4))
    ramp = NoiseRamp(stop=2.0, epochs=1)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[ramp]).history
    assert history["noise_scale"] == [0.0, 2.0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    found = [ops.convert_to_numpy(m(x, training=True)) for m in (model, again, again)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


def test_a_live_chip_draws_output_noise_anew_and_a_frozen_one_does_not():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), OutputNoise(0.1, always=True)]
    )
    x = np.ones((8, 5), "float32")
    live = hwa_keras.program(model, "pcm", seed=1)
    assert not np.array_equal(live(x), live(x))
    frozen = hwa_keras.program(model, "pcm", seed=1, read_noise="frozen")
    np.testing.assert_array_equal(frozen(x), frozen(x))


def test_output_noise_under_a_seed_is_reproducible():
    noise, seed = OutputNoise(0.1), random.seed_from(5)
    y = np.ones((4, 3), "float32")
    np.testing.assert_array_equal(noise(y, seed), noise(y, seed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Saturation(1, 1), "two numbers, the lower one first.*low=1, high=1"),
        (lambda: Saturation(2, -1), "the lower one first.*low=2, high=-1"),
        (lambda: Saturation(0, 1, gradient="zero"), "`gradient` must be.*'zero'"),
        (lambda: Saturation(0, np.inf, smooth=True), "finite numbers.*high=inf"),
        (lambda: Accumulator(1), "`bits` must be an integer from 2 to 24.*bits=1"),
        (lambda: Accumulator(4, step=0), "`step` must be positive.*step=0"),
        (lambda: Accumulator(4, overflow="clip"), "`overflow` must be.*'clip'"),
        (lambda: OutputNoise(0.1, "mean"), "`relative_to` must be.*'mean'"),
        (lambda: OutputNoise(-0.1), "`std` of .* not negative"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
