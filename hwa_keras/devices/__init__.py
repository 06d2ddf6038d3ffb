"""Devices: how a technology programs, ages and reads weights."""

from hwa_keras.devices.device import (
    Device,
    deserialize,
    get,
    register,
    serialize,
)
from hwa_keras.devices.pcm import PCM, SimplePCM

__all__ = [
    "PCM",
    "Device",
    "SimplePCM",
    "deserialize",
    "get",
    "register",
    "serialize",
]
