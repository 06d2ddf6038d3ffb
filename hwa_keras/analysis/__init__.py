"""Analysis: what a run found, for people to read."""

from hwa_keras.analysis.output_error import OutputError, output_error
from hwa_keras.analysis.robustness import (
    Correlation,
    correlation,
    quantization_curve,
    robustness_curve,
)
from hwa_keras.analysis.sensitivity import layer_sensitivity
from hwa_keras.analysis.sharpness import m_sharpness
from hwa_keras.analysis.shift import SHIFTS, rotate, shear, shift_curve, zoom
from hwa_keras.analysis.spectrum import singular_values, spectrum, unfold
from hwa_keras.analysis.spectrum_comparison import (
    Difference,
    SpectrumComparison,
    compare_spectra,
)

__all__ = [
    "SHIFTS",
    "Correlation",
    "Difference",
    "OutputError",
    "SpectrumComparison",
    "compare_spectra",
    "correlation",
    "layer_sensitivity",
    "m_sharpness",
    "output_error",
    "quantization_curve",
    "robustness_curve",
    "rotate",
    "shear",
    "shift_curve",
    "singular_values",
    "spectrum",
    "unfold",
    "zoom",
]
