r"""Phase-change memory: programming noise, drift and read noise.

Conductances g are in µS, times in seconds since the end of programming; ĝ = g/g_max.
The functions are the physics, one formula each; `PCM` joins them for differential
pairs of devices and `SimplePCM` is the reduced model of several published training
scripts.

Reference:
    - Nandakumar et al., "Phase-change memory models for deep learning training and
      inference", ICECS 2019.
    - Joshi et al., "Accurate deep neural network inference using computational
      phase-change memory", Nature Communications 2020, arXiv:1906.03138.
    - Rasch et al., "Hardware-aware training for large-scale and diverse deep learning
      inference using in-memory computing-based accelerators", Nature Electronics
      2023, arXiv:2302.08469.
"""

import math
from dataclasses import dataclass

from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checks import check_not_negative, check_positive
from hwa_keras.core.types import Seed, Tensor
from hwa_keras.devices.conductance import polynomial
from hwa_keras.devices.device import (
    Device,
    check_per,
    register,
    weight_range,
)
from hwa_keras.devices.drifting import DriftingDevice, flicker_factor
from hwa_keras.devices.mapping import Mapping, Pairs, check_mapping

_COEFFICIENTS = (0.26348, 1.9650, -1.1731)  # µS, fitted at g_max = 25 µS
_G_MAX_OF_FIT = 25.0
_SMALLEST = 1e-7  # of g_max, where the logarithm of ĝ is cut
_RECTIFIED = 0.5 - 0.5 / math.pi  # The variance of max(z, 0) of a standard normal z.
# E|r + z| of a standard normal z, for 0 ≤ r ≤ 2.5, in powers of r²: least squares.
_MAGNITUDE = (0.79885537, 0.39297743, -0.02739845, 0.00131924)


def programming_std(g, g_max=25.0):
    """Standard deviation of programming noise, in µS.

    σ = (c₀ + c₁ĝ + c₂ĝ²)·g_max/25 with c = (0.26348, 1.9650, −1.1731) µS.

    Args:
        g: Target conductances, µS.
        g_max: Largest conductance, µS.
    """
    return polynomial(_COEFFICIENTS, g / g_max) * (g_max / _G_MAX_OF_FIT)


def programming_error(g, z, g_max=25.0, scale=1.0):
    """What programming adds to target conductances, in µS: max(scale·σ(g)·z, −g).

    The bound keeps the programmed conductance g + error from being negative.

    Args:
        g: Target conductances, µS.
        z: Standard normal numbers of the same shape.
        g_max: Largest conductance, µS.
        scale: Factor on the standard deviation.
    """
    return ops.maximum(programming_std(g, g_max) * z * scale, -g)


def drift_moments(log_g):
    """Mean and standard deviation of drift exponents, before they are made positive.

    μ_ν = clip(−0.0155·ln ĝ + 0.0244, 0.049, 0.1),
    σ_ν = clip(−0.0125·ln ĝ − 0.0059, 0.008, 0.045).

    Args:
        log_g: ln ĝ, the logarithm of target conductances over g_max.

    Returns:
        A pair of tensors.
    """
    mean = ops.clip(-0.0155 * log_g + 0.0244, 0.049, 0.1)
    return mean, ops.clip(-0.0125 * log_g - 0.0059, 0.008, 0.045)


def read_quotient(log_g):
    """Q = min(0.0088/max(ĝ^0.65, 10⁻³), 0.2), of ln ĝ: read noise over conductance."""
    return ops.minimum(0.0088 / ops.maximum(ops.exp(0.65 * log_g), 1e-3), 0.2)


def drift_exponent(g, z, g_max=25.0):
    """Drift exponents of devices: ν = |μ_ν + σ_ν·z|; see `drift_moments`.

    Args:
        g: Target conductances, µS.
        z: Standard normal numbers of the same shape.
        g_max: Largest conductance, µS.
    """
    mean, std = drift_moments(ops.log(ops.maximum(g / g_max, _SMALLEST)))
    return ops.abs(mean + std * z)


def read_std(g_t, g_programmed, t, g_max=25.0, t0=20.0, t_read=250e-9):
    """Standard deviation of 1/f read noise accumulated until a time, in µS.

    σ = g(t)·Q·√ln((t + t₀ + t_r)/(2·t_r)), Q = min(0.0088/max(ĝ^0.65, 10⁻³), 0.2),
    with ĝ the programmed conductance over g_max.

    Args:
        g_t: Conductances at the time, µS.
        g_programmed: Conductances right after programming, µS.
        t: Seconds since the end of programming.
        g_max: Largest conductance, µS.
        t0: Seconds from programming to the first read of the characterization.
        t_read: Duration of a read, seconds.
    """
    q = read_quotient(ops.log(ops.maximum(g_programmed / g_max, _SMALLEST)))
    return g_t * q * flicker_factor(t + t0, t_read)


def _mean_magnitude(mean, std, axes):
    """The mean |x| over axes, of normal numbers x of means ≥ 0."""
    ratio = mean / ops.maximum(std, 1e-20)
    near = std * polynomial(_MAGNITUDE, ratio**2)
    return ops.mean(ops.where(ratio < 2.5, near, mean), axis=axes, keepdims=True)


@register("pcm")
@dataclass(frozen=True)
class PCM(DriftingDevice):
    """Phase-change memory, the full statistical model, as differential pairs.

    By default a weight is held by two devices: w = α·(g⁺ − g⁻)/g_max with targets
    g⁺ = max(w, 0)·g_max/α, g⁻ = max(−w, 0)·g_max/α and α the largest magnitude of the
    kernel (or of the column). Each device gets programming noise, a drift exponent of
    its own and, at each read, 1/f noise; no conductance falls below zero.

    Args:
        g_max: Largest conductance, µS. Defaults to `25.0`.
        programming_scale: Factor on the programming noise. Defaults to `1.0`.
        drift_scale: Factor on the drift exponents. Defaults to `1.0`.
        drift_spread: Factor on the spread of the drift exponents around their mean.
            Defaults to `1.0`.
        read_scale: Factor on the read noise. Defaults to `1.0`.
        t0: Seconds from programming to the first read of the characterization.
            Defaults to `20.0`.
        t_read: Duration of a read, seconds. Defaults to `250e-9`.
        per: `"layer"` maps each kernel (each tile, if it is cut into tiles) to the full
            conductance range by its largest magnitude, `"column"` each output column
            by its own. Defaults to `"layer"`.
        mapping: A `Pairs`, `BitSlices` or `OffsetColumn`: how devices hold a weight.
            Defaults to one pair.

    Example:
        >>> device = hwa_keras.devices.PCM()
        >>> w = keras.ops.convert_to_tensor([[0.5, -0.25], [0.0, 1.0]])
        >>> state = device.program(w, hwa_keras.random.seed_from(1))
        >>> device.read(state, t=3600.0).shape == (2, 2)
        True

    Reference:
        - Nandakumar et al., ICECS 2019; Rasch et al., 2023, arXiv:2302.08469.
    """

    g_max: float = 25.0
    programming_scale: float = 1.0
    drift_scale: float = 1.0
    drift_spread: float = 1.0
    read_scale: float = 1.0
    t0: float = 20.0
    t_read: float = 250e-9
    per: str = "layer"
    mapping: Mapping = Pairs()

    def __post_init__(self):
        check_positive("PCM", g_max=self.g_max, t0=self.t0, t_read=self.t_read)
        check_not_negative(
            "PCM",
            programming_scale=self.programming_scale,
            drift_scale=self.drift_scale,
            drift_spread=self.drift_spread,
            read_scale=self.read_scale,
        )
        check_per("PCM", self.per)
        check_mapping("PCM", self.mapping)

    def programming_std(self, g: Tensor) -> Tensor:
        return self.programming_scale * programming_std(g, self.g_max)

    def drift_exponent(self, g: Tensor, z: Tensor) -> Tensor:
        return self.drift_scale * drift_exponent(g, self.drift_spread * z, self.g_max)

    def read_std(self, g_t: Tensor, g_programmed: Tensor, t: float | Tensor) -> Tensor:
        return read_std(g_t, g_programmed, t, self.g_max, self.t0, self.t_read)

    def perturb(
        self, weights: Tensor, seed: Seed, scale: float | Tensor = 1.0
    ) -> Tensor:
        if self.mapping != Pairs():
            return super().perturb(weights, seed, scale)
        largest, written = weight_range(weights, self.per)
        g = ops.abs(weights) * (self.g_max / largest)
        z_written, z_empty = (
            ops.cast(z, weights.dtype)
            for z in random.normal(ops.shape(weights), seed, pair=True)
        )
        scale = scale * self.programming_scale * written
        # The device of the weight's own sign, less its partner, whose target is zero.
        error = programming_error(g, z_written, self.g_max, scale)
        empty_std = programming_std(0.0, self.g_max)
        error = error - ops.maximum(empty_std * z_empty * scale, 0.0)
        error = ops.where(weights < 0, -error, error)
        return weights + error * (largest / self.g_max)

    def perturb_at(
        self,
        weights: Tensor,
        seed: Seed,
        t: float | Tensor,
        scale: float | Tensor = 1.0,
        gain: str | None = "tile",
    ) -> Tensor:
        if self.mapping != Pairs():
            return super().perturb_at(weights, seed, t, scale, gain)
        largest, written = weight_range(weights, self.per)
        x = ops.abs(weights) / largest
        aged = self._aged(x, ops.cast(t, weights.dtype), seed, gain)
        aged = ops.where(weights < 0, -aged, aged) * (largest * written)
        return weights + scale * (aged - weights)

    def _aged(self, x, t, seed, gain):
        """What pairs of devices, of which one is empty, are read as at a time.

        In units of the largest weight. The empty device is drawn with the mean of what
        its drift and its reads make of it; their variance is added to the read noise.
        The factor that compensates follows from expected magnitudes, as a mean over
        many devices does.

        Args:
            x: Tensor `[..., rows, columns]`, the targets of the other devices, 0 to 1.
        """
        shape = ops.shape(x)
        z_written, z_empty = random.normal(shape, random.fold_in(seed, 0), pair=True)
        z_nu, z_read = random.normal(shape, random.fold_in(seed, 1), pair=True)
        log_age = ops.log((t + self.t0) / self.t0)
        flicker = self.read_scale * flicker_factor(t + self.t0, self.t_read)
        empty_std = self.programming_scale * _COEFFICIENTS[0] / _G_MAX_OF_FIT
        empty_left, empty_variance = self._empty(log_age, flicker, empty_std)

        log_x = ops.log(ops.maximum(x, _SMALLEST))
        mean_nu, std_nu = drift_moments(log_x)
        std_nu = self.drift_spread * std_nu
        std = self.programming_scale * programming_std(x, 1.0)
        q = flicker * read_quotient(log_x)
        written = ops.maximum(x + std * z_written, 0.0)
        nu = self.drift_scale * ops.abs(mean_nu + std_nu * z_nu)
        now = written * ops.exp(-nu * log_age)
        now = now + ops.sqrt((q * now) ** 2 + empty_variance) * z_read
        now = now - empty_left * ops.maximum(z_empty, 0.0)
        if gain is None:
            return now
        # What is left of the conductances, and all deviations, by their expectations.
        spread = self.drift_scale * std_nu * log_age
        left = ops.exp(0.5 * spread**2 - self.drift_scale * mean_nu * log_age)
        relative = (1.0 + q**2) * ops.exp(spread**2) - 1.0
        variance = (left * std) ** 2 + relative * (left * x) ** 2 + empty_variance
        noise = ops.sqrt(variance + _RECTIFIED * empty_left**2)
        noise_before = ops.sqrt(std**2 + _RECTIFIED * empty_std**2)
        axes = (-2, -1) if gain == "tile" else (-2,)
        before = _mean_magnitude(x, noise_before, axes)
        after = _mean_magnitude(left * x, noise, axes)
        return now * ops.where(after > 0, before / ops.where(after > 0, after, 1.0), 1)

    def _empty(self, log_age, flicker, std):
        """What an empty device, rectified noise of a deviation, becomes with time.

        Returns:
            A pair of scalars: the factor on a rectified standard normal number that
            keeps the mean, and the variance that it lacks.
        """
        mean_nu, std_nu = drift_moments(ops.convert_to_tensor(math.log(_SMALLEST)))
        std_nu = self.drift_spread * std_nu
        spread = self.drift_scale * std_nu * log_age
        left = ops.exp(0.5 * spread**2 - self.drift_scale * mean_nu * log_age)
        # Where it conducts much, and its read noise is of weight: √(E z⁴/E z²) = √3.
        log_g = ops.convert_to_tensor(math.log(max(math.sqrt(3.0) * std, _SMALLEST)))
        noise = flicker * read_quotient(log_g)
        second = ops.exp(spread**2) * left**2 * (1.0 + noise**2)
        return std * left, 0.5 * std**2 * (second - left**2)


@register("simple_pcm")
@dataclass(frozen=True)
class SimplePCM(Device):
    """Phase-change memory with one device per weight and one drift exponent.

    Programming adds noise of σ = α·(c₀ + c₁|w|/α + c₂w²/α²)/25 with the coefficients
    of `PCM` and α the largest magnitude of the kernel; nothing is clipped. Drift
    multiplies every weight by (t/t₀)^(−ν) for t > t₀ and leaves it alone before.
    Reads are exact.

    Args:
        nu: Drift exponent. Defaults to `0.05`.
        t0: Seconds before drift sets in. Defaults to `20.0`.
        programming_scale: Factor on the programming noise. Defaults to `1.0`.
        per: `"layer"` or `"column"`, as in `PCM`. Defaults to `"layer"`.

    Example:
        >>> device = hwa_keras.devices.SimplePCM(programming_scale=0.0)
        >>> w = keras.ops.convert_to_tensor([1.0, -0.5])
        >>> state = device.program(w, hwa_keras.random.seed_from(1))
        >>> year = device.read(state, t=31_536_000.0)
        >>> round(float(year[0]), 4)
        0.4899

    Reference:
        - The reduced form of Rasch et al., 2023, arXiv:2302.08469, equations 2 and 3.
    """

    nu: float = 0.05
    t0: float = 20.0
    programming_scale: float = 1.0
    per: str = "layer"

    def __post_init__(self):
        check_positive("SimplePCM", t0=self.t0)
        check_not_negative(
            "SimplePCM", nu=self.nu, programming_scale=self.programming_scale
        )
        check_per("SimplePCM", self.per)

    def program(self, weights: Tensor, seed: Seed) -> dict[str, Tensor]:
        return {"weights": self.perturb(weights, seed)}

    def read(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        return state["weights"] / self.oracle_gain(state, t)

    def perturb(
        self, weights: Tensor, seed: Seed, scale: float | Tensor = 1.0
    ) -> Tensor:
        largest, written = weight_range(weights, self.per)
        std = programming_std(ops.abs(weights) / largest, 1.0)
        z = ops.cast(random.normal(ops.shape(weights), seed), weights.dtype)
        return weights + std * z * (scale * self.programming_scale) * largest * written

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        """(t/t₀)^ν after t₀, and 1 before."""
        return ops.exp(self.nu * ops.log(ops.maximum(t / self.t0, 1.0)))
