"""Perturbations: W_q → W̃, and what circuits do to the outputs of layers.

A noise is called as `noise(w, seed)` and returns the perturbed tensor; the gradient
passes as if nothing had happened, dW̃/dW = 1. How strong it is stands in its `scale`
variable, so that a callback may ramp it without retracing. The same objects perturb
layer outputs.
"""

from hwa_keras.noise.base import Compose, Noise, family, leaves
from hwa_keras.noise.bit_flip import BitFlip
from hwa_keras.noise.defects import ChipNoise, DropConnect, ProcessVariation, StuckAt
from hwa_keras.noise.gaussian import (
    AdditiveGaussian,
    MultiplicativeGaussian,
    ProgrammingNoise,
)
from hwa_keras.noise.outputs import ADC, DAC, Accumulator, OutputNoise, Saturation

get = family.get
serialize = family.serialize
deserialize = family.deserialize

__all__ = [
    "ADC",
    "Accumulator",
    "AdditiveGaussian",
    "BitFlip",
    "ChipNoise",
    "Compose",
    "DAC",
    "DropConnect",
    "MultiplicativeGaussian",
    "Noise",
    "OutputNoise",
    "ProcessVariation",
    "ProgrammingNoise",
    "Saturation",
    "StuckAt",
    "deserialize",
    "get",
    "leaves",
    "serialize",
]
