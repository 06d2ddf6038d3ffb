"""Perturbations: W_q → W̃, and what circuits do to the outputs of layers.

A noise is called as `noise(w, seed)` and returns the perturbed tensor; the gradient
passes as if nothing had happened, dW̃/dW = 1. How strong it is stands in its `scale`
variable, so that a callback may ramp it without retracing. The same objects perturb
layer outputs.
"""

from hwa_keras.noise.base import Compose, Noise, family, leaves
from hwa_keras.noise.bit_flip import BitFlip
from hwa_keras.noise.defects import (
    ChipNoise,
    DropConnect,
    ProcessVariation,
    StuckAt,
    SynapticMismatch,
)
from hwa_keras.noise.drift_noise import DriftNoise
from hwa_keras.noise.gaussian import (
    AdditiveGaussian,
    MultiplicativeGaussian,
    ProgrammingNoise,
)
from hwa_keras.noise.noise_device import NoiseDevice, as_device

get = family.get
serialize = family.serialize
deserialize = family.deserialize
register = family.register

__all__ = [
    "AdditiveGaussian",
    "BitFlip",
    "ChipNoise",
    "Compose",
    "DriftNoise",
    "DropConnect",
    "MultiplicativeGaussian",
    "Noise",
    "NoiseDevice",
    "ProcessVariation",
    "ProgrammingNoise",
    "StuckAt",
    "SynapticMismatch",
    "deserialize",
    "get",
    "as_device",
    "leaves",
    "register",
    "serialize",
]

_CIRCUITS = ("ADC", "DAC", "Accumulator", "OutputNoise", "Saturation")


def __getattr__(name):
    """The circuits at the ends of an array, which stand on this package."""
    if name in _CIRCUITS:
        from hwa_keras import circuits

        return getattr(circuits, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
