"""Training: callbacks for hardware-aware fits."""

from hwa_keras.training import callbacks
from hwa_keras.training.callbacks import NoiseRamp

__all__ = ["NoiseRamp", "callbacks"]
