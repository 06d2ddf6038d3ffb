"""Phase-change memory of the HERMES chip: one or two devices in a unit cell.

Conductances g are in µS, times in seconds since the end of programming; ĝ = g/g_max.
"""

from dataclasses import dataclass

from keras import ops

from hwa_keras.core.checks import check_choice, check_not_negative, check_positive
from hwa_keras.core.types import Tensor
from hwa_keras.devices.conductance import polynomial
from hwa_keras.devices.device import check_per, register
from hwa_keras.devices.drifting import DriftingDevice, flicker_factor
from hwa_keras.devices.mapping import Mapping, Pairs, check_mapping

__all__ = ["Hermes"]

_SMALLEST = 1e-7  # of g_max, where the logarithm of ĝ is cut


@dataclass(frozen=True)
class _Cell:
    """What was fitted to unit cells of one size.

    Polynomials of ĝ have the lowest power first. A branch is (bound, slope, offset,
    least, most): clip(slope·ln ĝ + offset, least, most) for ĝ below the bound, above
    it the polynomial that comes with it.
    """

    g_max: float
    t0: float
    programming: tuple
    exponent_std: tuple
    read: tuple


_EXPONENT_MEAN = (0.0945, -0.0387, -0.0182, 0.072, 0.13), (0.0736, -0.0126, -0.0436)
_CELLS = {
    1: _Cell(
        g_max=10.35,
        t0=200.0,
        programming=(0.15781817, 2.32443916, -2.16310839, 0.68841818),
        exponent_std=(
            (0.3039, -0.0120, -0.0023, 0.0124, 0.04),
            (0.0104, 0.0116, -0.0165),
        ),
        read=(
            (0.1591, -0.0078, 0.0038, 0.0179, 0.04),
            (0.0088, 0.0768, -0.1352, 0.0664),
        ),
    ),
    2: _Cell(
        g_max=20.7,
        t0=300.0,
        programming=(0.16603222, 4.71806468, -8.48101252, 4.68961419),
        exponent_std=(
            (0.3055, -0.0117, -0.0057, 0.0091, 0.04),
            (0.0073, 0.0093, -0.0118),
        ),
        read=(
            (0.16, -0.0117, -0.0069, 0.015, 0.04),
            (0.0123, 0.0211, -0.0280, 0.0069),
        ),
    ),
}


@register("hermes")
@dataclass(frozen=True)
class Hermes(DriftingDevice):
    """Phase-change memory of the IBM HERMES project chip.

    The conductance of a unit cell of one or two devices gets programming noise of a σ
    cubic in ĝ and drifts by ((t + t₀)/t₀)^(−ν), ν = |μ(ĝ) + σ(ĝ)·z|; reads add noise of
    σ = g(t)·Q(ĝ)·√ln((t + t₀ + t_r)/(2·t_r)), ĝ that of the programmed conductance. No
    conductance falls below zero. Cells of two devices drift as if both held the same.

    Args:
        devices: `1` or `2`, devices in a unit cell. Defaults to `2`.
        g_max: Float > 0, largest conductance, µS, up to the largest that was
            characterized: 10.35 for cells of one device, 20.7 for two, which None
            stands for.
        programming_scale: Float ≥ 0, factor on the programming noise. Defaults to
            `1.0`.
        drift_scale: Float ≥ 0, factor on the drift exponents. Defaults to `1.0`.
        read_scale: Float ≥ 0, factor on the read noise. Defaults to `1.0`.
        t0: Float > 0, seconds from programming to the first read of the
            characterization; None for 200 s with one device, 300 s with two.
        t_read: Float > 0, duration of a read, seconds. Defaults to `512e-9`.
        per: `"layer"` or `"column"`, as in `PCM`. Defaults to `"layer"`.
        mapping: How cells hold a weight, as in `PCM`. Defaults to one pair.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> device = hwa_keras.devices.Hermes(devices=1)
        >>> device.g_max, device.t0
        (10.35, 200.0)

    Reference:
        - Le Gallo et al., "A 64-core mixed-signal in-memory compute chip based on
          phase-change memory for deep neural network inference", Nature Electronics 6,
          2023.
        - Cells of two devices: Vasilopoulos et al., "Exploiting the state dependency of
          conductance variations in memristive devices for accurate in-memory
          computing", IEEE Transactions on Electron Devices 70(12), 2023.
        - The numbers are those of IBM's aihwkit, Rasch et al., 2021, arXiv:2104.02184.
    """

    devices: int = 2
    g_max: float = None  # type: ignore[assignment]
    programming_scale: float = 1.0
    drift_scale: float = 1.0
    read_scale: float = 1.0
    t0: float = None  # type: ignore[assignment]
    t_read: float = 512e-9
    per: str = "layer"
    mapping: Mapping = Pairs()

    def __post_init__(self):
        check_choice("Hermes", tuple(_CELLS), devices=self.devices)
        for name in ("g_max", "t0"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self._fit, name))
        check_positive("Hermes", g_max=self.g_max, t0=self.t0, t_read=self.t_read)
        if self.g_max > self._fit.g_max:
            raise ValueError(
                f"`g_max` of Hermes(devices={self.devices}) must be at most "
                f"{self._fit.g_max} µS, the largest that was characterized. Received: "
                f"g_max={self.g_max}."
            )
        check_not_negative(
            "Hermes",
            programming_scale=self.programming_scale,
            drift_scale=self.drift_scale,
            read_scale=self.read_scale,
        )
        check_per("Hermes", self.per)
        check_mapping("Hermes", self.mapping)

    @property
    def _fit(self):
        return _CELLS[self.devices]

    def programming_std(self, g: Tensor) -> Tensor:
        std = polynomial(self._fit.programming, g / self.g_max)
        return std * (self.programming_scale * self.g_max / self._fit.g_max)

    def drift_exponent(self, g: Tensor, z: Tensor) -> Tensor:
        relative = g / self.g_max
        mean = _branched(relative, *_EXPONENT_MEAN)
        std = _branched(relative, *self._fit.exponent_std)
        return self.drift_scale * ops.abs(mean + std * z)

    def read_std(self, g_t: Tensor, g_programmed: Tensor, t: float | Tensor) -> Tensor:
        q = _branched(g_programmed / self.g_max, *self._fit.read)
        return g_t * q * flicker_factor(t + self.t0, self.t_read)


def _branched(relative, branch, coefficients):
    """The logarithm below a bound of ĝ, and the polynomial above it; see `_Cell`."""
    bound, slope, offset, least, most = branch
    logarithm = ops.log(ops.maximum(relative, _SMALLEST))
    below = ops.clip(slope * logarithm + offset, least, most)
    return ops.where(relative < bound, below, polynomial(coefficients, relative))
