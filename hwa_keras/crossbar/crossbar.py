"""Crossbar: the description of hardware whose tiles are crossbars of devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core.checks import check_choice, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Self
from hwa_keras.crossbar.wired import Wired
from hwa_keras.devices.conductance import ConductanceDevice
from hwa_keras.devices.device import Device
from hwa_keras.noise import ProgrammingNoise

__all__ = ["Crossbar"]


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True, eq=False, init=False)
class Crossbar(Hardware):
    """A `Hardware` whose tiles are crossbars: devices, wires, voltages.

    It stands wherever a `Hardware` does: `to_hwa(model, hardware=crossbar)` trains
    with the programming noise of its devices, and the voltage drop of its wires in
    closed form; `program(model, device=None)` writes to its devices.

    Args:
        device: A device of conductances or its name, such as `devices.Memristor(...)`.
        rows: Integer ≥ 1, most rows of a tile; None for no bound.
        columns: Integer ≥ 1, most columns of a tile; None for no bound.
        wire: The resistance of a segment of wire, Ω: a number, or a pair for rows and
            columns; or None.
        ir_drop: `"off"`; `"closed_form"`, to first order; `"exact"`, for what is
            programmed, training takes the closed form. Defaults to `"off"`.
        v_read: Float > 0, the voltage of the largest input, V; or None.
        t_read: Float > 0, the duration of a read, seconds; or None.
        **hardware: What else a `Hardware` has: `dac`, `adc`, `output_noise`, `bias`,
            `bound_management`, `kernel_quantizer`, `kernel_noise`. A `kernel_noise`
            takes the place of the devices' programming noise.

    Raises:
        ValueError: If an argument is out of its range, or wires are asked for without
            a resistance.

    Example:
        >>> crossbar = hwa_keras.crossbar.Crossbar(
        ...     hwa_keras.devices.Memristor(sigma=0.5, g_max=25.0),
        ...     rows=128,
        ...     columns=128,
        ...     wire=0.35,
        ...     ir_drop="exact",
        ... )
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model = hwa_keras.to_hwa(model, hardware=crossbar, verbose=0)
        >>> chip = hwa_keras.program(model, device=None, seed=1)
        >>> chip(np.ones((2, 8))).shape == (2, 3)
        True

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 3.3.2.
    """

    wire: Any = None
    ir_drop: str = "off"
    v_read: float | None = None
    t_read: float | None = None
    _noise_follows: bool = field(init=False, repr=False, default=True)

    def __init__(
        self,
        device: str | Device | None,
        rows: int | None = None,
        columns: int | None = None,
        wire: float | Sequence[float] | None = None,
        ir_drop: str = "off",
        v_read: float | None = None,
        t_read: float | None = None,
        **hardware: Any,
    ) -> None:
        if rows is not None or columns is not None:
            hardware["tile"] = (rows, columns)
        super().__init__(device=device, **hardware)
        for name, value in (("v_read", v_read), ("t_read", t_read)):
            if value is not None:
                check_positive("Crossbar", **{name: value})
            object.__setattr__(self, name, value)
        check_choice("Crossbar", ("off", "closed_form", "exact"), ir_drop=ir_drop)
        object.__setattr__(self, "ir_drop", ir_drop)
        object.__setattr__(self, "wire", _pair(wire))
        if ir_drop != "off" and wire is None:
            raise ValueError(
                f"ir_drop={ir_drop!r} needs the resistance of the wires: "
                "wire=(r_row, r_column), Ω for a segment."
            )
        self._wire_devices()
        object.__setattr__(self, "_noise_follows", self.kernel_noise is None)
        if self._noise_follows:
            object.__setattr__(self, "kernel_noise", self._programming_noise())

    def _wire_devices(self):
        device = getattr(self.device, "device", self.device)
        if not isinstance(device, ConductanceDevice):
            raise TypeError(
                "A Crossbar has devices that are conductances, such as devices.PCM() "
                f"or devices.Memristor(). Received: device={device!r}."
            )
        if self.ir_drop != "off":
            device = Wired(device, self.wire, self.ir_drop)
        object.__setattr__(self, "device", device)

    def _programming_noise(self):
        device = self.device
        if self.ir_drop == "exact":
            device = replace(device, ir_drop="closed_form")
        return ProgrammingNoise(device)

    @property
    def rows(self) -> int | None:
        """Most rows of a tile, or None."""
        return self.tile and self.tile[0]

    @property
    def columns(self) -> int | None:
        """Most columns of a tile, or None."""
        return self.tile and self.tile[1]

    def with_settings(self, **settings: Any) -> Self:
        if self._noise_follows:
            settings.setdefault("kernel_noise", None)
        return super().with_settings(**settings)

    def get_config(self) -> Config:
        config = super().get_config()
        if self._noise_follows:
            config["kernel_noise"] = None
        wire = self.wire and list(self.wire)
        own = {"ir_drop": self.ir_drop, "v_read": self.v_read, "t_read": self.t_read}
        return {**config, "wire": wire, **own}


def _pair(wire):
    if wire is None:
        return None
    return tuple(wire) if isinstance(wire, (tuple, list)) else (wire, wire)
