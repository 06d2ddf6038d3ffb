r"""Resistive memories: conductances that scatter about their target, and relax.

Conductances g are in µS, times in seconds since the end of programming; ĝ = g/g_max.

Reference:
    - Wan et al., "A compute-in-memory chip based on resistive random-access memory",
      Nature 608, 2022.
    - Falcone et al., "All-in-one analog AI hardware: on-chip training and inference
      with conductive-metal-oxide/HfOx ReRAM devices", 2025, arXiv:2502.04524.
    - The numbers were fitted to these publications for IBM's aihwkit, Rasch et al.,
      "A flexible and fast PyTorch toolkit for simulating training and inference on
      analog crossbar arrays", AICAS 2021, arXiv:2104.02184.
"""

import math
from dataclasses import dataclass

from keras import ops

from hwa_keras import backend
from hwa_keras.core import random
from hwa_keras.core.checks import check_choice, check_not_negative, check_positive
from hwa_keras.core.types import Seed, Tensor
from hwa_keras.devices.conductance import (
    ConductanceDevice,
    clipped_moments,
    polynomial,
)
from hwa_keras.devices.device import check_per, check_time, register
from hwa_keras.devices.drifting import flicker_factor
from hwa_keras.devices.mapping import Mapping, Pairs, check_mapping

__all__ = ["ReRAMCMO", "ReRAMWan2022"]

# Coefficients of σ in ĝ, the lowest power first, µS at g_max = 40 µS, by time.
_DEVIATIONS = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    86_400.0: (0.701, 22.086, -50.773, 47.095, -16.458),
    172_800.0: (0.782, 20.274, -43.507, 37.062, -11.934),
}
_G_MAX_OF_DEVIATIONS = 40.0

# σ = c₀ + c₁·g of programming, µS, by the deviation that is accepted.
_PROGRAMMING = {0.02: (0.0112185391, 0.01129027418), 0.002: (0.00081107, 0.00106879)}
_RELAXATION_MEAN = -0.08900206  # µS, times ln t
_RELAXATION_STD = (0.41183342, 0.04201137)  # µS, the second times ln t
_READ_STD = 0.0277316483  # µS
_T_READ = 1e-6
_RANGE = (9.0, 88.2)  # µS, that were characterized


@register("reram_wan2022")
@dataclass(frozen=True)
class ReRAMWan2022(ConductanceDevice):
    """ReRAM of Wan et al., of which deviations are known at three times.

    A device of target g is read as max(g + σ(t, ĝ)·z, 0), σ being a polynomial of
    ĝ of the fourth degree. What was published are the deviations after 1 s, 1 day and
    2 days: no other time can be asked for, except 0, for which σ of 1 s is taken, and
    nothing is known of read noise. It is not known either how the deviations of one
    device at different times belong together: here its z is one number, drawn when it
    is written, so that it deviates in the same direction at all times and a chip that
    is read again holds the same weights.

    Args:
        g_max: Float > 0, largest conductance, µS; σ scales with it. Defaults to
            `40.0`, at which it was fitted.
        programming_scale: Float ≥ 0, factor on σ. Defaults to `1.0`.
        per: `"layer"` or `"column"`, as in `PCM`. Defaults to `"layer"`.
        mapping: How devices hold a weight, as in `PCM`. Defaults to one pair.

    Raises:
        ValueError: When it is read at a time that is not known.

    Example:
        >>> device = hwa_keras.devices.ReRAMWan2022()
        >>> w = ops.convert_to_tensor([[0.5, -0.25], [0.0, 1.0]])
        >>> state = device.program(w, hwa_keras.random.seed_from(1))
        >>> device.read(state, t=86_400.0).shape == (2, 2)
        True

    Reference:
        - Wan et al., Nature 608, 2022.
    """

    g_max: float = 40.0
    programming_scale: float = 1.0
    per: str = "layer"
    mapping: Mapping = Pairs()
    drifts = False

    def __post_init__(self):
        check_positive("ReRAMWan2022", g_max=self.g_max)
        check_not_negative("ReRAMWan2022", programming_scale=self.programming_scale)
        check_per("ReRAMWan2022", self.per)
        check_mapping("ReRAMWan2022", self.mapping)

    def check_time(self, t: float | Tensor) -> float:
        t = check_time(t)
        if t != 0 and t not in _DEVIATIONS:
            raise ValueError(
                "The deviations of ReRAMWan2022 are known at t = 0, 1, 86400 (1 day) "
                f"and 172800 s (2 days), and at no other time. Received: t={t}. Take "
                "one of these, or another device for times between them, such as "
                "ReRAMCMO or PCM."
            )
        return t

    def programming_std(self, g: Tensor) -> Tensor:
        return self.deviation_std(g, 0.0)

    def deviation_std(self, g: Tensor, t: float | Tensor) -> Tensor:
        """Standard deviation of conductances about their target, in µS.

        Args:
            g: Tensor of target conductances, µS.
            t: Scalar, a known time. In a graph, where its value cannot be seen, the
                known time that is nearest to it counts.
        """
        if not backend.is_symbolic(t):
            self.check_time(t)
        times = list(_DEVIATIONS)
        relative = g / self.g_max
        std = polynomial(_DEVIATIONS[times[0]], relative)
        for earlier, later in zip(times, times[1:], strict=False):
            is_later = t > 0.5 * (earlier + later)
            std = ops.where(is_later, polynomial(_DEVIATIONS[later], relative), std)
        return std * (self.programming_scale * self.g_max / _G_MAX_OF_DEVIATIONS)

    def write(self, g: Tensor, seed: Seed) -> dict[str, Tensor]:
        return {"g": g, "z": random.normal(ops.shape(g), seed)}

    def conductances(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        std = self.deviation_std(state["g"], t)
        return ops.maximum(state["g"] + std * state["z"], 0.0)

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        return ops.ones(())


@register("reram_cmo")
@dataclass(frozen=True)
class ReRAMCMO(ConductanceDevice):
    """Filamentary conductive-metal-oxide/HfOx ReRAM, programmed and verified.

    Programming leaves a deviation of σ = c₀ + c₁·g, the smaller the less is accepted.
    Then conductances relax, whatever their level: from t = 1 s on each is shifted by
    −0.089·ln t + (0.412 + 0.042·ln t)·z µS, z being drawn once for each device. The
    fit begins at 1 s: before, there is no relaxation here. Reads add 1/f noise of σ =
    0.0277·log₁₀(g(t))·√ln((t + t_r)/(2·t_r)) µS, t_r = 1 µs. All is clipped to
    [g_min, g_max].

    Args:
        acceptance: `0.02` or `0.002`, the deviation relative to the target at which
            programming stops. Defaults to `0.02`.
        g_min: Float, the lowest conductance, of a device that holds nothing, µS.
            Defaults to `9.0`.
        g_max: Float > g_min, the highest, µS. Defaults to `88.2`.
        programming_scale: Float ≥ 0, factor on the deviation that programming leaves.
            Defaults to `1.0`.
        drift_scale: Float ≥ 0, factor on the relaxation. Defaults to `1.0`.
        read_scale: Float ≥ 0, factor on the read noise. Defaults to `1.0`.
        per: `"layer"` or `"column"`, as in `PCM`. Defaults to `"layer"`.
        mapping: How devices hold a weight, as in `PCM`. Defaults to one pair.

    Raises:
        ValueError: If the range is not within the 9 to 88.2 µS that were
            characterized, or another argument is out of its range.

    Example:
        >>> device = hwa_keras.devices.ReRAMCMO(acceptance=0.002)
        >>> [round(float(device.programming_std(g)), 4) for g in (9.0, 88.2)]
        [0.0104, 0.0951]

    Reference:
        - Falcone et al., 2025, arXiv:2502.04524; read noise: Lombardo et al., Device
          Research Conference 2024.
    """

    acceptance: float = 0.02
    g_min: float = _RANGE[0]
    g_max: float = _RANGE[1]
    programming_scale: float = 1.0
    drift_scale: float = 1.0
    read_scale: float = 1.0
    per: str = "layer"
    mapping: Mapping = Pairs()

    def __post_init__(self):
        check_choice("ReRAMCMO", tuple(_PROGRAMMING), acceptance=self.acceptance)
        check_positive("ReRAMCMO", g_min=self.g_min, g_max=self.g_max)
        if not _RANGE[0] <= self.g_min < self.g_max <= _RANGE[1]:
            raise ValueError(
                "`g_min` and `g_max` of ReRAMCMO must be a range within the "
                f"{_RANGE[0]} to {_RANGE[1]} µS that were characterized, g_min below "
                f"g_max. Received: g_min={self.g_min}, g_max={self.g_max}."
            )
        check_not_negative(
            "ReRAMCMO",
            programming_scale=self.programming_scale,
            drift_scale=self.drift_scale,
            read_scale=self.read_scale,
        )
        check_per("ReRAMCMO", self.per)
        check_mapping("ReRAMCMO", self.mapping)

    def programming_std(self, g: Tensor) -> Tensor:
        c0, c1 = _PROGRAMMING[self.acceptance]
        return self.programming_scale * (c0 + c1 * g)

    def written(self, g: Tensor, z: Tensor) -> Tensor:
        return self._clip(g + self.programming_std(g) * z)

    def write(self, g: Tensor, seed: Seed) -> dict[str, Tensor]:
        z = random.normal(ops.shape(g), random.fold_in(seed, 0))
        return {
            "g": g + self.programming_std(g) * z,  # What is read is clipped.
            "z": random.normal(ops.shape(g), random.fold_in(seed, 1)),
        }

    def conductances(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        log_t = ops.log(ops.maximum(t, 1.0))
        c0, c1 = _RELAXATION_STD
        relaxed = _RELAXATION_MEAN * log_t + (c0 + c1 * log_t) * state["z"]
        has_begun = ops.cast(t >= 1.0, relaxed.dtype)
        g = self._clip(state["g"] + self.drift_scale * has_begun * relaxed)
        if z is None:
            return g
        std = _READ_STD / math.log(10.0) * ops.log(g) * flicker_factor(t, _T_READ)
        return self._clip(g + self.read_scale * std * z)

    def _clip(self, g):
        return ops.clip(g, self.g_min, self.g_max)

    def moments(self, g: Tensor) -> tuple[Tensor, Tensor]:
        return clipped_moments(g, self.programming_std(g), self.g_min, self.g_max)

    def draw_read_noise(self, shape: tuple[int, ...], seed: Seed) -> Tensor | None:
        if self.read_scale == 0:
            return None
        return random.normal(self.mapping.shape(shape), seed)

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        """1: a shift that all devices have in common is no factor on weights."""
        return ops.ones(())
