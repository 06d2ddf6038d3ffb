"""Callbacks that steer the hardware while a model trains."""

from hwa_keras.training.callbacks.backup import EpochBackup
from hwa_keras.training.callbacks.budget import Budget
from hwa_keras.training.callbacks.constrain import ConstrainKernels
from hwa_keras.training.callbacks.epochs import ResetStates, SeedEpochs
from hwa_keras.training.callbacks.lanmax import LaNMax
from hwa_keras.training.callbacks.remap import WeightRemap
from hwa_keras.training.callbacks.schedules import (
    NoiseRamp,
    RhoSchedule,
    UniformNoise,
    noises_of,
)
from hwa_keras.training.callbacks.silent import SilentLayers

__all__ = [
    "Budget",
    "ConstrainKernels",
    "EpochBackup",
    "LaNMax",
    "NoiseRamp",
    "ResetStates",
    "RhoSchedule",
    "SeedEpochs",
    "SilentLayers",
    "UniformNoise",
    "WeightRemap",
    "noises_of",
]
