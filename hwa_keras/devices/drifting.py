"""DriftingDevice: conductances that follow a power law of time, read with 1/f noise."""

import math
from dataclasses import dataclass

from keras import ops

from hwa_keras.core import random
from hwa_keras.core.types import Seed, Tensor
from hwa_keras.devices.conductance import ConductanceDevice
from hwa_keras.devices.device import sum_of_tiles

__all__ = ["DriftingDevice", "drift", "flicker_factor"]


def drift(g, nu, t, t0=20.0):
    """Conductances after a time: g(t) = g·((t + t₀)/t₀)^(−ν), in µS.

    Args:
        g: Programmed conductances, µS.
        nu: Drift exponents.
        t: Seconds since the end of programming.
        t0: Seconds from programming to the first read of the characterization.
    """
    return g * ops.exp(-nu * ops.log((t + t0) / t0))


def flicker_factor(t, t_read):
    """What 1/f noise has grown by at a time: √ln((t + t_r)/(2·t_r)).

    Args:
        t: Seconds since programming; at most t_r, there is no noise yet.
        t_read: t_r, the duration of a read, seconds.
    """
    # ln in two terms: float32 holds neither the ratio nor t + t_r exactly.
    log_ratio = ops.log(t + t_read) - math.log(2.0 * t_read)
    return ops.sqrt(ops.maximum(log_ratio, 0.0))


@dataclass(frozen=True, eq=False)  # Equal by what a subclass holds.
class DriftingDevice(ConductanceDevice):
    """A technology whose conductances drift: g(t) = g·((t + t₀)/t₀)^(−ν).

    Each device draws an exponent ν of its own when it is written. A subclass writes
    `programming_std`, `drift_exponent` and, where reads are noisy, `read_std`.

    Attributes:
        t0: Float, seconds from programming to the first read of the characterization.
        read_scale: Float, factor on the read noise; 0 for exact reads.
    """

    t0 = 20.0
    read_scale = 1.0

    def drift_exponent(self, g: Tensor, z: Tensor) -> Tensor:
        """Drift exponents of devices.

        Args:
            g: Tensor of target conductances, µS.
            z: Standard normal numbers of the same shape.
        """
        raise NotImplementedError

    def read_std(self, g_t: Tensor, g_programmed: Tensor, t: float | Tensor) -> Tensor:
        """Standard deviation of read noise, µS.

        Args:
            g_t: Tensor of conductances at the time, µS.
            g_programmed: Tensor of conductances right after programming, µS.
            t: Scalar, seconds since the end of programming.
        """
        raise NotImplementedError

    def write(self, g: Tensor, seed: Seed) -> dict[str, Tensor]:
        written = super().write(g, random.fold_in(seed, 0))
        z = random.normal(ops.shape(g), random.fold_in(seed, 1))
        return {**written, "nu": self.drift_exponent(g, z)}

    def conductances(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        g_t = drift(state["g"], state["nu"], t, self.t0)
        if z is not None:
            std = self.read_std(g_t, state["g"], t)
            g_t = ops.maximum(g_t + self.read_scale * std * z, 0.0)
        return g_t

    def draw_read_noise(self, shape: tuple[int, ...], seed: Seed) -> Tensor | None:
        if self.read_scale == 0:
            return None
        return random.normal(self.mapping.shape(shape), seed)

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        """((t + t₀)/t₀)^ν with ν the mean exponent, weighted by conductance."""
        total = ops.sum(sum_of_tiles(state["g"]), axis=0)
        weighted = ops.sum(sum_of_tiles(state["g"] * state["nu"]), axis=0)
        nu = ops.divide_no_nan(weighted, total)
        return ops.exp(nu * ops.log((t + self.t0) / self.t0))
