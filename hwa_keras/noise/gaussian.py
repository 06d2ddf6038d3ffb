"""Gaussian noise, as it is found on chips."""

from typing import Any

from keras import ops

from hwa_keras import devices
from hwa_keras.core import random
from hwa_keras.core.checks import check_not_negative
from hwa_keras.core.types import Config, Seed, Tensor
from hwa_keras.noise.base import Noise, family

__all__ = ["AdditiveGaussian", "MultiplicativeGaussian", "ProgrammingNoise"]


@family.register("additive_gaussian")
class AdditiveGaussian(Noise):
    """Adds Gaussian noise of one standard deviation to every weight.

    W̃ = W + scale·σ·z with σ = std·max|W| (`relative_to="max"`), std times the standard
    deviation of W (`"std"`), or std (`"absolute"`). With std = σ_g/g_u relative to the
    maximum this is additive conductance noise of σ_g µS on a crossbar whose devices
    reach g_u µS.

    Args:
        std: Float ≥ 0.
        relative_to: `"max"`, `"std"` or `"absolute"`. Defaults to `"max"`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.AdditiveGaussian(std=0.94 / 25)
        >>> w = np.ones((2, 3), "float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (2, 3)
        True

    Reference:
        - Joshi et al., 2020, arXiv:1906.03138.
    """

    def __init__(
        self, std: float, relative_to: str = "max", scale: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(scale=scale, **kwargs)
        check_not_negative("AdditiveGaussian", std=std)
        if relative_to not in ("max", "std", "absolute"):
            raise ValueError(
                "`relative_to` must be 'max', 'std' or 'absolute'. Received: "
                f"relative_to={relative_to!r}."
            )
        self.std = float(std)
        self.relative_to = relative_to

    def identity(self) -> Any:
        return self.std, self.relative_to

    def perturb(self, w: Tensor, seed: Seed, scale: Tensor) -> Tensor:
        std = self.std * ops.cast(scale, w.dtype)
        if self.relative_to == "max":
            std = std * ops.max(ops.abs(w))
        elif self.relative_to == "std":
            std = std * ops.std(w)
        return w + std * ops.cast(random.normal(ops.shape(w), seed), w.dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "std": self.std,
            "relative_to": self.relative_to,
        }


@family.register("multiplicative_gaussian")
class MultiplicativeGaussian(Noise):
    """Multiplies every weight by a Gaussian number of mean 1: W̃ = W·(1 + scale·std·z).

    The conductance variation whose signal-to-noise ratio no larger conductance helps.

    Args:
        std: Float ≥ 0.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.MultiplicativeGaussian(std=0.1)
        >>> w = np.zeros(3, "float32")
        >>> [float(v) for v in noise(w, hwa_keras.random.seed_from(7))]
        [0.0, 0.0, 0.0]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.38.
    """

    def __init__(self, std: float, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)
        check_not_negative("MultiplicativeGaussian", std=std)
        self.std = float(std)

    def identity(self) -> Any:
        return (self.std,)

    def perturb(self, w: Tensor, seed: Seed, scale: Tensor) -> Tensor:
        z = ops.cast(random.normal(ops.shape(w), seed), w.dtype)
        return w + w * (self.std * ops.cast(scale, w.dtype) * z)

    def get_config(self) -> Config:
        return {**super().get_config(), "std": self.std}


@family.register("programming_noise")
class ProgrammingNoise(Noise):
    """The noise that writing weights to a device leaves in them.

    The weights as `device.program` would write them, drawn anew at each call, the
    standard deviation multiplied by `scale`. A kernel that is cut into tiles is written
    tile by tile, each with a conductance range of its own.

    Args:
        device: A device or its name. Defaults to `"pcm"`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.ProgrammingNoise(hwa_keras.devices.PCM())
        >>> w = np.random.normal(size=(8, 4)).astype("float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (8, 4)
        True

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469.
    """

    def __init__(
        self, device: str | devices.Device = "pcm", scale: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(scale=scale, **kwargs)
        self.device = devices.get(device)
        if self.device is None:
            raise ValueError("`device` must be a device or its name. Received: None.")
        self._tiling = None

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        self._tiling = None if kernel.tiling.is_single else kernel.tiling
        self._fused = None

    def identity(self) -> Any:
        return self.device, self._tiling

    def perturb(self, w: Tensor, seed: Seed, scale: Tensor) -> Tensor:
        scale = ops.cast(scale, w.dtype)
        if self._tiling is None:
            return self.device.perturb(w, seed, scale)
        tiles = self.device.perturb(self._tiling.cut(w), seed, scale)
        return self._tiling.join(tiles)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "device": devices.serialize(self.device),
        }
