"""A noise as a device: chips that differ, and do not age."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
from keras import ops

from hwa_keras import devices
from hwa_keras.core import random
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Seed, Selector, Self, Tensor
from hwa_keras.devices.device import Device
from hwa_keras.noise.base import Noise, family

DeviceLike: TypeAlias = str | Device | Noise
"""A device, its name, or a noise that leaves weights as a device would."""

DeviceRules: TypeAlias = Sequence[tuple[Selector, DeviceLike | None]]
"""Pairs of a selector of layers and the device of their kernels; None is digital."""


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True, eq=False)
class NoiseDevice(Device):
    """Holds weights as a noise leaves them: W̃ drawn once per chip, exact reads.

    Args:
        noise: A `hwa_keras.noise.Noise`.
    """

    noise: Noise
    drifts = False
    is_array = False
    _identity: tuple = field(init=False, repr=False, default=())

    def for_kernel(self, kernel: Any) -> "NoiseDevice":
        own = self.noise.for_kernel(kernel)
        return self if own is self.noise else NoiseDevice(own)

    def program(self, weights: Tensor, seed: Seed) -> dict[str, Tensor]:
        # What a noise holds for one chip is drawn from the seed of this chip.
        strength = self.noise.strength(chip=seed)
        return {"weights": self.noise.perturb(weights, seed, strength)}

    def read(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        return state["weights"] + 0.0 * t  # The time stays an input of exports.

    def perturb(
        self, weights: Tensor, seed: Seed, scale: float | Tensor = 1.0
    ) -> Tensor:
        return self.noise.perturb(weights, seed, self.noise.strength(scale, seed))

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        return ops.ones(())

    def __post_init__(self):
        # What was compiled for a device is reused for an equal one, and may hold the
        # strength of the noise as a constant: another strength is another device.
        strength = keras.tree.flatten(self.noise.strength(chip=random.seed_from(0)))
        values = [ops.convert_to_numpy(value).tobytes() for value in strength]
        object.__setattr__(self, "_identity", (id(self.noise), *values))

    def __eq__(self, other):
        return isinstance(other, NoiseDevice) and self._identity == other._identity

    def __hash__(self):
        return hash(self._identity)

    def __repr__(self):
        config = self.noise.get_config()
        plain = keras.layers.Layer().get_config()
        own = {k: v for k, v in config.items() if k not in plain}
        arguments = ", ".join(f"{key}={value!r}" for key, value in own.items())
        return f"{type(self.noise).__name__}({arguments})"

    def get_config(self) -> Config:
        return {"noise": family.serialize(self.noise)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(family.deserialize(config["noise"]))


def as_device(identifier: DeviceLike | None) -> Device | None:
    """A device from a device, its name, or a noise."""
    if isinstance(identifier, Noise):
        return NoiseDevice(identifier)
    return devices.get(identifier)
