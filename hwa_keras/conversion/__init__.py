"""Conversion: models onto hardware and back, by rules; folding; Larq's models."""

from hwa_keras.conversion import experts  # noqa: F401, which makes them known
from hwa_keras.conversion.conversion import to_digital, to_hwa
from hwa_keras.conversion.fold_batchnorm import fold_batchnorm
from hwa_keras.conversion.from_larq import from_larq
from hwa_keras.conversion.quantized_scope import quantized_scope
from hwa_keras.conversion.unroll_convolutions import unroll_convolutions

__all__ = [
    "fold_batchnorm",
    "from_larq",
    "quantized_scope",
    "to_digital",
    "to_hwa",
    "unroll_convolutions",
]
