"""What a model costs: parameters, memory and its energy, operations by their bits."""

from hwa_keras.profile.energy import (
    PJ_PER_BIT,
    WIDE_RESNET_28_10_WEIGHTS,
    KernelEnergy,
    MemoryEnergy,
    memory_energy,
)
from hwa_keras.profile.result import LayerSummary, ModelSummary
from hwa_keras.profile.summary import summary

__all__ = [
    "PJ_PER_BIT",
    "WIDE_RESNET_28_10_WEIGHTS",
    "KernelEnergy",
    "LayerSummary",
    "MemoryEnergy",
    "ModelSummary",
    "memory_energy",
    "summary",
]
