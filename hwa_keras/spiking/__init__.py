"""Spiking neurons in Keras: leaky integrate-and-fire layers, cells and surrogates."""

from hwa_keras.spiking.cells import HWALIFCell, LIFCell
from hwa_keras.spiking.constants import decay
from hwa_keras.spiking.encoders import (
    ConstantEncoder,
    DeltaEncoder,
    LatencyEncoder,
    RateEncoder,
)
from hwa_keras.spiking.filter_bank import FilterBank
from hwa_keras.spiking.frontend import Frontend
from hwa_keras.spiking.lif import ALIF, LIF, SynapticLIF
from hwa_keras.spiking.losses import CountCrossEntropy, population_targets
from hwa_keras.spiking.neurons import Neurons, family
from hwa_keras.spiking.nir import export_nir
from hwa_keras.spiking.nir_models import from_nir
from hwa_keras.spiking.per_step import MaxRatePooling, PerStep
from hwa_keras.spiking.readouts import (
    FirstSpike,
    MembraneReadout,
    RateReadout,
    SpikeCount,
)
from hwa_keras.spiking.regularizers import (
    FiringRate,
    FiringRateRange,
    SignTopology,
    WeightMagnitude,
)
from hwa_keras.spiking.surrogates import (
    Atan,
    FastSigmoid,
    Sigmoid,
    Surrogate,
    Triangular,
    spike,
)
from hwa_keras.spiking.to_spiking import accuracy_over_time, to_spiking

get = family.get
serialize = family.serialize
deserialize = family.deserialize
register = family.register

__all__ = [
    "ALIF",
    "LIF",
    "Atan",
    "ConstantEncoder",
    "CountCrossEntropy",
    "DeltaEncoder",
    "FastSigmoid",
    "FilterBank",
    "FiringRate",
    "FiringRateRange",
    "FirstSpike",
    "Frontend",
    "HWALIFCell",
    "LIFCell",
    "LatencyEncoder",
    "MaxRatePooling",
    "MembraneReadout",
    "Neurons",
    "PerStep",
    "RateEncoder",
    "RateReadout",
    "Sigmoid",
    "SignTopology",
    "SpikeCount",
    "Surrogate",
    "SynapticLIF",
    "Triangular",
    "WeightMagnitude",
    "accuracy_over_time",
    "decay",
    "deserialize",
    "export_nir",
    "from_nir",
    "get",
    "population_targets",
    "register",
    "serialize",
    "spike",
    "to_spiking",
]
