"""What lies between a kernel and the devices that hold it: how it is cut into tiles."""

from hwa_keras.crossbar.tiling import Tiling

__all__ = ["Tiling"]
