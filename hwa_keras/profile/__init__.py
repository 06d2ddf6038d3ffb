"""What a model costs: parameters, operations, the energy of memory and of arrays."""

from hwa_keras.profile.array_energy import array_energy
from hwa_keras.profile.array_result import ArrayEnergy, KernelArrayEnergy
from hwa_keras.profile.converters import (
    ADC_PJ,
    PJ_PER_ADDITION,
    Periphery,
    adc_energy,
    schreier_energy,
    walden_energy,
)
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
    "ADC_PJ",
    "PJ_PER_ADDITION",
    "PJ_PER_BIT",
    "WIDE_RESNET_28_10_WEIGHTS",
    "ArrayEnergy",
    "KernelArrayEnergy",
    "KernelEnergy",
    "LayerSummary",
    "MemoryEnergy",
    "ModelSummary",
    "Periphery",
    "adc_energy",
    "array_energy",
    "memory_energy",
    "schreier_energy",
    "summary",
    "walden_energy",
]
