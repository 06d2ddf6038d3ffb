"""Devices: how a technology programs, ages and reads weights."""

from hwa_keras.devices.conductance import ConductanceDevice
from hwa_keras.devices.custom import CustomDevice
from hwa_keras.devices.device import (
    Device,
    deserialize,
    get,
    register,
    serialize,
    weight_range,
)
from hwa_keras.devices.drifting import DriftingDevice
from hwa_keras.devices.hermes import Hermes
from hwa_keras.devices.mapping import BitSlices, OffsetColumn, Pairs
from hwa_keras.devices.memristor import Memristor
from hwa_keras.devices.pcm import PCM, SimplePCM
from hwa_keras.devices.reram import ReRAMCMO, ReRAMWan2022
from hwa_keras.devices.sram import SRAM, error_rate, relative_energy

__all__ = [
    "PCM",
    "SRAM",
    "BitSlices",
    "ConductanceDevice",
    "CustomDevice",
    "Device",
    "DriftingDevice",
    "Hermes",
    "Memristor",
    "OffsetColumn",
    "Pairs",
    "ReRAMCMO",
    "ReRAMWan2022",
    "SimplePCM",
    "deserialize",
    "error_rate",
    "get",
    "register",
    "relative_energy",
    "serialize",
    "weight_range",
]
