"""Training: sharpness-aware steps, and callbacks for hardware-aware fits."""

from hwa_keras.training import callbacks
from hwa_keras.training.callbacks import (
    ConstrainKernels,
    LaNMax,
    NoiseRamp,
    ResetStates,
    RhoSchedule,
    SeedEpochs,
    UniformNoise,
    WeightRemap,
)
from hwa_keras.training.distiller import Distiller
from hwa_keras.training.perturbation import Perturbation
from hwa_keras.training.sharpness_aware import SharpnessAwareModel

__all__ = [
    "ConstrainKernels",
    "Distiller",
    "LaNMax",
    "NoiseRamp",
    "Perturbation",
    "ResetStates",
    "RhoSchedule",
    "SeedEpochs",
    "SharpnessAwareModel",
    "UniformNoise",
    "WeightRemap",
    "callbacks",
]
