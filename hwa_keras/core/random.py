"""The one place that draws random numbers.

Keras's own normals are the cost of a hardware-aware step on a small network, so the
numbers here come from a counter-based generator written in `keras.ops`, which XLA
fuses with the noise formula that consumes them. Every draw is a pure function of
`(seed, element index)`: the same seed gives the same bits eagerly, in a graph,
compiled or not, whatever the batch size, and on TensorFlow and JAX alike.

Two functions share the work. Seeds are derived with Threefry-2x32, a cipher, so that
seeds that differ by one give unrelated streams. The elements of an array are then
hashed with pcg3d, seven multiply-adds for two words, keyed with a seed so derived.

A *seed* is a `uint32` tensor of shape `(2,)`: what
`keras.random.SeedGenerator.next()` returns, or `seed_from(7)`. Distinct streams are
made with `fold_in`, never by adding to a seed.

Reference:
    - Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
      SC 2011 (Threefry).
    - Jarzynski and Olano, "Hash functions for GPU rendering", Journal of Computer
      Graphics Techniques 9(3), 2020 (pcg3d).
    - Box and Muller, "A note on the generation of random normal deviates", Annals of
      Mathematical Statistics 29(2), 1958.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.core import modes
from hwa_keras.core.types import Seed, Tensor

__all__ = [
    "bernoulli",
    "bernoulli_bits",
    "bits",
    "fold_in",
    "is_seed_state",
    "next_seed",
    "normal",
    "seed_from",
    "uniform",
]

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = 13

# Minimax polynomials, highest power first: ln(1 + x)/x on [√½ − 1, √2 − 1], and
# sin(πf/2)/f and cos(πf/2) in f² for f in [−½, ½]. Relative errors: 2e-7, 4e-9, 4e-8.
_LOG = (
    -0.10106893, 0.1622258, -0.1725083, 0.19900165, -0.24969909, 0.3333506,
    -0.50000364, 0.99999994,
)  # fmt: skip
_SIN = (-0.00460165786, 0.079680033, -0.64596351, 1.57079637)
_COS = (-0.0203985814, 0.253594935, -1.2336967, 0.99999994)


def seed_from(seed: int) -> Seed:
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


def next_seed(generator: Any) -> Seed:
    """Advance a `keras.random.SeedGenerator` and return the seed it stood at.

    Where reads are frozen or off (see `hwa_keras.core.modes`) it is not advanced. Under
    `tf.distribute` the seed differs between replicas, so that each replica computes
    with a noise sample of its own.
    """
    frozen = modes.current().read_noise is not None
    seed = ops.cast(generator.state if frozen else generator.next(), "uint32")
    replica = backend.replica_id()
    return seed if replica is None else fold_in(seed, replica)


def is_seed_state(variable: Any) -> bool:
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"


def fold_in(seed: Seed, data: int | Tensor) -> Seed:
    """Derive the seed of an independent stream from a seed and an integer.

    Args:
        seed: `uint32` tensor of shape `(2,)`.
        data: Integer, or integer scalar tensor: the number of the stream.

    Returns:
        A seed, `uint32` of shape `(2,)`.
    """
    return _folded(seed, ops.convert_to_tensor(data))


def bits(shape: tuple[int, ...], seed: Seed) -> tuple[Tensor, Tensor]:
    """Draw two independent arrays of 32 random bits.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.

    Returns:
        A pair of `uint32` tensors of the given shape.
    """
    first, second = _hash(seed, _indices(shape, seed))
    return ops.reshape(first, shape), ops.reshape(second, shape)


def uniform(shape: tuple[int, ...], seed: Seed) -> Tensor:
    """Draw `float32` numbers uniform on the open interval (0, 1).

    The numbers are the mid-points of 2**23 equal bins, so neither 0 nor 1 occurs.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
    """
    return _to_unit(bits(shape, seed)[0])


def bernoulli(
    shape: tuple[int, ...], seed: Seed, probability: float | Tensor
) -> Tensor:
    """Draw what happens with a probability, however small.

    `uniform(shape, seed) < p` never happens below p = 2**-24 and is off by up to 2**-24
    above. Here p is compared with 64 random bits, so that p counts to the last digit of
    `float32` down to 2**-64.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        probability: Float or tensor that broadcasts to `shape`, such as a scalar. What
            is below 0 never happens, what is above 1 always.

    Returns:
        A `bool` tensor of the given shape.

    Example:
        >>> seed = hwa_keras.random.seed_from(7)
        >>> hits = hwa_keras.random.bernoulli((1000,), seed, 0.25)
        >>> 200 < int(ops.sum(ops.cast(hits, "int32"))) < 300
        True
    """
    first, second = bits(shape, seed)
    p = ops.clip(ops.cast(probability, "float32"), 0.0, 1.0) * 2.0**32
    # The largest float32 below 2**32: at p = 1 the conversion would overflow.
    whole = ops.minimum(ops.floor(p), 2.0**32 - 2.0**8)
    rest = ops.minimum((p - whole) * 2.0**32, 2.0**32 - 2.0**8)
    whole, rest = (ops.cast(part, "uint32") for part in (whole, rest))
    is_tie = ops.logical_and(ops.equal(first, whole), ops.less(second, rest))
    happens = ops.logical_or(ops.less(first, whole), is_tie)
    return ops.logical_or(happens, ops.greater_equal(p, 2.0**32))


def bernoulli_bits(
    shape: tuple[int, ...], seed: Seed, probabilities: Sequence[float | Tensor]
) -> Tensor:
    """Draw integers of which each bit is 1 with a probability of its own.

    Each bit compares a word of 32 random bits with its probability in units of 2**-32:
    no floating-point numbers are made.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        probabilities: List of up to 31 scalars from 0 to ½, that of the lowest bit
            first.

    Returns:
        An `int32` tensor of the given shape.
    """
    integers = ops.zeros(shape, "int32")
    for i, probability in enumerate(probabilities):
        if i % 2 == 0:
            words = bits(shape, fold_in(seed, i // 2))
        threshold = ops.cast(ops.cast(probability, "float32") * 2.0**32, "uint32")
        is_one = ops.cast(words[i % 2] < threshold, "int32")
        integers = ops.add(integers, ops.multiply(is_one, 2**i))
    return integers


def normal(shape: tuple[int, ...], seed: Seed, pair: bool = False) -> Tensor:
    """Draw standard normal `float32` numbers by the method of Box and Muller.

    Of two words of bits one gives the radius √(−2 ln u) and one the angle; the pair is
    the point's two coordinates.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        pair: Bool. When True, return two independent arrays for the price of one
            generator call. Defaults to `False`.

    Returns:
        A `float32` tensor of the given shape, or a pair of them. Magnitudes reach 5.77,
        as u is one of 2**23 mid-points; each is right to a relative error of 1e-6.

    Example:
        >>> z = hwa_keras.random.normal((3, 4), hwa_keras.random.seed_from(7))
        >>> z.shape == (3, 4)
        True
    """
    first, second = _normal_pair(seed, _indices(shape, seed))
    if pair:
        return ops.reshape(first, shape), ops.reshape(second, shape)
    return ops.reshape(first, shape)


def _indices(shape, seed):
    """The numbers of the elements, `uint32`, as a matrix of as many elements.

    TensorFlow computes whatever does not depend on a function's inputs as it compiles
    it, and keeps the result. Numbers of rows that depend on the seed, if only in name,
    leave it one row and one column to compute.
    """
    length = shape[-1] if shape else 1
    rows, columns = (
        ops.cast(ops.arange(count, dtype="int32"), "uint32")
        for count in (math.prod(shape[:-1]), length)
    )
    rows = ops.bitwise_or(rows, ops.bitwise_and(seed[:1], _word(0)))
    rows = ops.multiply(rows, ops.cast(length, "uint32"))
    return ops.add(ops.expand_dims(rows, 1), columns)


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


@backend.traced
def _folded(seed, data):
    data = ops.cast(ops.reshape(data, (1,)), "uint32")
    return ops.concatenate(_threefry(seed, data, ops.ones_like(data)))


@backend.traced
def _hash(seed, index):
    """Two words per index: the last two of pcg3d(index, key₀, key₁), folded."""
    zero = ops.zeros((1,), dtype="uint32")
    words = [
        ops.add(ops.multiply(v, _word(1664525)), _word(1013904223))
        for v in (index, *_threefry(seed, zero, zero))
    ]
    # The second fold is not in the paper: without it the lowest bits are not random.
    _, y, z = _fold(*_mix(*_fold(*_mix(*words))))
    return y, z


def _mix(x, y, z):
    x = ops.add(x, ops.multiply(y, z))
    y = ops.add(y, ops.multiply(z, x))
    z = ops.add(z, ops.multiply(x, y))
    return x, y, z


def _fold(*words):
    return [ops.bitwise_xor(v, ops.right_shift(v, _word(16))) for v in words]


def _to_unit(words):
    high = ops.cast(ops.right_shift(words, _word(9)), "float32")
    return (high + 0.5) * 2.0**-23


def _log(x):
    """ln x of positive `float32` numbers, from the exponent and the mantissa."""
    # Counted from √½ the mantissa is in [√½, √2): ln x keeps its digits about x = 1.
    words = backend.bitcast(x, "int32")
    exponent = ops.right_shift(ops.subtract(words, 0x3F3504F3), 23)
    rest = ops.subtract(words, ops.left_shift(exponent, 23))
    rest = backend.bitcast(rest, "float32") - 1.0
    logarithm = rest * _polynomial(_LOG, rest)
    return ops.cast(exponent, "float32") * math.log(2.0) + logarithm


def _polynomial(coefficients, x):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _to_circle(words):
    """cos θ and sin θ of angles uniform on the circle, from words of 32 random bits.

    The upper 23 bits are an angle φ = πf/2 within ±π/4, two of the others its quarter.
    """
    f = _to_unit(words) - 0.5
    long = _polynomial(_COS, f * f)
    short = f * _polynomial(_SIN, f * f)
    long = ops.where(_has_bit(words, 0), long, -long)
    is_upright = _has_bit(words, 1)
    return ops.where(is_upright, short, long), ops.where(is_upright, long, short)


def _has_bit(words, i):
    return ops.not_equal(ops.bitwise_and(words, _word(1 << i)), _word(0))


@backend.traced
def _normal_pair(seed, index):
    first, second = _hash(seed, index)
    radius = ops.sqrt(-2.0 * _log(_to_unit(first)))
    cos, sin = _to_circle(second)
    return radius * cos, radius * sin
