"""Analysis: studies of chips, and what else there is to know about a model."""

from hwa_keras.analysis.chip_bench import ChipBench
from hwa_keras.analysis.correlation import Correlation, correlation
from hwa_keras.analysis.drift import (
    TIMES,
    DriftPoints,
    ProgrammedPoints,
    drift_sweep,
    monte_carlo,
)
from hwa_keras.analysis.output_error import OutputError, output_error
from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.quantization import QuantizationPoints, quantization_curve
from hwa_keras.analysis.robustness import RobustnessPoints, robustness_curve
from hwa_keras.analysis.sensitivity import SensitivityPoints, layer_sensitivity
from hwa_keras.analysis.sharpness import m_sharpness
from hwa_keras.analysis.shift import (
    SHIFTS,
    ShiftPoints,
    rotate,
    shear,
    shift_curve,
    zoom,
)
from hwa_keras.analysis.spectrum import singular_values, spectrum, unfold
from hwa_keras.analysis.spectrum_comparison import (
    Difference,
    SpectrumComparison,
    compare_spectra,
)
from hwa_keras.analysis.study import ChipStudy

__all__ = [
    "SHIFTS",
    "TIMES",
    "Bench",
    "ChipBench",
    "ChipStudy",
    "Correlation",
    "Difference",
    "DriftPoints",
    "OutputError",
    "Points",
    "ProgrammedPoints",
    "QuantizationPoints",
    "RobustnessPoints",
    "SensitivityPoints",
    "ShiftPoints",
    "SpectrumComparison",
    "compare_spectra",
    "correlation",
    "drift_sweep",
    "layer_sensitivity",
    "m_sharpness",
    "monte_carlo",
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
