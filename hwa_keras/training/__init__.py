"""Training: sharpness-aware steps, and callbacks for hardware-aware fits."""

from hwa_keras.training import callbacks
from hwa_keras.training.callbacks import (
    ConstrainKernels,
    LaNMax,
    NoiseRamp,
    RhoSchedule,
    UniformNoise,
)
from hwa_keras.training.perturbation import Perturbation
from hwa_keras.training.sharpness_aware import SharpnessAwareModel

__all__ = [
    "ConstrainKernels",
    "LaNMax",
    "NoiseRamp",
    "Perturbation",
    "RhoSchedule",
    "SharpnessAwareModel",
    "UniformNoise",
    "callbacks",
]
