"""What a model costs: parameters, operations, energies of memory, arrays, spikes."""

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
from hwa_keras.profile.spiking_energy import SPIKING_DEVICES, spiking_energy
from hwa_keras.profile.spiking_result import (
    PJ_PER_ACCUMULATE,
    PJ_PER_MAC,
    EnergyModel,
    SpikingEnergy,
    SpikingLayerEnergy,
)
from hwa_keras.profile.summary import summary

__all__ = [
    "ADC_PJ",
    "PJ_PER_ACCUMULATE",
    "PJ_PER_ADDITION",
    "PJ_PER_BIT",
    "PJ_PER_MAC",
    "SPIKING_DEVICES",
    "WIDE_RESNET_28_10_WEIGHTS",
    "ArrayEnergy",
    "EnergyModel",
    "KernelArrayEnergy",
    "KernelEnergy",
    "LayerSummary",
    "MemoryEnergy",
    "ModelSummary",
    "Periphery",
    "SpikingEnergy",
    "SpikingLayerEnergy",
    "adc_energy",
    "array_energy",
    "memory_energy",
    "schreier_energy",
    "spiking_energy",
    "summary",
    "walden_energy",
]
