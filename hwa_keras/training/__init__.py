"""Training: sharpness-aware steps, and callbacks for hardware-aware fits."""

from hwa_keras.training import callbacks
from hwa_keras.training.callbacks import (
    Budget,
    ConstrainKernels,
    EpochBackup,
    LaNMax,
    NoiseRamp,
    ResetStates,
    RhoSchedule,
    SeedEpochs,
    SilentLayers,
    UniformNoise,
    WeightRemap,
)
from hwa_keras.training.distiller import Distiller
from hwa_keras.training.part_rates import PartRates, PartwiseAdam, PartwiseSGD
from hwa_keras.training.perturbation import Perturbation
from hwa_keras.training.sharpness_aware import SharpnessAwareModel
from hwa_keras.training.top_k import TopKDistillation, with_top_k

__all__ = [
    "Budget",
    "ConstrainKernels",
    "Distiller",
    "EpochBackup",
    "LaNMax",
    "NoiseRamp",
    "PartRates",
    "PartwiseAdam",
    "PartwiseSGD",
    "Perturbation",
    "ResetStates",
    "RhoSchedule",
    "SeedEpochs",
    "SharpnessAwareModel",
    "SilentLayers",
    "TopKDistillation",
    "UniformNoise",
    "WeightRemap",
    "callbacks",
    "with_top_k",
]
