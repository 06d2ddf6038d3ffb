"""CustomDevice: a technology of one's own, from tables of what was measured."""

import math
from dataclasses import dataclass

from keras import ops

from hwa_keras.core.checks import check_positive, is_number
from hwa_keras.core.types import Tensor
from hwa_keras.devices.device import check_per, register
from hwa_keras.devices.drifting import DriftingDevice
from hwa_keras.devices.mapping import Mapping, Pairs, check_mapping

__all__ = ["CustomDevice", "interpolate"]


@register("custom_device")
@dataclass(frozen=True)
class CustomDevice(DriftingDevice):
    """Devices whose errors were measured at some conductances.

    Between these conductances all is interpolated linearly, and beyond them the values
    at the ends hold. A device of target g is written as max(g + σ(g)·z, 0) and drifts
    by ((t + t₀)/t₀)^(−ν), ν = μ_ν(g) + σ_ν(g)·z, which may be negative. A read adds
    σ_r(g(t))·z. No conductance falls below zero.

    Args:
        levels: Two or more floats ≥ 0 that increase: the conductances of the tables,
            µS. Each adds an operation: take tens, not thousands.
        programming_stds: As many floats ≥ 0, σ of programming, µS.
        exponents: As many floats, μ_ν; None for no drift.
        exponent_stds: As many floats ≥ 0, σ_ν from device to device; None for none.
        read_stds: As many floats ≥ 0, σ_r of a read of devices that have this
            conductance then, µS; None for exact reads.
        g_min: Float ≥ 0, the lowest conductance, of a device that holds nothing, µS;
            None for the first of the levels.
        g_max: Float > g_min, the highest, µS; None for the last of the levels.
        t0: Float > 0, seconds before drift sets in. Defaults to `1.0`.
        per: `"layer"` or `"column"`, as in `PCM`. Defaults to `"layer"`.
        mapping: How devices hold a weight, as in `PCM`. Defaults to one pair.

    Raises:
        ValueError: If the levels do not increase, a table has another length than
            they, a σ is negative or the range reaches beyond the levels.

    Example:
        >>> device = hwa_keras.devices.CustomDevice(
        ...     levels=[0.0, 10.0, 20.0],
        ...     programming_stds=[0.2, 0.6, 0.8],
        ...     exponents=[0.1, 0.05, 0.05],
        ... )
        >>> [round(float(device.programming_std(g)), 3) for g in (0.0, 5.0, 20.0)]
        [0.2, 0.4, 0.8]
    """

    levels: tuple
    programming_stds: tuple
    exponents: tuple | None = None
    exponent_stds: tuple | None = None
    read_stds: tuple | None = None
    g_min: float = None  # type: ignore[assignment]
    g_max: float = None  # type: ignore[assignment]
    t0: float = 1.0
    per: str = "layer"
    mapping: Mapping = Pairs()

    def __post_init__(self):
        levels = _checked_table("levels", self.levels, least=0.0)
        if len(levels) < 2 or any(
            b <= a for a, b in zip(levels, levels[1:], strict=False)
        ):
            raise ValueError(
                "`levels` of CustomDevice must be two or more conductances, each above "
                f"the one before it. Received: levels={self.levels!r}."
            )
        object.__setattr__(self, "levels", levels)
        for name in ("programming_stds", "exponents", "exponent_stds", "read_stds"):
            self._set_table(name)
        if self.exponent_stds is not None and self.exponents is None:
            raise ValueError(
                "`exponent_stds` of CustomDevice are about the mean `exponents`, which "
                "are missing. Give them, as in exponents=[0.0, 0.0]."
            )
        self._set_range()
        check_positive("CustomDevice", t0=self.t0)
        check_per("CustomDevice", self.per)
        check_mapping("CustomDevice", self.mapping)

    def _set_table(self, name):
        values = getattr(self, name)
        if values is None and name != "programming_stds":
            return
        least = -math.inf if name == "exponents" else 0.0
        table = _checked_table(name, values, least)
        if len(table) != len(self.levels):
            raise ValueError(
                f"`{name}` of CustomDevice must have one number for each of the "
                f"{len(self.levels)} levels. Received {len(table)}: {name}={values!r}."
            )
        object.__setattr__(self, name, table)

    def _set_range(self):
        for name, end in (("g_min", self.levels[0]), ("g_max", self.levels[-1])):
            if getattr(self, name) is None:
                object.__setattr__(self, name, end)
        check_positive("CustomDevice", g_max=self.g_max)
        lowest, highest = self.levels[0], self.levels[-1]
        if not lowest <= self.g_min < self.g_max <= highest:
            raise ValueError(
                "`g_min` and `g_max` of CustomDevice must be a range within the "
                f"levels, {lowest} to {highest} µS, g_min below g_max. Received: "
                f"g_min={self.g_min!r}, g_max={self.g_max!r}."
            )

    @property
    def drifts(self) -> bool:
        return self.exponents is not None

    @property
    def read_scale(self) -> float:
        return 0.0 if self.read_stds is None else 1.0

    def programming_std(self, g: Tensor) -> Tensor:
        return interpolate(g, self.levels, self.programming_stds)

    def drift_exponent(self, g: Tensor, z: Tensor) -> Tensor:
        zeros = (0.0,) * len(self.levels)
        mean = interpolate(g, self.levels, self.exponents or zeros)
        return mean + interpolate(g, self.levels, self.exponent_stds or zeros) * z

    def read_std(self, g_t: Tensor, g_programmed: Tensor, t: float | Tensor) -> Tensor:
        return interpolate(g_t, self.levels, self.read_stds)


def interpolate(x, knots, values):
    """Linear interpolation between knots; beyond them the values at the ends.

    f(x) = y₀ + Σ_i (y_{i+1} − y_i)·clip((x − x_i)/(x_{i+1} − x_i), 0, 1).

    Args:
        x: Tensor.
        knots: Sequence of floats that increase, x_i.
        values: As many floats, y_i.
    """
    x = ops.convert_to_tensor(x)
    found = values[0] * ops.ones_like(x)
    for i in range(len(knots) - 1):
        step = values[i + 1] - values[i]
        if step:
            share = (x - knots[i]) / (knots[i + 1] - knots[i])
            found = found + step * ops.clip(share, 0.0, 1.0)
    return found


def _checked_table(name, values, least):
    """A table as a tuple of finite floats, none below `least`."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, (list, tuple)) or not all(map(is_number, values)):
        raise ValueError(
            f"`{name}` of CustomDevice must be a sequence of numbers. Received: "
            f"{name}={values!r}."
        )
    for value in values:
        if not (math.isfinite(value) and value >= least):
            sign = " and not negative" if least == 0 else ""
            raise ValueError(
                f"`{name}` of CustomDevice must hold numbers that are finite{sign}. "
                f"Received: {value!r} in {name}={values!r}."
            )
    return tuple(map(float, values))
