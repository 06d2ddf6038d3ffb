"""Crossbars: tiles of a limited size, their devices and their wires."""

from hwa_keras.crossbar import wires
from hwa_keras.crossbar.crossbar import Crossbar
from hwa_keras.crossbar.tiling import Tiling
from hwa_keras.crossbar.wired import Wired

__all__ = ["Crossbar", "Tiling", "Wired", "wires"]
