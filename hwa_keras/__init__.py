"""Hardware-aware training for Keras.

From a Keras model to a chip in four calls: `to_hwa` makes a model hardware-aware,
`fit` trains it, `program` writes it to a simulated chip, and `drift_sweep` tells how
it will do over a year. `export` ships the chip.
"""

from hwa_keras import (
    analysis,
    constraints,
    datasets,
    deployment,
    devices,
    layers,
    metrics,
    models,
    noise,
    quantizers,
    random,
    training,
)
from hwa_keras.conversion import to_hwa
from hwa_keras.cost import memory_energy, summary
from hwa_keras.deployment import (
    Chip,
    adapt_batchnorm,
    drift_sweep,
    export,
    export_tflite,
    monte_carlo,
    program,
    verify_export,
)
from hwa_keras.from_larq import from_larq
from hwa_keras.model import HWAModel, to_digital
from hwa_keras.scope import quantized_scope
from hwa_keras.version import __version__

__all__ = [
    "Chip",
    "HWAModel",
    "__version__",
    "adapt_batchnorm",
    "analysis",
    "constraints",
    "datasets",
    "deployment",
    "devices",
    "drift_sweep",
    "export",
    "export_tflite",
    "from_larq",
    "layers",
    "memory_energy",
    "metrics",
    "models",
    "monte_carlo",
    "noise",
    "program",
    "quantized_scope",
    "quantizers",
    "random",
    "summary",
    "to_digital",
    "to_hwa",
    "training",
    "verify_export",
]
