"""ConductanceDevice: weights held by conductances, through a mapping."""

import math
from dataclasses import dataclass, fields
from typing import Any

from keras import ops

from hwa_keras.core import random
from hwa_keras.core.types import Config, Seed, Self, Tensor
from hwa_keras.devices.device import Device, weight_range
from hwa_keras.devices.mapping import Mapping, Pairs, mappings

__all__ = ["ConductanceDevice", "clipped_moments", "polynomial"]

_ONE_PAIR: Mapping = Pairs()


@dataclass(frozen=True, eq=False)  # Equal by what a subclass holds.
class ConductanceDevice(Device):
    """A technology that stores weights as conductances, in µS.

    A subclass is a frozen dataclass with the fields `per` and `mapping`. It writes
    `programming_std`, and where the conductances age `write` and `conductances`.

    Attributes:
        g_min: Float, the lowest conductance, of a device that holds nothing.
        g_max: Float, the highest that the devices can take.
    """

    g_min = 0.0
    g_max = 1.0
    per = "layer"
    mapping = _ONE_PAIR

    @property
    def g_u(self) -> Any:
        """The highest conductance in use, of the largest weight."""
        return self.g_max

    def with_range(self, g_u: float | tuple[float, ...]) -> Self:
        """This device with another highest conductance in use, µS."""
        raise NotImplementedError(
            f"{type(self).__name__} has no range that can be chosen. Take "
            "devices.Memristor(g_u=...)."
        )

    def programming_std(self, g: Tensor) -> Tensor:
        """Standard deviation of programming noise, in µS, at target conductances."""
        raise NotImplementedError(
            f"{type(self).__name__} has no formula for its programming noise."
        )

    def written(self, g: Tensor, z: Tensor) -> Tensor:
        """Conductances right after programming: max(g + σ(g)·z, 0).

        Args:
            g: Tensor of target conductances `[..., rows, columns]`, µS.
            z: Standard normal numbers of the same shape.
        """
        return ops.maximum(g + self.programming_std(g) * z, 0.0)

    def write(self, g: Tensor, seed: Seed) -> dict[str, Tensor]:
        """Write target conductances.

        Args:
            g: Tensor `[D, ..., rows, columns]`, µS.
            seed: `uint32` tensor of shape `(2,)`.

        Returns:
            The state of the devices: a dictionary of float tensors.
        """
        return {"g": self.written(g, random.normal(ops.shape(g), seed))}

    def conductances(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        """The conductances of all arrays at a time.

        Args:
            state: What `write` or `program` returned.
            t: Scalar, seconds since the end of programming.
            z: Standard normal numbers of the same shape, for read noise, or None.

        Returns:
            Tensor `[D, ..., rows, columns]`, µS.
        """
        return state["g"] + 0.0 * t  # The time stays an input of exports.

    def targets(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The conductances that are written for weights.

        Args:
            weights: Float tensor `[..., rows, columns]`.

        Returns:
            A pair: the conductances `[D, ..., rows, columns]`, µS, and the range of the
            weights that g_u stands for, which broadcasts with the weights: 0 where
            all are zero, so that nothing is read there.
        """
        largest, written = self.weight_range(weights)
        x = self.mapping.split(weights / largest)
        return self.g_min + (self.g_u - self.g_min) * x, largest * written

    def weight_range(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of `devices.device.weight_range` for this device."""
        return weight_range(weights, self.per)

    def to_weights(self, g: Tensor, largest: Tensor) -> Tensor:
        """The weights that conductances make: linear in `g`.

        Args:
            g: Tensor `[D, ..., rows, columns]`, µS.
            largest: The range that `targets` returned.
        """
        x = (g - self.g_min) / (self.g_u - self.g_min)
        return self.mapping.join(x) * largest

    def program(self, weights: Tensor, seed: Seed) -> dict[str, Tensor]:
        g, largest = self.targets(weights)
        return {**self.write(g, seed), "largest": largest}

    def read(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        return self.to_weights(self.conductances(state, t, z), state["largest"])

    def attenuation(self, g: Tensor, held: Tensor) -> Tensor:
        """What is left, in training, of the voltage at the devices of an array.

        Args:
            g: Tensor of target conductances `[..., rows, columns]`, µS.
            held: Tensor of the same shape, the conductances that were written, µS.

        Returns:
            A tensor of that shape, from 0 to 1, or 1: here nothing is lost.
        """
        return 1.0

    def perturb(self, weights: Tensor, seed: Seed, scale: float = 1.0) -> Tensor:
        if self.mapping == _ONE_PAIR:
            written = self._perturbed_pairs(weights, seed)
        else:
            g, largest = self.targets(weights)
            held = self.written(g, random.normal(ops.shape(g), seed))
            written = self.to_weights(held * self.attenuation(g, held), largest)
        return weights + scale * (written - weights)

    def _perturbed_pairs(self, weights, seed):
        """The same of one pair, one of them empty: one draw of bits does for both."""
        largest, is_written = self.weight_range(weights)
        unit = self.g_u - self.g_min
        low = ops.convert_to_tensor(self.g_min, weights.dtype)
        g = low + ops.abs(weights) * (unit / largest)
        z, z_empty = (
            ops.cast(z, weights.dtype)
            for z in random.normal(ops.shape(weights), seed, pair=True)
        )
        own, empty = self.written(g, z), self.written(low, z_empty)
        is_first = weights >= 0  # In which array of the pair the weight is.
        first, second = (
            self.attenuation(ops.where(there, g, low), ops.where(there, own, empty))
            for there in (is_first, ops.logical_not(is_first))
        )
        own = own * ops.where(is_first, first, second)
        empty = empty * ops.where(is_first, second, first)
        held = ops.where(is_first, own - empty, empty - own)
        return held * (largest * is_written / unit)

    def moments(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, right after programming, of conductances written as `g`.

        Args:
            g: Tensor of target conductances, µS.

        Returns:
            A pair of tensors of the same shape, µS and µS².
        """
        return clipped_moments(g, self.programming_std(g))

    def weight_moments(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the weights as they are read right after programming.

        Args:
            weights: Float tensor `[..., rows, columns]`.

        Returns:
            A pair of tensors of the shape of the weights.

        Raises:
            NotImplementedError: If the errors of different weights depend on each
                other, or if the device has no formula.

        Example:
            >>> w = ops.convert_to_tensor([[0.5, -1.0]])
            >>> device = hwa_keras.devices.Memristor(sigma=0.5)
            >>> mean, variance = device.weight_moments(w)
            >>> [round(float(v), 4) for v in mean[0]]  # The empty device adds 0.4 σ.
            [0.492, -0.992]
        """
        if not self.mapping.is_independent:
            raise NotImplementedError(
                f"With {self.mapping!r} the errors of different weights depend on each "
                "other, so that their variances alone tell no error. Take Pairs(), or "
                "method='monte_carlo'."
            )
        g, largest = self.targets(weights)
        mean, variance = self.moments(g)
        unit = 1.0 / (self.g_u - self.g_min)
        variance = self.mapping.join_variances(variance * unit**2) * largest**2
        return self.to_weights(mean, largest), variance

    def get_config(self) -> Config:
        config = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**config, "mapping": mappings.serialize(self.mapping)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "mapping": mappings.get(config["mapping"])})


def polynomial(coefficients, x):
    """c₀ + c₁·x + c₂·x² + …

    Args:
        coefficients: Tuple of floats, lowest power first.
        x: Tensor.
    """
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def clipped_moments(mean, std, low=0.0, high=math.inf):
    """Mean and variance of a normal number that is clipped to a range.

    With α = (low − mean)/std, β = (high − mean)/std, φ and Φ the density and the
    distribution of the normal, A = φ(α) + α·Φ(α) what the lower bound adds and B =
    φ(β) − β·(1 − Φ(β)) what the upper one takes away, both over std:
    E = mean + std·(A − B), Var = std²·(Φ(β) − Φ(α) + α·A − β·B − (A − B)²). At a mean
    of `low`, far below `high`, that is 0.399·std above it, with 0.341·std².

    Args:
        mean: Tensor.
        std: Tensor ≥ 0 that broadcasts with it. Where it is 0, nothing is clipped.
        low: Float, the lower bound. Defaults to `0.0`.
        high: Float, the upper bound. Defaults to infinity.

    Returns:
        A pair of tensors.
    """
    below, added, part = _beyond(mean - low, std)
    variance = 1.0 - below - part * added
    shift = added
    if high < math.inf:
        above, taken, part = _beyond(high - mean, std)
        variance = variance - above - part * taken
        shift = added - taken
    return mean + std * shift, std**2 * (variance - shift**2)


def _beyond(distance, std):
    """Of a standard normal z and a bound r = distance/std: P(z > r), E[(z − r)⁺], r."""
    safe = ops.where(std > 0, std, ops.ones_like(std))
    ratio = ops.where(std > 0, ops.minimum(distance / safe, 10.0), 10.0)
    density = ops.exp(-0.5 * ratio**2) / math.sqrt(2.0 * math.pi)
    share = 0.5 * (1.0 - ops.erf(ratio / math.sqrt(2.0)))
    return share, density - ratio * share, ratio
