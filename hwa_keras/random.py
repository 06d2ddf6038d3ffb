"""The one place that draws random numbers.

Keras's own normals are the cost of a hardware-aware step on a small network, so the
numbers here come from a counter-based generator written in `keras.ops`: Threefry-2x32
with 13 rounds, a few integer additions, rotations and exclusive ors per number, which
XLA fuses with the noise formula that consumes them. Every draw is a pure function of
`(seed, element index)`: the same seed gives the same numbers eagerly, in a graph,
compiled or not, whatever the batch size, and on TensorFlow and JAX alike.

A *seed* is a `uint32` tensor of shape `(2,)`: what
`keras.random.SeedGenerator.next()` returns, or `seed_from(7)`. Distinct streams are
made with `fold_in`, never by adding to a seed.

Reference:
    - Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
      SC 2011 (Threefry-2x32 passes TestU01's BigCrush from 13 rounds on).
    - Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2010.
"""

import math

import numpy as np
from keras import ops

from hwa_keras import backend

__all__ = ["bits", "fold_in", "next_seed", "normal", "seed_from", "uniform"]

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = 13

# Giles's single-precision erfinv: w < 5 and w >= 5, highest power first.
_CENTRAL = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def seed_from(seed):
    """Turn an integer into a seed tensor.

    Args:
        seed: Integer in `[0, 2**64)`.

    Returns:
        A `uint32` tensor of shape `(2,)`: low word, high word.

    Example:
        >>> hwa_keras.random.seed_from(7).shape == (2,)
        True
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(
            f"`seed` must be an integer. Received: {seed!r} of type "
            f"{type(seed).__name__}."
        )
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` must be in [0, 2**64). Received: {seed}.")
    words = np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], "uint32")
    return ops.convert_to_tensor(words, dtype="uint32")


def next_seed(generator):
    """Advance a `keras.random.SeedGenerator` and return the seed it stood at.

    Under `tf.distribute` the seed differs between replicas, so that each replica
    computes with a noise sample of its own.
    """
    seed = ops.cast(generator.next(), "uint32")
    replica = backend.replica_id()
    return seed if replica is None else fold_in(seed, replica)


def fold_in(seed, data):
    """Derive the seed of an independent stream from a seed and an integer.

    Args:
        seed: `uint32` tensor of shape `(2,)`.
        data: Integer, or integer scalar tensor: the number of the stream.

    Returns:
        A seed, `uint32` of shape `(2,)`.
    """
    data = ops.cast(ops.reshape(ops.convert_to_tensor(data), (1,)), "uint32")
    # Element draws use the counters (i, 0); streams use (data, 1).
    return ops.concatenate(_threefry(seed, data, ops.ones_like(data)))


def bits(shape, seed):
    """Draw two independent arrays of 32 random bits.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.

    Returns:
        A pair of `uint32` tensors of the given shape.
    """
    index = _indices(shape)
    first, second = _threefry(seed, index, ops.zeros_like(index))
    return ops.reshape(first, shape), ops.reshape(second, shape)


def uniform(shape, seed):
    """Draw `float32` numbers uniform on the open interval (0, 1).

    The numbers are the mid-points of 2**23 equal bins, so neither 0 nor 1 occurs.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
    """
    return _to_unit(bits(shape, seed)[0])


def normal(shape, seed, pair=False):
    """Draw standard normal `float32` numbers by inversion of the distribution.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        pair: Bool. When True, return two independent arrays for the price of one
            generator call. Defaults to `False`.

    Returns:
        A `float32` tensor of the given shape, or a pair of them. Magnitudes reach
        5.3, the quantile of the outermost of 2**23 bins.

    Example:
        >>> z = hwa_keras.random.normal((3, 4), hwa_keras.random.seed_from(7))
        >>> z.shape == (3, 4)
        True
    """
    first, second = _normal_pair(seed, _indices(shape))
    if pair:
        return ops.reshape(first, shape), ops.reshape(second, shape)
    return ops.reshape(first, shape)


def _indices(shape):
    return ops.cast(ops.arange(math.prod(shape), dtype="int32"), "uint32")


def _word(value):
    return ops.convert_to_tensor(np.uint32(value), dtype="uint32")


@backend.traced
def _threefry(key, counter0, counter1):
    """Encrypt counter arrays under a two-word key: Threefry-2x32."""
    schedule = (
        key[0],
        key[1],
        ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), _word(_PARITY)),
    )
    x0 = ops.add(counter0, schedule[0])
    x1 = ops.add(counter1, schedule[1])
    for i in range(_ROUNDS):
        rotation = _ROTATIONS[i % 8]
        x0 = ops.add(x0, x1)
        x1 = ops.bitwise_or(
            ops.left_shift(x1, _word(rotation)),
            ops.right_shift(x1, _word(32 - rotation)),
        )
        x1 = ops.bitwise_xor(x1, x0)
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = ops.add(x0, schedule[j % 3])
            x1 = ops.add(x1, ops.add(schedule[(j + 1) % 3], _word(j)))
    return x0, x1


def _to_unit(words):
    high = ops.cast(ops.right_shift(words, _word(9)), "float32")
    return (high + 0.5) * 2.0**-23


def _polynomial(coefficients, x):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _to_normal(words):
    x = _to_unit(words) * 2.0 - 1.0
    w = -ops.log((1.0 - x) * (1.0 + x))
    central = _polynomial(_CENTRAL, w - 2.5)
    tail = _polynomial(_TAIL, ops.sqrt(w) - 3.0)
    return ops.where(w < 5.0, central, tail) * x * math.sqrt(2.0)


@backend.traced
def _normal_pair(seed, index):
    first, second = _threefry(seed, index, ops.zeros_like(index))
    return _to_normal(first), _to_normal(second)
