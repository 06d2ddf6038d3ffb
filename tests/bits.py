"""What the tests of wrong bits share: an independent reading of codes."""

import numpy as np
from keras import ops
from scipy.stats import binomtest

import hwa_keras

MILLION = 1_000_000
RATES = (1e-4, 1e-3, 0.01, 0.1, 0.5)
ENCODINGS = ("twos_complement", "sign_magnitude")
X = np.random.default_rng(0).normal(size=(8, 12)).astype("float32")


def as_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def assert_rate(flips, rate):
    """Two-sided binomial test of how many of an array of booleans are true."""
    assert binomtest(int(flips.sum()), flips.size, rate).pvalue > 1e-4


# --- Reference: what bits mean, counted out one by one


def unsigned(pattern, bits):
    return sum(2**i for i in range(bits) if pattern >> i & 1)


def twos_complement(pattern, bits):
    negative = pattern >> (bits - 1) & 1
    return unsigned(pattern, bits - 1) - negative * 2 ** (bits - 1)


def sign_magnitude(pattern, bits, offset=0.0):
    sign = -1.0 if pattern >> (bits - 1) & 1 else 1.0
    return sign * (unsigned(pattern, bits - 1) + offset)


def table(bits, offset, encoding):
    """The value of each pattern of bits, in steps."""
    patterns = range(2**bits)
    if bits == 1:
        return np.array([offset - 1.0, offset])
    if offset >= 1:
        return np.array([unsigned(p, bits) for p in patterns], "float64")
    if encoding == "sign_magnitude":
        return np.array([sign_magnitude(p, bits, offset) for p in patterns])
    return np.array([twos_complement(p, bits) + offset for p in patterns])


def patterns_of(w, step, values):
    """The bits that hold weights: those of the nearest value, +0 for zero."""
    levels = np.asarray(w, "float64") / step
    found, inverse = np.unique(levels.round(3), return_inverse=True)
    nearest = np.argmin(np.abs(values - found[:, None]), axis=-1)
    nearest = nearest[inverse].reshape(levels.shape)
    np.testing.assert_allclose(values[nearest], levels, atol=1e-3)
    return nearest


def read(w, mask, step, values):
    """What is read where the bits of a mask are wrong."""
    return values[patterns_of(w, step, values) ^ mask] * step


def noisy(owner):
    """Pairs (quantized kernel, noisy kernel) of a layer or model."""
    kernels = hwa_keras.hardware_kernels(owner)
    return [
        (as_numpy(k.quantized()), as_numpy(k.value(training=True))) for k in kernels
    ]


def quantized(owner):
    """The quantized kernels of a layer or model, NumPy arrays."""
    return [as_numpy(k.quantized()) for k in hwa_keras.hardware_kernels(owner)]


def held(chip):
    """What the devices of a chip hold, NumPy arrays."""
    return [as_numpy(tile.kernel().variable) for tile in chip.tiles]
