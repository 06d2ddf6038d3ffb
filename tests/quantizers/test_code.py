"""Codes of quantizers: what is read where bits are wrong."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import random
from hwa_keras.noise import BitFlip
from hwa_keras.quantizers import (
    BinaryConnect,
    DoReFa,
    MagnitudeAwareSign,
    NoOp,
    SteHeaviside,
    SteSign,
    SteTern,
    Uniform,
)
from hwa_keras.quantizers.code import Code
from tests.bits import ENCODINGS, as_numpy, read, table
from tests.bound import bound_to, kernel_of

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

# --- Code: every mask on every level


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("bits", "offset"),
    [(1, 0.5), (1, 1.0)]  # Of one bit, no code has a level at zero and a sign.
    + [(n, offset) for n in (2, 3, 4, 5, 8) for offset in (0.0, 0.5, 2.0 ** (n - 1))],
)
def test_every_mask_on_every_level(bits, offset, encoding):
    step = 0.3
    values = table(bits, offset, encoding)
    masks = np.arange(2**bits, dtype="int32")
    w, mask = (a.ravel() for a in np.meshgrid(values * step, masks))
    w = w.astype("float32")
    code = Code(bits, offset, step)
    found = as_numpy(code.flipped(ops.convert_to_tensor(w), mask, None, encoding))
    np.testing.assert_allclose(found, read(w, mask, step, values), rtol=1e-6, atol=1e-7)
    assert found.dtype == w.dtype
    assert found[mask == 0].tobytes() == w[mask == 0].tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (4, 7), (4, 5), (6, 31)])
def test_every_mask_with_the_step_of_each_column(bits, largest, encoding):
    levels = np.arange(-largest, largest + 1)
    masks = np.arange(2**bits, dtype="int32")
    w, mask = (a.ravel() for a in np.meshgrid(levels, masks))
    step = np.array([0.5, 0.01, 3.0]) / largest
    w, mask = (w[:, None] * step).astype("float32"), np.tile(mask[:, None], 3)
    expected = read(w, mask, step, table(bits, 0.0, encoding))
    by_column = Code(bits, step=None, largest=largest, axis=-1)
    given = replace(by_column, axis=None)  # Whatever the code says.
    for code, steps in ((by_column, None), (given, step[None])):
        found = code.flipped(ops.convert_to_tensor(w), mask, steps, encoding)
        np.testing.assert_allclose(as_numpy(found), expected, rtol=1e-5, atol=1e-7)


def test_one_step_for_a_tensor_and_for_one_of_zeros():
    code = Code(4, step=None, largest=7)
    w = np.array([-0.7, 0.0, 0.1], "float32")
    mask = np.array([1, 2, 8], "int32")  # 1001 → 1000, 0000 → 0010, 0001 → 1001
    found = code.flipped(ops.convert_to_tensor(w), mask)
    np.testing.assert_allclose(as_numpy(found), [-0.8, 0.2, -0.7], rtol=1e-6)
    zeros = code.flipped(ops.zeros(3), mask)
    np.testing.assert_allclose(as_numpy(zeros), np.array([1, 2, -8]) / 7, rtol=1e-6)


# --- The values that are read, for every quantizer that has a code


def column_means(w):
    return np.abs(w.astype("float64")).mean(0, keepdims=True)


def column_largest(w):
    return np.abs(w.astype("float64")).max(0, keepdims=True)


LEARNED = np.linspace(0.5, 1.5, 6).reshape(1, 6)  # Set below.
# name: (quantizer, bits, offset, step as a function of the weights)
QUANTIZERS = {
    "ste_sign": (SteSign(), 1, 0.5, lambda w: 2.0),
    "binary_connect_he": (BinaryConnect(), 1, 0.5, lambda w: 2 * np.sqrt(2 / len(w))),
    "binary_connect_xnor": (
        BinaryConnect("xnor"),
        1,
        0.5,
        lambda w: 2 * column_means(w),
    ),
    "ste_heaviside": (SteHeaviside(), 1, 1.0, lambda w: 1.0),
    "magnitude_aware_sign": (
        MagnitudeAwareSign(),
        1,
        0.5,
        lambda w: 2 * column_means(w),
    ),
    "no_op_of_a_bit": (NoOp(precision=1), 1, 0.5, lambda w: 2.0),
    "ste_tern": (SteTern(0.5), 2, 0.0, lambda w: 1.0),
    "dorefa_1_weights": (DoReFa(1, "weights"), 1, 0.5, lambda w: 2.0),
    "dorefa_4_weights": (DoReFa(4, "weights"), 4, 0.5, lambda w: 2 / 15),
    "dorefa_8_weights": (DoReFa(8, "weights"), 8, 0.5, lambda w: 2 / 255),
    "dorefa_1_activations": (DoReFa(1), 1, 1.0, lambda w: 1.0),
    "dorefa_3_activations": (DoReFa(3), 3, 4.0, lambda w: 1 / 7),
    "uniform_fixed": (Uniform(8, scale=1.5), 4, 0.0, lambda w: 1.5 / 7),
    "uniform_default": (Uniform(), 9, 0.0, lambda w: 1 / 255),
    "uniform_max": (
        Uniform(8, scale="max"),
        4,
        0.0,
        lambda w: np.abs(w.astype("float64")).max() / 7,
    ),
    "uniform_max_per_channel": (
        Uniform(6, scale="max", axis=-1),
        4,
        0.0,
        lambda w: column_largest(w) / 5,
    ),
    "uniform_learned": (
        Uniform(8, scale="learned", axis=[1]),
        4,
        0.0,
        lambda w: LEARNED / 7,
    ),
}
ENCODED = [
    (name, encoding)
    for name, (_, bits, offset, _) in QUANTIZERS.items()
    for encoding in (ENCODINGS if bits > 1 and offset < 1 else ENCODINGS[:1])
]


@pytest.mark.parametrize(("name", "encoding"), ENCODED)
def test_values_are_those_of_the_codes_that_are_read(name, encoding):
    quantizer, bits, offset, step_of = QUANTIZERS[name]
    w = np.random.default_rng(3).normal(size=(500, 6)).astype("float32")
    if isinstance(quantizer, NoOp):
        w = np.sign(w)
    bound_to(quantizer, w)
    if quantizer.weights:
        quantizer.alpha.assign(-LEARNED)  # A magnitude, whatever its sign.
    quantized = as_numpy(quantizer(w))
    perturb = BitFlip(0.2, encoding)
    perturb.bind(kernel_of(w, quantizer=quantizer))
    seed = random.seed_from(4)
    # Without compiling it, which the other tests do.
    found = perturb.perturb(ops.convert_to_tensor(quantized), seed, perturb.strength())
    found = as_numpy(found)
    mask = as_numpy(random.bernoulli_bits(w.shape, seed, [0.2] * bits))
    values = table(bits, offset, encoding)
    expected = read(quantized, mask, step_of(w), values)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.any(found != quantized) and bits == quantizer.precision
    assert found[mask == 0].tobytes() == quantized[mask == 0].tobytes()


@pytest.mark.tensorflow_only
def test_double_precision_stays_double():
    w = np.random.default_rng(3).normal(size=(200, 6))
    quantizer = Uniform(8, scale="max", axis=-1)
    perturb = BitFlip(0.2, quantizer=quantizer)
    quantized = as_numpy(quantizer(ops.convert_to_tensor(w, "float64")))
    found = as_numpy(perturb(quantized, random.seed_from(4)))
    assert found.dtype == "float64"
    mask = as_numpy(random.bernoulli_bits(w.shape, random.seed_from(4), [0.2] * 4))
    values = table(4, 0.0, "twos_complement")
    step = np.abs(w).max(0, keepdims=True) / 7
    np.testing.assert_allclose(found, read(quantized, mask, step, values), rtol=1e-12)


def test_half_precision_reads_the_same_codes():
    quantizer = DoReFa(4, "weights")
    w = quantizer(ops.convert_to_tensor(np.linspace(-2, 2, 999, dtype="float32")))
    perturb, seed = BitFlip(0.2, quantizer=quantizer), random.seed_from(4)
    found = perturb(ops.cast(w, "float16"), seed)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    single = ops.cast(perturb(w, seed), "float16")
    np.testing.assert_array_equal(as_numpy(found), as_numpy(single))
