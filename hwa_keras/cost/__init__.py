"""What a model costs: parameters, memory and its energy, operations by their bits."""

from hwa_keras.cost.counting import summary
from hwa_keras.cost.energy import (
    PJ_PER_BIT,
    WIDE_RESNET_28_10_WEIGHTS,
    KernelEnergy,
    MemoryEnergy,
    memory_energy,
)
from hwa_keras.cost.result import LayerSummary, ModelSummary

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
