"""Ranges of converters: checks, grids of codes, bounds from data.

Pure functions. A range is a pair (low, high), or a bound r that stands for (−r, r); x,
low, high and r have the unit of the signal.
"""

import functools
import math

from keras import ops

from hwa_keras import backend
from hwa_keras.quantizers.base import (
    in_float32,
    is_number,
    passed_within,
    with_pseudo_gradient,
)

__all__ = [
    "batch_bound",
    "checked_bits",
    "checked_bound",
    "checked_pair",
    "checked_range",
    "example_bound",
    "largest_code",
    "quantized_between",
    "quantized_within",
    "step_between",
    "sum_within",
    "vector_bound",
]


def checked_bits(bits, fewest=1, most=16):
    """`bits` as an `int`, or `ValueError` where it is none from `fewest` to `most`."""
    if isinstance(bits, bool) or bits not in range(fewest, most + 1):
        raise ValueError(
            f"`bits` must be an integer from {fewest} to {most}. Received: "
            f"bits={bits!r}."
        )
    return int(bits)


def checked_pair(low, high, finite=True):
    """The ends of a range as floats, or `ValueError` where they are none."""
    numbers = is_number(low) and is_number(high) and low < high
    if not numbers or (finite and not (math.isfinite(low) and math.isfinite(high))):
        raise ValueError(
            f"A range must be two {'finite ' if finite else ''}numbers, the lower one "
            f"first. Received: low={low!r}, high={high!r}."
        )
    return float(low), float(high)


def checked_bound(value, name="range"):
    """A bound r as a float, or `ValueError` where it is not positive and finite."""
    if not (is_number(value) and 0 < value < math.inf):
        raise ValueError(
            f"`{name}` must be a positive, finite number. Received: {name}={value!r}."
        )
    return float(value)


def checked_range(value, names=()):
    """A range as an argument of a converter: a pair of floats, or a name.

    Args:
        value: A positive number r for (−r, r), a pair (low, high), or a name.
        names: Tuple of the names that are allowed.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(value, str) and value in names:
        return value
    if is_number(value):
        bound = checked_bound(value)
        return -bound, bound
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return checked_pair(*value)
    raise ValueError(
        "`range` must be a positive number r for (-r, r), a pair (low, high), or one "
        f"of {', '.join(map(repr, names))}. Received: range={value!r}."
    )


def largest_code(bits):
    """Q = 2^(bits − 1) − 1: the codes of a symmetric range are −Q … Q."""
    return 2 ** (bits - 1) - 1


def step_between(bits, low, high):
    """The distance Δ of neighboring codes of a fixed range.

    Δ = (high − low)/(2^bits − 1); on a symmetric range Δ = (high − low)/(2^bits − 2),
    which leaves one code out and makes zero a code (Rasch et al., 2021,
    arXiv:2104.02184).
    """
    return (high - low) / (2**bits - (2 if low == -high else 1))


def quantized_between(x, low, high, step):
    """Convert on a fixed range: y = low + Δ·round((clip(x, low, high) − low)/Δ).

    On a symmetric range, of which zero is a code, that is y = Δ·round(clip(x)/Δ).

    Args:
        x: Float tensor of any shape. Half precision is computed in `float32`.
        low: Float, the lower end.
        high: Float, the upper end.
        step: Float, Δ.

    Returns:
        A tensor of the shape and dtype of `x`. dy/dx = 1 for low ≤ x ≤ high, else 0.

    Example:
        >>> from hwa_keras.circuits.ranges import quantized_between
        >>> y = quantized_between(np.array([-1.0, 1.4, 9.0], "float32"), 0.0, 3.0, 1.0)
        >>> [float(v) for v in y]
        [0.0, 1.0, 3.0]
    """

    origin = 0.0 if low == -high else low

    def forward(x):
        x = ops.clip(x, low, high)
        if origin == 0.0:  # Two passes over memory less.
            return ops.round(x / step) * step
        return ops.round((x - origin) / step) * step + origin

    return with_pseudo_gradient(x, forward, passed_within(low, high))


def quantized_within(x, bounds, bits, clips=True, fused=False):
    """Convert on a symmetric range: y = r·round(clip(x/r, −1, 1)·Q)/Q.

    Args:
        x: Float tensor of any shape. Half precision is computed in `float32`.
        bounds: Tensor r ≥ 0 that broadcasts with `x`, or a tuple of its factors; 1 is
            taken where it is 0, which is where nothing is converted but zeros.
        bits: Integer ≥ 2; Q = 2^(bits − 1) − 1.
        clips: Bool. False spares the clipping where r is known to be at least |x|.
        fused: Bool. Whether both directions are one compiled pass over memory each.

    Returns:
        A tensor of the shape and dtype of `x`. dy/dx = 1 for |x| ≤ r, else 0; no
        gradient reaches r.
    """
    x = ops.convert_to_tensor(x)
    bounds = bounds if isinstance(bounds, tuple) else (bounds,)
    dtype = in_float32(x).dtype
    bounds = [
        ops.stop_gradient(ops.cast(ops.convert_to_tensor(b), dtype)) for b in bounds
    ]
    convert, pass_back = _directions(bits, clips, fused)
    return with_pseudo_gradient(
        x,
        lambda x: convert(x, *bounds),
        lambda x, upstream: pass_back(x, upstream, *bounds),
    )


def sum_within(stacks, bounds, bits):
    """Σ over row tiles of `quantized_within`, one compiled pass each way.

    Args:
        stacks: List of float tensors `[k, G, n, c]`, of K row tiles in all.
        bounds: List of the factors of r ≥ 0: scalars, or tensors that broadcast with
            `[K, G, n, c]`.
        bits: Integer ≥ 2.

    Returns:
        A tensor `[n, G·c]` of the dtype of the sums.
    """
    bounds = [
        ops.stop_gradient(ops.cast(b, in_float32(stacks[0]).dtype)) for b in bounds
    ]
    convert, pass_back = _directions_of_tiles(bits)

    @ops.custom_gradient
    def total(*stacks):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return tuple(pass_back(list(stacks), upstream, bounds))

        return convert(list(stacks), bounds), gradient

    return total(*stacks)


def batch_bound(x):
    """r = max|x| over the whole tensor, as a scalar; 1 where all is zero.

    Example:
        >>> from hwa_keras.circuits.ranges import batch_bound
        >>> float(batch_bound(np.array([[1.0, -3.0], [0.0, 2.0]], "float32")))
        3.0
    """
    return ops.stop_gradient(_one_for_zero(ops.max(ops.abs(in_float32(x)))))


def example_bound(x):
    """r = max|x| of each example, of shape `[batch, 1, ..., 1]`; 1 where all is zero.

    Raises:
        ValueError: If `x` has no axis but that of the batch.

    Example:
        >>> from hwa_keras.circuits.ranges import example_bound
        >>> r = example_bound(np.array([[1.0, -3.0], [0.0, 2.0]], "float32"))
        >>> [float(v) for v in r[:, 0]]
        [3.0, 2.0]
    """
    if len(x.shape) < 2:
        raise ValueError(
            "range='example_max' takes the maximum over all axes but the first, so "
            f"inputs need at least two. Received: shape {tuple(x.shape)}. Take "
            "range='batch_max' here."
        )
    axes = tuple(range(1, len(x.shape)))
    largest = ops.max(ops.abs(in_float32(x)), axis=axes, keepdims=True)
    return ops.stop_gradient(_one_for_zero(largest))


def vector_bound(x):
    """r = max|x| along the last axis, which stays as one of size 1; 1 where all is 0.

    The noise management of IBM's aihwkit, which scales each input vector by its largest
    magnitude (`NoiseManagementType.ABS_MAX`; Gokmen et al., 2017, arXiv:1705.08014).

    Example:
        >>> from hwa_keras.circuits.ranges import vector_bound
        >>> r = vector_bound(np.array([[1.0, -3.0], [0.0, 2.0]], "float32"))
        >>> [float(v) for v in r[:, 0]]
        [3.0, 2.0]
    """
    largest = ops.max(ops.abs(in_float32(x)), axis=-1, keepdims=True)
    return ops.stop_gradient(_one_for_zero(largest))


@functools.cache
def _directions(bits, clips, fused):
    """The functions of `quantized_within`, forward and backward."""
    codes = float(largest_code(bits))

    def convert(x, *bounds):
        bound = _one_for_zero(math.prod(bounds))
        scaled = x * (codes / bound)
        if clips:
            scaled = ops.clip(scaled, -codes, codes)
        return ops.round(scaled) * (bound / codes)

    def pass_back(x, upstream, *bounds):
        inside = ops.abs(x) <= _one_for_zero(math.prod(bounds))
        return ops.where(inside, upstream, ops.zeros_like(upstream))

    if fused:
        convert, pass_back = backend.fuse(convert), backend.fuse(pass_back)
    return convert, pass_back if clips else lambda x, upstream, *bounds: upstream


@functools.cache
def _directions_of_tiles(bits):
    """The functions of `sum_within`, forward and backward."""
    convert_one, pass_one_back = _directions(bits, clips=True, fused=False)

    def of(tiles, bounds):
        return [b if len(b.shape) == 0 or b.shape[0] == 1 else b[tiles] for b in bounds]

    def convert(stacks, bounds):
        tiles = [z for s in stacks for z in ops.split(in_float32(s), s.shape[0])]
        total = ops.zeros_like(tiles[0])
        for k, z in enumerate(tiles):
            total = total + convert_one(z, *of(slice(k, k + 1), bounds))
        _, groups, _, width = total.shape
        total = ops.reshape(ops.transpose(total[0], (1, 0, 2)), (-1, groups * width))
        return ops.cast(total, stacks[0].dtype)

    def pass_back(stacks, upstream, bounds):
        _, groups, _, width = stacks[0].shape
        upstream = ops.reshape(upstream, (-1, groups, width))
        upstream = ops.expand_dims(ops.transpose(upstream, (1, 0, 2)), 0)
        found, k = [], 0
        for stack in stacks:
            own = of(slice(k, k + stack.shape[0]), bounds)
            found.append(pass_one_back(in_float32(stack), upstream, *own))
            k += stack.shape[0]
        return found

    return backend.fuse(convert), backend.fuse(pass_back)


def _one_for_zero(bound):
    return ops.where(bound > 0, bound, ops.ones_like(bound))
