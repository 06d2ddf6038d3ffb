"""Packing against a computation of its own: digit by digit, from the definition."""

import numpy as np
import pytest

from hwa_keras import quantizers
from hwa_keras.deployment.packing import pack

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.


def kernel_of(n, shape, seed=0):
    """A kernel that holds each of n odd values."""
    rng = np.random.default_rng(seed)
    values = rng.permutation(rng.normal(size=4 * n).astype("float32"))[:n]
    kernel = values[rng.integers(0, n, shape)]
    kernel.flat[:n] = values
    return kernel


def unpacked_by_definition(packed):
    weights = []
    for code in packed.codes.tolist():
        for _ in range(packed.digits):
            code, digit = divmod(code, len(packed.values))
            weights.append(packed.values[digit])
        assert code == 0
    *others, channels = packed.shape
    weights = np.array(weights[: channels * int(np.prod(others))], "float32")
    weights = weights.reshape(channels, *others)
    if packed.scale is not None:
        weights = weights * packed.scale
    return np.stack(list(weights), axis=-1)


@pytest.mark.parametrize("n", range(2, 257))
def test_every_number_of_values_comes_back_to_the_bit(n):
    kernel = kernel_of(n, (3, 211, 23))
    packed = pack(kernel)
    assert packed.codes.dtype == np.uint8
    assert len(packed.values) == n
    most = max(k for k in range(1, 9) if n**k <= 256)
    assert 1 <= packed.digits <= most
    assert packed.codes.size == -(-kernel.size // packed.digits)
    for found in (unpacked_by_definition(packed), packed.unpack()):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view("int32"), kernel.view("int32"))


@pytest.mark.parametrize(
    "n, digits", [(1, 8), (2, 8), (3, 5), (4, 4), (6, 3), (7, 2), (16, 2), (17, 1)]
)
def test_large_kernels_have_as_many_weights_in_a_byte_as_fit(n, digits):
    kernel = kernel_of(n, (700, 512))
    packed = pack(kernel)
    assert packed.digits == digits
    table = max(n, 2) ** digits * digits * 4
    assert packed.nbytes == -(-kernel.size // digits) + table
    np.testing.assert_array_equal(packed.unpack(), kernel)


def test_small_kernels_have_small_tables():
    packed = pack(kernel_of(2, (64, 8)))
    assert packed.nbytes == min(-(-512 // k) + 4 * k * 2**k for k in range(1, 9))
    with pytest.raises(ValueError, match="its 6 distinct values in 6 weights"):
        pack(np.arange(6, dtype="float32").reshape(2, 3))


@pytest.mark.parametrize("axis", [-1, 0, (-2, -1)])
@pytest.mark.parametrize("levels", [2, 16, 128])
def test_scales_per_channel_are_taken_out(axis, levels):
    kernel = np.random.default_rng(0).uniform(-1, 1, (12, 8, 40, 48))
    quantizer = quantizers.Uniform(levels, scale="max", axis=axis)
    kernel = np.asarray(quantizer(kernel.astype("float32")))
    assert np.unique(kernel).size > 256 or levels == 2
    packed = pack(kernel)
    assert len(packed.values) == 2 * levels - 1
    assert packed.scale is not None
    np.testing.assert_array_equal(unpacked_by_definition(packed), kernel)
    np.testing.assert_array_equal(packed.unpack(), kernel)


def test_a_scale_is_taken_out_of_few_values_where_that_is_smaller():
    kernel = np.random.default_rng(0).normal(size=(400, 20)).astype("float32")
    kernel = np.asarray(quantizers.MagnitudeAwareSign()(kernel))
    assert np.unique(kernel).size == 40
    packed = pack(kernel)
    assert len(packed.values) == 2 and packed.scale.shape == (20, 1)
    np.testing.assert_array_equal(packed.unpack(), kernel)


def test_a_scale_that_no_weight_reaches_must_be_given():
    rng = np.random.default_rng(0)
    scale = rng.uniform(4, 9, (1, 64)).astype("float32")
    kernel = np.asarray(
        quantizers.uniform(rng.normal(size=(100, 64)).astype("float32"), 16, scale)
    )
    with pytest.raises(ValueError, match="more than 256 distinct"):
        pack(kernel)
    unusable = [np.ones((7, 3)), np.ones((2, 2, 2)), np.ones((100, 1))]
    packed = pack(kernel, [*unusable, scale])
    np.testing.assert_array_equal(packed.scale, scale.T)
    np.testing.assert_array_equal(packed.unpack(), kernel)


def test_channels_of_zeros():
    kernel = np.random.default_rng(0).normal(size=(300, 24)).astype("float32")
    kernel[:, 5] = 0
    kernel = np.asarray(quantizers.Uniform(16, scale="max", axis=-1)(kernel))
    np.testing.assert_array_equal(pack(kernel).unpack(), kernel)
    zeros = np.zeros((20, 30), "float32")
    np.testing.assert_array_equal(pack(zeros).unpack(), zeros)


def test_a_zero_has_no_sign():
    kernel = np.array([-1.0, -0.0, 0.0, 1.0] * 100, "float32").reshape(20, 20)
    packed = pack(kernel)
    assert len(packed.values) == 3
    np.testing.assert_array_equal(packed.unpack(), kernel)


def test_what_cannot_be_packed():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 50)).astype("float32")
    with pytest.raises(ValueError, match="more than 256 distinct values"):
        pack(noise)
    with pytest.raises(ValueError, match="more than 256 distinct values"):
        pack(np.sign(noise) * np.arange(2500, dtype="float32").reshape(50, 50))
    noise[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack(noise)
    with pytest.raises(ValueError, match="it is float64"):
        pack(np.sign(rng.normal(size=(50, 50))))
