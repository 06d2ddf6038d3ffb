"""Devices: how a technology programs, ages and reads weights."""

from hwa_keras.devices.device import (
    Device,
    deserialize,
    get,
    register,
    serialize,
)
from hwa_keras.devices.pcm import PCM, SimplePCM
from hwa_keras.devices.sram import SRAM, error_rate, relative_energy

__all__ = [
    "PCM",
    "SRAM",
    "Device",
    "SimplePCM",
    "deserialize",
    "error_rate",
    "get",
    "register",
    "relative_energy",
    "serialize",
]
