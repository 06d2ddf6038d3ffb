"""Deployment: chips, drift sweeps and exported artefacts."""

from hwa_keras.deployment.batchnorm import adapt_batchnorm
from hwa_keras.deployment.calibration import calibrate
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.compensation import Compensation
from hwa_keras.deployment.export import export, export_tflite, verify_export
from hwa_keras.deployment.output_calibration import calibrate_outputs
from hwa_keras.deployment.programming import program
from hwa_keras.deployment.sweep import TIMES, drift_sweep, monte_carlo

__all__ = [
    "TIMES",
    "Chip",
    "Compensation",
    "adapt_batchnorm",
    "calibrate",
    "calibrate_outputs",
    "drift_sweep",
    "export",
    "export_tflite",
    "monte_carlo",
    "program",
    "verify_export",
]
