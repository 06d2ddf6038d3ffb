"""Deployment: chips, calibration and exported artefacts."""

from hwa_keras.deployment.batchnorm import adapt_batchnorm
from hwa_keras.deployment.calibration import calibrate
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.compensation import Compensation
from hwa_keras.deployment.export import export, export_tflite, verify_export
from hwa_keras.deployment.output_calibration import calibrate_outputs
from hwa_keras.deployment.programming import program

__all__ = [
    "Chip",
    "Compensation",
    "adapt_batchnorm",
    "calibrate",
    "calibrate_outputs",
    "export",
    "export_tflite",
    "program",
    "verify_export",
]
