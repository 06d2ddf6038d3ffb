"""BitFlip: rates, identity, gradients, compilation."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import chisquare

from hwa_keras import random
from hwa_keras.layers import HWADense
from hwa_keras.noise import BitFlip
from hwa_keras.quantizers import (
    DoReFa,
    SteSign,
    Uniform,
)
from tests.bits import MILLION, RATES, X, as_numpy, assert_rate, noisy
from tests.gradients import gradient
from tests.modes import in_mode

# --- How often bits flip

SIGN = BitFlip(0.1, quantizer="ste_sign")
FOUR = BitFlip(0.1, quantizer=DoReFa(4, "weights"))
LEVELS = np.random.default_rng(1).integers(-8, 8, MILLION)


@pytest.fixture
def sign():
    """A noise of one bit, compiled once for all tests that it serves."""
    SIGN.p.assign(0.1)
    SIGN.scale.assign(1.0)
    return SIGN


@pytest.fixture
def four():
    FOUR.p.assign(0.1)
    FOUR.scale.assign(1.0)
    return FOUR


def sign_flips(perturb, seed):
    w = np.sign(LEVELS + 0.5).astype("float32")
    found = as_numpy(perturb(w, random.seed_from(seed)))
    assert np.all(np.abs(found) == 1)
    return found != w


def four_flips(perturb, seed):
    """Which bits of a million weights of 4 bits flip: (4, MILLION), highest first."""
    w = ((LEVELS + 0.5) * 2 / 15).astype("float32")
    found = as_numpy(perturb(w, random.seed_from(seed))).astype("float64")
    level = np.round(found * 15 / 2 - 0.5).astype(int)
    np.testing.assert_allclose(found, (level + 0.5) * 2 / 15, atol=1e-6)
    assert level.min() >= -8 and level.max() <= 7
    changed = (level % 16) ^ (LEVELS % 16)
    return np.array([changed >> i & 1 for i in (3, 2, 1, 0)], bool)


@pytest.mark.parametrize("p", RATES)
def test_flips_of_one_bit_have_their_rate(sign, p):
    sign.p.assign(p)
    assert_rate(sign_flips(sign, seed=1), p)
    assert sign.error_rate == pytest.approx(p)


@pytest.mark.parametrize("p", RATES)
def test_flips_of_each_of_four_bits_have_their_rate(four, p):
    four.p.assign(p)
    for flips in four_flips(four, seed=1):
        assert_rate(flips, p)


@pytest.mark.parametrize(("p", "scale"), [(0.1, 0.25), (0.01, 3.0)])
def test_scale_is_a_factor_on_the_rate(sign, p, scale):
    sign.p.assign(p)
    sign.scale.assign(scale)
    assert_rate(sign_flips(sign, seed=2), p * scale)
    assert sign.error_rate == pytest.approx(p * scale)


@pytest.mark.parametrize(("p", "scale"), [(0.4, 5.0), (0.5, 2.0), (0.9, 1.0)])
def test_no_rate_exceeds_one_half(sign, four, p, scale):
    for perturb in (sign, four):
        perturb.p.assign(p)
        perturb.scale.assign(scale)
        assert perturb.error_rate == 0.5
    assert_rate(sign_flips(sign, seed=3), 0.5)
    for flips in four_flips(four, seed=3):
        assert_rate(flips, 0.5)


def test_bit_factors_are_those_of_the_highest_bit_first_and_end_at_one_half():
    factors = [0.0, 1.0, 2.0, 10.0]
    perturb = BitFlip(0.1, bit_factors=factors, quantizer=DoReFa(4, "weights"))
    for flips, rate in zip(four_flips(perturb, 1), (0.0, 0.1, 0.2, 0.5), strict=True):
        assert_rate(flips, rate)
        assert rate > 0 or not flips.any()


def test_bits_of_a_code_flip_independently(four):
    flips = four_flips(four, seed=5)
    correlation = np.corrcoef(flips) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(MILLION)
    found = np.bincount(np.array([8, 4, 2, 1]) @ flips, minlength=16)
    ones = [bin(pattern).count("1") for pattern in range(16)]
    expected = [MILLION * 0.1**n * 0.9 ** (4 - n) for n in ones]
    assert chisquare(found, expected).pvalue > 1e-4


def test_flips_do_not_depend_on_what_is_stored_nor_on_the_neighbour(sign, four):
    flips = sign_flips(sign, seed=6)
    for lag in (1, 2, 1000):
        found = np.corrcoef(flips[lag:], flips[:-lag])[0, 1]
        assert abs(found) < 5 / np.sqrt(MILLION)
    assert_rate(flips[LEVELS < 0], 0.1)
    assert_rate(flips[LEVELS >= 0], 0.1)
    for i, flips in zip((3, 2, 1, 0), four_flips(four, seed=6), strict=True):
        stored = (LEVELS % 16) >> i & 1
        assert abs(np.corrcoef(flips, stored)[0, 1]) < 5 / np.sqrt(MILLION)


def test_other_seeds_flip_other_bits_and_the_same_seed_the_same(sign, four):
    seeds = (1, 2, 1 + 2**32)
    flips = np.array([sign_flips(sign, seed) for seed in seeds])
    flips = np.concatenate([flips, *(four_flips(four, seed) for seed in seeds[:2])])
    # The lowest bit of four is drawn as the only bit of one.
    assert np.array_equal(flips[0], flips[6]) and np.array_equal(flips[1], flips[10])
    correlation = np.corrcoef(np.delete(flips, [6, 10], axis=0))
    assert np.abs(correlation - np.eye(9)).max() < 5 / np.sqrt(MILLION)
    np.testing.assert_array_equal(sign_flips(sign, 1), flips[0])
    np.testing.assert_array_equal(four_flips(four, 2), flips[7:])


# --- Identity, gradient, compilation


@pytest.mark.parametrize(
    "quantizer", [SteSign(), Uniform(8, scale="max", axis=-1), DoReFa(4, "weights")]
)
def test_without_errors_it_is_the_identity_to_the_bit(quantizer):
    w = as_numpy(quantizer(ops.convert_to_tensor(X)))
    perturb, seed = BitFlip(0.0, "sign_magnitude", quantizer=quantizer), (1, 2)
    for p, scale in ((0.0, 1.0), (0.3, 0.0)):
        perturb.p.assign(p)
        perturb.scale.assign(scale)
        assert perturb.error_rate == 0
        for values in (w, X):  # Whatever the weights are: nothing is decoded.
            found = as_numpy(perturb(values, np.array(seed, "uint32")))
            assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "quantizer", [SteSign(), Uniform(8, scale="max"), DoReFa(4, "weights")]
)
def test_gradient_passes_straight_through(quantizer):
    w = as_numpy(quantizer(ops.convert_to_tensor(X)))
    upstream = np.random.default_rng(2).normal(size=X.shape).astype("float32")
    perturb = BitFlip(0.3, "sign_magnitude", quantizer=quantizer)
    for p in (0.3, 0.0):
        perturb.p.assign(p)
        found = gradient(lambda w: perturb(w, random.seed_from(1)) * upstream, w)
        np.testing.assert_array_equal(found, upstream)


def test_gradient_of_a_layer_is_that_of_its_quantizer_alone():
    layer = HWADense(5, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.3))
    layer.build(X.shape)
    w = np.random.default_rng(1).normal(size=(12, 5)).astype("float32")
    found = gradient(
        lambda w: layer.kernel_noise(layer.kernel_quantizer(w), random.seed_from(1)), w
    )
    np.testing.assert_array_equal(found, np.abs(w) <= 1)


def test_the_same_compiled_or_not():
    quantizer = Uniform(8, scale="max", axis=-1)
    perturb = BitFlip(0.3, "sign_magnitude", quantizer=quantizer)
    w = quantizer(ops.convert_to_tensor(X))
    expected = perturb(w, random.seed_from(1))
    found = in_mode("xla", lambda w, seed: perturb(w, seed))(w, random.seed_from(1))
    np.testing.assert_allclose(as_numpy(found), as_numpy(expected), atol=1e-6)


@pytest.mark.parametrize(
    "jit_compile", [True, pytest.param(False, marks=pytest.mark.tensorflow_only)]
)
def test_p_changes_without_retracing_of_the_train_function(jit_compile):
    traces = []

    def linear(x):
        traces.append(1)
        return x

    layer = HWADense(
        3,
        activation=linear,
        kernel_quantizer="ste_sign",
        kernel_noise=BitFlip(0.5),
        noise_seed=1,
    )
    model = keras.Sequential([keras.Input((12,)), layer])
    y = np.ones((8, 3), "float32")
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    exact = model.evaluate(X, y, verbose=0)
    model.train_on_batch(X, y)
    before, losses = len(traces), []
    for p, scale in ((0.0, 1), (0.5, 1), (0.5, 1), (0.5, 0), (0.0, 1), (0.25, 2)):
        layer.kernel_noise.p.assign(p)
        layer.kernel_noise.scale.assign(scale)
        model.reset_metrics()  # Keras 3.12 goes on with the mean of the last call.
        losses.append(float(model.train_on_batch(X, y)))
    assert len(traces) == before
    np.testing.assert_allclose([losses[0], losses[3], losses[4]], exact, rtol=1e-5)
    assert len({*losses[1:3], losses[5], exact}) == 4


def test_mixed_precision_flips_in_full_precision(sign):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = HWADense(
            20,
            kernel_quantizer=Uniform(256, scale="learned", axis=-1),
            kernel_noise=BitFlip(0.1),
        )
        model = keras.Sequential([keras.Input((12,)), layer])
        alone = BitFlip(0.1, quantizer="ste_sign")
    finally:
        keras.config.set_dtype_policy(before)
    # In half precision p would be another: 0.09998.
    np.testing.assert_array_equal(sign_flips(alone, 1), sign_flips(sign, 1))
    seed = layer.hardware_kernels[0].seed_generator.state
    state = as_numpy(seed)
    ((w, flipped),) = noisy(layer)
    assert w.dtype == flipped.dtype == "float32"
    levels = flipped / as_numpy(layer.kernel_quantizer.code_step())
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert 0.3 < np.mean(w != flipped) < 0.9
    seed.assign(state)
    outputs = model(np.eye(12), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    np.testing.assert_array_equal(as_numpy(outputs), flipped.astype("float16"))
    eager = keras.backend.backend() == "jax"  # Without the compiler.
    model.compile("sgd", "mse", jit_compile=eager)
    loss = model.fit(X, np.ones((8, 20)), epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(loss))
