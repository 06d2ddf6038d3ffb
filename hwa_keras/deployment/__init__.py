"""Deployment: chips, drift sweeps and exported artefacts."""

from hwa_keras.deployment.batchnorm import adapt_batchnorm
from hwa_keras.deployment.calibration import calibrate
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.export import export, export_tflite, verify_export
from hwa_keras.deployment.programming import program
from hwa_keras.deployment.result import DriftResult
from hwa_keras.deployment.sweep import TIMES, drift_sweep, monte_carlo

__all__ = [
    "TIMES",
    "Chip",
    "DriftResult",
    "adapt_batchnorm",
    "calibrate",
    "drift_sweep",
    "export",
    "export_tflite",
    "monte_carlo",
    "program",
    "verify_export",
]
