"""Wired: devices behind the wires of a crossbar."""

from dataclasses import dataclass, replace
from typing import Any

from keras import ops

from hwa_keras import devices
from hwa_keras.core.checks import check_choice, check_not_negative
from hwa_keras.core.types import Config, Seed, Self, Tensor
from hwa_keras.crossbar import wires
from hwa_keras.devices.conductance import ConductanceDevice
from hwa_keras.devices.device import register
from hwa_keras.devices.mapping import Mapping

__all__ = ["Wired"]

_MOST_DROP = 1.0
_DEGREE = 4  # Of the polynomials that the drop along a wire is taken for in training.


@register("wired")
@dataclass(frozen=True)
class Wired(ConductanceDevice):
    """Devices behind wires that drop voltage: they are read as G_eff in place of G.

    Each tile is a crossbar of its own, and so is each of the arrays that hold it. As
    G_eff does not depend on the inputs it is computed once for each time; see
    `hwa_keras.crossbar.wires`.

    Args:
        device: A `ConductanceDevice`: the devices at the crossings.
        wire: Pair (r_row, r_column), the resistance of a segment of a row and of a
            column, Ω.
        ir_drop: `"closed_form"` or `"exact"`. Defaults to `"closed_form"`.

    Raises:
        ValueError: When a tile is read that is larger than the closed form holds for.

    Example:
        >>> from hwa_keras.crossbar import Wired
        >>> device = Wired(hwa_keras.devices.Memristor(), wire=(1.0, 1.0))
        >>> w = ops.ones((64, 64))
        >>> state = device.program(w, hwa_keras.random.seed_from(1))
        >>> round(float(ops.mean(device.read(state, 0.0))), 3)
        0.935
    """

    device: ConductanceDevice
    wire: tuple[float, float]
    ir_drop: str = "closed_form"
    needs_shapes = True

    def __post_init__(self):
        if isinstance(self.device, Wired):
            raise ValueError(f"These devices are wired already: {self.device!r}.")
        if not isinstance(self.device, ConductanceDevice):
            raise TypeError(
                "Wires are for devices that are conductances, such as PCM or "
                f"Memristor. Received: {self.device!r}."
            )
        if not isinstance(self.wire, (tuple, list)) or len(self.wire) != 2:
            raise ValueError(
                "`wire` must be the pair (r_row, r_column), the resistances of a "
                f"segment in Ω. Received: wire={self.wire!r}."
            )
        for resistance in self.wire:
            check_not_negative("Wired", wire=resistance)
        object.__setattr__(self, "wire", tuple(map(float, self.wire)))
        check_choice("Wired", ("closed_form", "exact"), ir_drop=self.ir_drop)

    @property
    def drifts(self) -> bool:
        return self.device.drifts

    @property
    def g_min(self) -> float:
        return self.device.g_min

    @property
    def g_max(self) -> float:
        return self.device.g_max

    @property
    def g_u(self) -> float:
        return self.device.g_u

    @property
    def per(self) -> str:
        return self.device.per

    @property
    def mapping(self) -> Mapping:
        return self.device.mapping

    def check_time(self, t: float | Tensor) -> float:
        return self.device.check_time(t)

    def for_kernel(self, kernel: Any) -> Self:
        return replace(self, device=self.device.for_kernel(kernel))

    def for_network(self, count: int, largest: float | None) -> list[Self]:
        own = self.device.for_network(count, largest)
        return [replace(self, device=device) for device in own]

    def with_range(self, g_u: float | tuple[float, ...]) -> Self:
        return replace(self, device=self.device.with_range(g_u))

    def weight_range(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.device.weight_range(weights)

    def programming_std(self, g: Tensor) -> Tensor:
        return self.device.programming_std(g)

    def written(self, g: Tensor, z: Tensor) -> Tensor:
        return self.device.written(g, z)

    def attenuation(self, g: Tensor, held: Tensor) -> Tensor:
        if self.ir_drop == "exact":
            return ops.divide_no_nan(self.effective(held), held)
        self._check_closed_form(g)
        # The currents of many devices are those of their means, nearly. With them
        # nothing but the targets is read twice.
        empty, _ = self.device.moments(ops.convert_to_tensor(self.g_min, g.dtype))
        r_row, r_column = self.wire
        g = ops.maximum(g, empty)
        return 1.0 / (1.0 + wires.drop(g, r_row, r_column, _DEGREE))

    def write(self, g: Tensor, seed: Seed) -> dict[str, Tensor]:
        return self.device.write(g, seed)

    def conductances(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        return self.effective(self.device.conductances(state, t, z))

    def effective(self, g: Tensor) -> Tensor:
        """G_eff of conductances `[..., rows, columns]`, µS."""
        if self.ir_drop == "exact":
            return wires.exact(g, self.wire[0], self.wire[1], self.g_max)
        self._check_closed_form(g)
        return wires.closed_form(g, *self.wire)

    def _check_closed_form(self, g):
        m, n = g.shape[-2:]
        lengths = self.wire[0] * n * (n + 1) + self.wire[1] * m * (m + 1)
        drop = 0.5e-6 * self.g_u * lengths
        if drop > _MOST_DROP:
            share = drop / (1.0 + drop)
            raise ValueError(
                f"A tile of {m} × {n} devices of up to {self.g_u} µS on wires of "
                f"{self.wire} Ω loses up to {share:.0%} of a voltage, and the closed "
                f"form is then wrong by up to {0.1 * share**2:.1%} of the weights. "
                "Take a smaller tile, or ir_drop='exact'."
            )

    def moments(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance behind the wires, to first order in the errors."""
        mean, variance = self.device.moments(g)
        behind = self.effective(mean)
        return behind, variance * ops.square(ops.divide_no_nan(behind, mean))

    def draw_read_noise(self, shape: tuple[int, ...], seed: Seed) -> Tensor | None:
        return self.device.draw_read_noise(shape, seed)

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        return self.device.oracle_gain(state, t)

    def get_config(self) -> Config:
        config = {"wire": list(self.wire), "ir_drop": self.ir_drop}
        return {"device": devices.serialize(self.device), **config}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "device": devices.deserialize(config["device"])})
