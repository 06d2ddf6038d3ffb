"""Packing: kernels of few distinct values as codes of a few bits, in NumPy.

A kernel with n distinct values is written as digits in base n, k of them in one byte
(nᵏ ≤ 256: eight binary, five ternary or two 4-bit weights), and read back through a
table of nᵏ rows that holds the k values of each byte. Where only a scale per channel
keeps a kernel from having few values, the scale is stored beside the digits.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["PackedKernel", "StoredKernel", "pack"]

MOST_VALUES = 256


@dataclass(frozen=True)
class StoredKernel:
    """How an exported model holds one of its kernels.

    Args:
        path: Where the kernel stands in the model.
        shape: Shape of the kernel.
        nbytes: Bytes that it takes: codes, table (which kernels of the same values
            share in the artefact) and scale, or plain floats.
        float_nbytes: Bytes that it would take as plain floats.
        values: Number of distinct values, after a scale per channel is taken out; 0
            for a kernel that is stored as floats.
        digits: Weights in one byte; 0 for a kernel that is stored as floats.
        scaled: Bool. Whether the codes are multiplied by a scale per channel.
        reason: Why the kernel is stored as floats; empty for a packed one.
    """

    path: str
    shape: tuple
    nbytes: int
    float_nbytes: int
    values: int = 0
    digits: int = 0
    scaled: bool = False
    reason: str = ""


@dataclass(frozen=True)
class PackedKernel:
    """A kernel as bytes; `pack` makes one.

    The weights are stored with the last axis, that of the output channels, first, as
    TensorFlow Lite wants them: it transposes nothing then.

    Args:
        codes: Array of uint8: k digits in base n each, the first weight in the least
            significant digit.
        values: The n values of a digit, float32.
        digits: k, the number of digits of a code.
        shape: Shape of the kernel.
        scale: What the values are multiplied with: an array that broadcasts with the
            stored weights, or None.
    """

    codes: np.ndarray
    values: np.ndarray
    digits: int
    shape: tuple
    scale: np.ndarray | None = None

    @property
    def stored_shape(self):
        """Shape of the kernel with its last axis first."""
        return (*self.shape[-1:], *self.shape[:-1])

    @property
    def size(self):
        """Number of weights."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self):
        """Bytes of codes, table and scale."""
        return (
            self.codes.nbytes + self.table().nbytes + getattr(self.scale, "nbytes", 0)
        )

    def table(self):
        """The values of each code: an array of shape (nᵏ, k)."""
        n = len(self.values)
        return self.values[np.arange(n**self.digits)[:, None] // _powers(self) % n]

    def unpack(self):
        """The kernel, every weight equal to the one that was packed."""
        weights = self.table()[self.codes].reshape(-1)[: self.size]
        weights = weights.reshape(self.stored_shape)
        if self.scale is not None:
            weights = weights * self.scale
        return np.moveaxis(weights, 0, -1)


def _powers(packed):
    return len(packed.values) ** np.arange(packed.digits)


def pack(kernel, scales=()):
    """Pack a kernel that has few distinct values.

    The values are tried as they are and divided by a scale: each of those given, and
    the largest magnitude along the last axis, the last two and every single axis. The
    smallest number of bytes, table included, decides on the scale and on the digits of
    a code. A zero loses its sign, and every other value keeps all its bits.

    Args:
        kernel: Array of at least one dimension.
        scales: Arrays that broadcast with the kernel: scales to try first, such as
            the one that a quantizer has learned.

    Returns:
        A `PackedKernel`.

    Raises:
        ValueError: If the kernel cannot be packed, or takes no fewer bytes packed.

    Example:
        >>> kernel = np.where(np.random.normal(size=(64, 8)) < 0, -0.5, 0.5)
        >>> packed = hwa_keras.deployment.packing.pack(kernel.astype("float32"))
        >>> packed.digits, packed.codes.nbytes, packed.nbytes, kernel.size * 4
        (3, 171, 267, 2048)
        >>> bool(np.all(packed.unpack() == kernel))
        True
    """
    kernel = np.asarray(kernel)
    if kernel.dtype != np.float32:
        raise ValueError(f"it is {kernel.dtype}, and float32 kernels alone are packed")
    if not np.all(np.isfinite(kernel)):
        raise ValueError("it holds NaN or infinite values")
    ways = _ways(np.moveaxis(kernel, -1, 0), _scales(kernel, scales))
    packed = [_packed(kernel.shape, *way) for way in ways]
    if not packed:
        raise ValueError(f"it has more than {MOST_VALUES} distinct values")
    smallest = min(packed, key=lambda candidate: candidate.nbytes)
    if smallest.nbytes >= kernel.nbytes:
        raise ValueError(
            f"its {len(smallest.values)} distinct values in {kernel.size} weights "
            "would take no fewer bytes packed"
        )
    return smallest


def _ways(stored, scales):
    """Triples (values, which of them each weight is, scale) that give the weights."""
    if plain := _plain_values(stored):
        yield plain
        if len(plain[0]) <= 3:
            return  # A scale cannot save anything worth having.
    for scale in scales:
        if scaled := _scaled_values(stored, scale):
            yield scaled


def _packed(shape, values, indices, scale):
    if len(values) == 1:
        values = np.repeat(values, 2)
    digits = _best_digits(len(values), indices.size)
    codes = _codes(indices.reshape(-1), len(values), digits)
    return PackedKernel(codes, values, digits, shape, scale)


def _codes(indices, n, digits):
    padded = np.zeros(-(-indices.size // digits) * digits, "int64")
    padded[: indices.size] = indices
    codes = padded.reshape(-1, digits) @ n ** np.arange(digits)
    return codes.astype("uint8")


def _best_digits(n, size):
    """How many digits in base n a byte should hold so that table and codes are small.

    The most that fit, but for small kernels, for which that table would be large.
    """
    fitting = [k for k in range(1, 9) if n**k <= 256]
    return min(fitting, key=lambda k: -(-size // k) + 4 * k * n**k)


def _plain_values(stored):
    """Distinct values, which of them each weight is, and no scale; or None."""
    # Most kernels that have too many values have them in any thousand weights.
    if np.unique(_some(stored)).size > MOST_VALUES:
        return None
    values, indices = np.unique(stored, return_inverse=True)
    if values.size > MOST_VALUES:
        return None
    return values + np.float32(0), indices.reshape(stored.shape), None


def _some(stored):
    return stored.reshape(-1)[:: max(1, stored.size // 4096)]


def _scales(kernel, given):
    """Scales to try, with their last axis first as the weights are stored."""
    rank = kernel.ndim
    for scale in given:
        scale = np.abs(np.asarray(scale, "float32"))
        shape = (1,) * (rank - scale.ndim) + scale.shape
        if len(shape) == rank and all(
            s in (1, n) for s, n in zip(shape, kernel.shape, strict=True)
        ):
            scale = np.where(scale > 0, scale, np.float32(1)).reshape(shape)
            yield np.moveaxis(scale, -1, 0)
    kept_axes = [(rank - 1,), *([(rank - 2, rank - 1)] if rank > 2 else [])]
    kept_axes += [(axis,) for axis in range(rank - 2, -1, -1)]
    for kept in kept_axes:
        others = tuple(axis for axis in range(rank) if axis not in kept)
        scale = np.max(np.abs(kernel), axis=others, keepdims=True)
        yield np.moveaxis(np.where(scale > 0, scale, np.float32(1)), -1, 0)


def _scaled_values(stored, scale):
    """Values v with v·scale = weight to the bit, which is whose, and scale; or None."""
    unit = stored.astype("float64") / scale
    grid = 2.0**18  # Fine against 256 values, coarse against the rounding of v·scale.
    if np.unique(np.round(_some(unit) * grid)).size > 2 * MOST_VALUES:
        return None
    near, which = np.unique(np.round(unit * grid), return_inverse=True)
    cluster = np.concatenate([[0], np.cumsum(np.diff(near) > 1.5)])
    if cluster[-1] >= MOST_VALUES:
        return None
    indices = cluster[which.reshape(-1)]
    count = int(cluster[-1]) + 1
    centers = np.bincount(indices, unit.reshape(-1), count) / np.bincount(indices)
    values = np.full(count, np.nan, "float32")
    weights = stored.reshape(-1)
    factors = np.broadcast_to(scale, stored.shape).reshape(-1)
    for steps in (0, 1, -1, 2, -2):
        trial = centers.astype("float32")
        for _ in range(abs(steps)):
            trial = np.nextafter(trial, np.float32(steps) * np.float32(np.inf))
        wrong = indices[trial[indices] * factors != weights]
        right = np.isnan(values) & (np.bincount(wrong, minlength=count) == 0)
        values = np.where(right, trial, values)
    if np.isnan(values).any():
        return None
    return values, indices.reshape(stored.shape), scale.astype("float32")
