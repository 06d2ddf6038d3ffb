"""Analysis: what a run found, for people to read."""

from hwa_keras.analysis.curve import Curve
from hwa_keras.analysis.report import Section, report
from hwa_keras.analysis.robustness import (
    Correlation,
    correlation,
    quantization_curve,
    robustness_curve,
)
from hwa_keras.analysis.sharpness import m_sharpness
from hwa_keras.analysis.shift import SHIFTS, rotate, shear, shift_curve, zoom

__all__ = [
    "SHIFTS",
    "Correlation",
    "Curve",
    "Section",
    "correlation",
    "m_sharpness",
    "quantization_curve",
    "report",
    "robustness_curve",
    "rotate",
    "shear",
    "shift_curve",
    "zoom",
]
