"""Conversion: models onto hardware and back, by rules; Larq's models."""

from hwa_keras.conversion.conversion import to_digital, to_hwa
from hwa_keras.conversion.from_larq import from_larq
from hwa_keras.conversion.quantized_scope import quantized_scope

__all__ = ["from_larq", "quantized_scope", "to_digital", "to_hwa"]
