"""Hardware-aware training for Keras.

From a Keras model to a chip in four calls: `to_hwa` puts a model's layers on hardware,
`fit` trains it, `program` writes it to a simulated chip, and `drift_sweep` predicts its
accuracy over a year. `export` ships the chip.
"""

from hwa_keras import (
    analysis,
    circuits,
    constraints,
    crossbar,
    datasets,
    deployment,
    devices,
    layers,
    metrics,
    models,
    noise,
    quantizers,
    recipes,
    results,
    search,
    spiking,
    training,
)
from hwa_keras.analysis import drift_sweep, monte_carlo
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion import (
    fold_batchnorm,
    from_larq,
    quantized_scope,
    to_digital,
    to_hwa,
    unroll_convolutions,
)
from hwa_keras.core import random
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.deployment import (
    Chip,
    adapt_batchnorm,
    calibrate,
    calibrate_outputs,
    export,
    export_tflite,
    program,
    verify_export,
)
from hwa_keras.profile import array_energy, memory_energy, spiking_energy, summary
from hwa_keras.search import optimize_ranges
from hwa_keras.version import __version__

__all__ = [
    "Chip",
    "Hardware",
    "__version__",
    "adapt_batchnorm",
    "analysis",
    "array_energy",
    "calibrate",
    "calibrate_outputs",
    "circuits",
    "constraints",
    "crossbar",
    "datasets",
    "deployment",
    "devices",
    "drift_sweep",
    "export",
    "export_tflite",
    "fold_batchnorm",
    "from_larq",
    "hardware_kernels",
    "layers",
    "memory_energy",
    "metrics",
    "models",
    "monte_carlo",
    "noise",
    "optimize_ranges",
    "program",
    "quantized_scope",
    "quantizers",
    "random",
    "recipes",
    "results",
    "search",
    "spiking",
    "spiking_energy",
    "summary",
    "to_digital",
    "to_hwa",
    "training",
    "unroll_convolutions",
    "verify_export",
]
