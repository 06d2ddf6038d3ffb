"""Mappings: how several devices hold one weight.

A mapping works on weights relative to their range, from −1 to 1, and on relative
conductances x = (g − g_min)/(g_u − g_min), from 0 to 1. It makes D arrays of the
conductances of a tile and puts the weights together again, linearly: what an array
computes, the sum of currents, is a sum of weights.

Reference:
    - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equations 3.32–3.35 (pairs).
    - Le Gallo et al., "A 64-core mixed-signal in-memory compute chip based on
      phase-change memory", Nature Electronics 2023 (several pairs a weight).
"""

import math
from dataclasses import asdict, dataclass

from keras import ops

from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Self, Tensor

__all__ = ["BitSlices", "Mapping", "OffsetColumn", "Pairs", "check_mapping", "mappings"]

mappings = Family("mapping")


@dataclass(frozen=True, eq=False)  # Equal by what a subclass holds.
class Mapping:
    """What every mapping tells.

    Attributes:
        is_independent: Bool. Whether the errors of different weights are independent:
            no device is a part of two weights.
    """

    is_independent = True

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape `[D, ..., rows, columns]` of the arrays for weights of a shape."""
        raise NotImplementedError

    def split(self, weights: Tensor) -> Tensor:
        """Relative conductances `[D, ..., rows, columns]` of relative weights."""
        raise NotImplementedError

    def join(self, x: Tensor) -> Tensor:
        """The relative weights that relative conductances make: linear in `x`."""
        raise NotImplementedError

    def join_variances(self, variances: Tensor) -> Tensor:
        """Variances of relative weights from those of relative conductances."""
        raise NotImplementedError

    def get_config(self) -> Config:
        return asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


mappings.base = Mapping


def check_mapping(owner, mapping):
    """Raise `TypeError` for what is no mapping."""
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"`mapping` of {owner} must be a Pairs(), a BitSlices(...) or an "
            f"OffsetColumn(). Received: {mapping!r}."
        )


class _SignedPairs(Mapping):
    """Mappings w = Σ_k f_k·(x⁺_k − x⁻_k): arrays `[+, ..., −, ...]`, one side empty."""

    @property
    def _factors(self):
        """f_k of each pair."""
        raise NotImplementedError

    def _parts(self, magnitudes):
        """x of the pairs, from magnitudes that broadcast with `[pairs, ...]`."""
        raise NotImplementedError

    def _per_pair(self, values, like):
        """A number of each pair, twice over, as a tensor that broadcasts."""
        shape = (-1, *(1,) * (len(like.shape) - 1))
        return ops.reshape(ops.convert_to_tensor(values, like.dtype), shape)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * len(self._factors), *shape)

    def split(self, weights: Tensor) -> Tensor:
        # Multiplied with signs, not put together of two sides: XLA keeps one loop.
        weights = ops.expand_dims(weights, 0)
        count = len(self._factors)
        signs = self._per_pair([1.0] * count + [-1.0] * count, weights)
        return self._parts(ops.maximum(signs * weights, 0.0))

    def join(self, x: Tensor) -> Tensor:
        factors = [*self._factors, *(-f for f in self._factors)]
        return ops.sum(self._per_pair(factors, x) * x, axis=0)

    def join_variances(self, variances: Tensor) -> Tensor:
        squares = [f * f for f in self._factors] * 2
        return ops.sum(self._per_pair(squares, variances) * variances, axis=0)


@mappings.register("pairs")
@dataclass(frozen=True)
class Pairs(_SignedPairs):
    """Differential pairs: w = Σ_k f_k·(x⁺_k − x⁻_k)/Σ_k f_k.

    The devices of a pair stand in two arrays, one of which is subtracted; the one that
    does not have the weight's sign stays at g_min.

    Args:
        significance: Tuple of floats > 0, f_k: one number for each pair of a weight, in
            the order in which they are filled. Defaults to `(1.0,)`, one pair.
        fill: `"equal"`: each pair holds the whole relative weight, so that its errors
            average out; `"least_first"`: the first pair is filled before the next one
            is begun. Defaults to `"equal"`.

    Example:
        >>> pairs = hwa_keras.devices.Pairs((1.0, 3.0), fill="least_first")
        >>> x = pairs.split(ops.convert_to_tensor([[0.5, -1.0]]))
        >>> [[round(float(v), 3) for v in row[0]] for row in x]
        [[1.0, 0.0], [0.333, 0.0], [0.0, 1.0], [0.0, 1.0]]
        >>> [float(v) for v in pairs.join(x)[0]]
        [0.5, -1.0]
    """

    significance: tuple = (1.0,)
    fill: str = "equal"

    def __post_init__(self):
        if not isinstance(self.significance, (list, tuple)) or not self.significance:
            raise ValueError(
                "`significance` of Pairs must be a tuple with a number for each pair, "
                f"such as (1.0, 1.0). Received: significance={self.significance!r}."
            )
        object.__setattr__(self, "significance", tuple(self.significance))
        for factor in self.significance:
            check_positive("Pairs", significance=factor)
        check_choice("Pairs", ("equal", "least_first"), fill=self.fill)

    @property
    def _factors(self):
        total = math.fsum(self.significance)
        return [factor / total for factor in self.significance]

    def _parts(self, magnitudes):
        if self.fill == "equal":
            return magnitudes
        factors = self._factors
        below = [math.fsum(factors[:k]) for k in range(len(factors))]
        below, factors = (self._per_pair(v * 2, magnitudes) for v in (below, factors))
        return ops.clip((magnitudes - below) / factors, 0.0, 1.0)


@mappings.register("bit_slices")
@dataclass(frozen=True)
class BitSlices(_SignedPairs):
    """Bit slices: each pair of devices holds some bits of the weight's magnitude.

    |w| is rounded to m/(2^(bits − 1) − 1); pair k holds the digit k of m in base
    2^bits_per_device, the lowest first: w = Σ_k 2^(k·b)·(2^b − 1)·(x⁺_k − x⁻_k) /
    (2^(bits − 1) − 1).

    Args:
        bits: Integer from 2 to 16, bits of a weight, sign included.
        bits_per_device: Integer ≥ 1, b.

    Example:
        >>> slices = hwa_keras.devices.BitSlices(bits=5, bits_per_device=2)
        >>> x = slices.split(ops.convert_to_tensor([[9 / 15]]))  # 9 = 2·4 + 1
        >>> [round(float(v), 3) for v in x[:, 0, 0]]
        [0.333, 0.667, 0.0, 0.0]
    """

    bits: int
    bits_per_device: int

    def __post_init__(self):
        check_count("BitSlices", bits_per_device=self.bits_per_device)
        if isinstance(self.bits, bool) or self.bits not in range(2, 17):
            raise ValueError(
                "`bits` of BitSlices must be an integer from 2 to 16. Received: "
                f"bits={self.bits!r}."
            )

    @property
    def _largest(self):
        return 2 ** (self.bits - 1) - 1

    @property
    def _base(self):
        return 2**self.bits_per_device

    @property
    def _factors(self):
        count = -(-(self.bits - 1) // self.bits_per_device)
        unit = (self._base - 1) / self._largest
        return [unit * self._base**k for k in range(count)]

    def _parts(self, magnitudes):
        m = ops.round(magnitudes * self._largest)
        powers = [float(self._base**k) for k in range(len(self._factors))]
        powers = self._per_pair(powers * 2, magnitudes)
        digits = ops.floor(m / powers) - self._base * ops.floor(m / powers / self._base)
        return digits / (self._base - 1)


@mappings.register("offset_column")
@dataclass(frozen=True)
class OffsetColumn(Mapping):
    """One device a weight and one column of each tile that is subtracted from all.

    x = (1 + w)/2, and ½ in the last column, which the tile has for this: w =
    2·(x − x_last). The errors of the last column are in all weights of a row.

    Example:
        >>> offset = hwa_keras.devices.OffsetColumn()
        >>> x = offset.split(ops.convert_to_tensor([[0.5, -1.0]]))
        >>> [float(v) for v in x[0, 0]]
        [0.75, 0.0, 0.5]
    """

    is_independent = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape[:-1], shape[-1] + 1)

    def split(self, weights: Tensor) -> Tensor:
        x = (1.0 + weights) / 2.0
        return ops.expand_dims(
            ops.concatenate([x, ops.full_like(x[..., :1], 0.5)], axis=-1), 0
        )

    def join(self, x: Tensor) -> Tensor:
        return 2.0 * (x[0][..., :-1] - x[0][..., -1:])

    def join_variances(self, variances: Tensor) -> Tensor:
        return 4.0 * (variances[0][..., :-1] + variances[0][..., -1:])
