"""DriftNoise: weights as they are read at a random time after programming."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from hwa_keras import devices
from hwa_keras.core import random
from hwa_keras.core.checks import check_choice
from hwa_keras.core.types import Config, Seed, Tensor
from hwa_keras.noise.base import Noise, family

__all__ = ["DriftNoise"]

_YEAR = 31_536_000.0
_GAINS = {"none": None, "measured": "tile", "measured_columns": "column"}


@family.register("drift_noise")
class DriftNoise(Noise):
    """The noise of weights that are read at any time in the life of a chip.

    `ProgrammingNoise` trains for the second after programming. Here, at each call, the
    weights are written to the device, left alone for a time t that is drawn between
    two, log-uniformly, each device with a drift exponent of its own, read with read
    noise, and compensated: W̃ = W + scale·(γ·W_t − W). Each kernel of a model draws a
    time of its own, so that a training step sees several ages at once.

    Args:
        device: A device that drifts, or its name. Defaults to `"pcm"`.
        times: Pair of seconds since the end of programming, 0 < earliest ≤ latest, or
            one number. Defaults to a second and a year.
        compensation: What γ is: `"measured"`, mean |W₀| / mean |W_t| over a kernel
            (over each of its tiles, if it is cut into some); `"measured_columns"`, one
            for each column; or `"none"`. Defaults to `"measured"`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Raises:
        ValueError: If an argument is out of its range, or the device cannot be read at
            one of the times.

    Example:
        >>> noise = hwa_keras.noise.DriftNoise(hwa_keras.devices.PCM(per="column"))
        >>> w = np.random.normal(size=(8, 4)).astype("float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (8, 4)
        True

    Reference:
        - Joshi et al., 2020, arXiv:1906.03138, for the drift and its compensation.
    """

    def __init__(
        self,
        device: str | devices.Device = "pcm",
        times: float | Sequence[float] = (1.0, _YEAR),
        compensation: str = "measured",
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(scale=scale, **kwargs)
        self.device = devices.get(device)
        if self.device is None:
            raise ValueError("`device` must be a device or its name. Received: None.")
        self.times = _checked_times(self.device, times)
        check_choice("DriftNoise", tuple(_GAINS), compensation=compensation)
        self.compensation = compensation
        self._tiling = None

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        self._tiling = None if kernel.tiling.is_single else kernel.tiling
        self._fused = None

    def identity(self) -> Any:
        return self.device, self.times, self.compensation, self._tiling

    def draw_time(self, seed: Seed) -> Tensor:
        """A time in seconds, log-uniform between the two, from a seed."""
        low, high = map(math.log, self.times)
        return ops.exp(low + (high - low) * random.uniform((), seed))

    def perturb(self, w: Tensor, seed: Seed, scale: Tensor) -> Tensor:
        t = ops.cast(self.draw_time(random.fold_in(seed, 0)), w.dtype)
        seed = random.fold_in(seed, 1)
        scale, gain = ops.cast(scale, w.dtype), _GAINS[self.compensation]
        if self._tiling is None:
            return self.device.perturb_at(w, seed, t, scale, gain)
        tiles = self._tiling.cut(w)
        return self._tiling.join(self.device.perturb_at(tiles, seed, t, scale, gain))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "device": devices.serialize(self.device),
            "times": list(self.times),
            "compensation": self.compensation,
        }


def _checked_times(device, times):
    """The pair (earliest, latest) of a pair or a number."""
    pair = times if isinstance(times, (list, tuple)) else (times, times)
    numbers = all(isinstance(t, (int, float)) and not isinstance(t, bool) for t in pair)
    if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] < math.inf:
        raise ValueError(
            "`times` of DriftNoise must be a pair of seconds, 0 < earliest ≤ latest, "
            f"or one number of seconds. Received: times={times!r}."
        )
    return tuple(device.check_time(t) for t in pair)
