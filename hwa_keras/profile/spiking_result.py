"""What a spiking network takes on a neuromorphic chip, as figures and as a table."""

from dataclasses import asdict, dataclass
from typing import Any

import rich.table
from rich.text import Text

from hwa_keras.core.checks import check_not_negative
from hwa_keras.results import Tabular
from hwa_keras.results.text import readable

__all__ = [
    "PJ_PER_ACCUMULATE",
    "PJ_PER_MAC",
    "EnergyModel",
    "SpikingEnergy",
    "SpikingLayerEnergy",
]

PJ_PER_MAC = 4.6
"""A multiply-accumulate of 32-bit floats in 45 nm, pJ: Horowitz, ISSCC 2014."""
PJ_PER_ACCUMULATE = 0.9
"""An addition of 32-bit floats in 45 nm, pJ: Horowitz, ISSCC 2014."""

_PICO = 1e-12


@dataclass(frozen=True)
class EnergyModel:
    """What a chip takes: E = spikes·e_spike + operations·e_synop + P·seconds.

    Args:
        pj_per_spike: Float ≥ 0, pJ for each spike of a neuron. Defaults to `0.0`.
        pj_per_synop: Float ≥ 0, pJ for each synaptic operation: one spike that reaches
            one neuron. Defaults to `0.0`.
        static_w: Float ≥ 0, P, what the chip takes when nothing happens, W. Defaults
            to `0.0`.
        name: String. Defaults to `"custom"`.
        source: String, where the numbers are from. Defaults to `"as given"`.

    Raises:
        ValueError: If a number is negative or not finite, or all are zero.

    Example:
        >>> model = hwa_keras.profile.EnergyModel(pj_per_synop=10.0, static_w=1e-6)
        >>> round(model.joules(spikes=3, synops=100, seconds=1e-3) * 1e9, 3)  # nJ
        2.0
    """

    pj_per_spike: float = 0.0
    pj_per_synop: float = 0.0
    static_w: float = 0.0
    name: str = "custom"
    source: str = "as given"

    def __post_init__(self):
        numbers = {
            "pj_per_spike": self.pj_per_spike,
            "pj_per_synop": self.pj_per_synop,
            "static_w": self.static_w,
        }
        check_not_negative("EnergyModel", **numbers)
        if not any(numbers.values()):
            raise ValueError(
                "EnergyModel needs at least one number above zero: `pj_per_spike`, "
                "`pj_per_synop` or `static_w`. All are 0."
            )

    def __str__(self):
        return (
            f"{self.name}: {self.pj_per_spike:g} pJ a spike, {self.pj_per_synop:g} pJ "
            f"a synaptic operation, {self.static_w:g} W static: {self.source}"
        )

    def joules(self, spikes: float, synops: float, seconds: float = 0.0) -> float:
        """The energy of so many spikes and synaptic operations in this time, J."""
        dynamic = self.pj_per_spike * spikes + self.pj_per_synop * synops
        return _PICO * dynamic + self.static_w * seconds


@dataclass(frozen=True)
class SpikingLayerEnergy:
    """What one layer does for one example: neurons fire, or synapses pass spikes on.

    Args:
        path: Names from the model down to the layer, joined by slashes.
        layer_type: Its class.
        spikes: Float, spikes of its neurons; None for synapses alone.
        rate: Float, spikes a neuron and step; None for synapses alone.
        synops: Float, synaptic operations: for each spike that comes in, one for each
            neuron that it reaches.
        macs: Float, multiply-accumulate operations of the same products in frames, each
            step in full.
        analog_macs: Float, those of them whose inputs were no spikes.
        joules: Float, the energy of its spikes and synaptic operations, J.
    """

    path: str
    layer_type: str
    spikes: float | None
    rate: float | None
    synops: float
    macs: float
    analog_macs: float
    joules: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class SpikingEnergy(Tabular):
    """What a spiking network takes for one example: what `spiking_energy` returns.

    Printed, it is a table, and under it sums, sources and what was assumed.

    Args:
        name: The model's name.
        layers: Tuple of `SpikingLayerEnergy`s.
        device: The `EnergyModel`.
        seconds: Float, the time of one inference, s.
        assumptions: Tuple of lines: what was assumed, and the sources.
    """

    name: str
    layers: tuple[SpikingLayerEnergy, ...]
    device: EnergyModel
    seconds: float
    assumptions: tuple[str, ...]

    @property
    def spikes(self) -> float:
        """Spikes of all neurons."""
        return sum(layer.spikes or 0.0 for layer in self.layers)

    @property
    def synops(self) -> float:
        """Synaptic operations of all layers."""
        return sum(layer.synops for layer in self.layers)

    @property
    def macs(self) -> float:
        """Multiply-accumulate operations of the same network in frames."""
        return sum(layer.macs for layer in self.layers)

    @property
    def joules(self) -> float:
        """The energy of one inference, J, static power included."""
        return self.device.joules(self.spikes, self.synops, self.seconds)

    @property
    def watts(self) -> float:
        """The mean power during an inference, W."""
        return self.joules / self.seconds

    @property
    def frame_joules(self) -> float:
        """The arithmetic of the same network in frames, each step in full, 45 nm, J."""
        return _PICO * PJ_PER_MAC * self.macs

    @property
    def accumulate_joules(self) -> float:
        """The arithmetic of the spikes on the same digital chip, 45 nm, J.

        An addition for each synaptic operation, and a multiply-accumulate where inputs
        are no spikes.
        """
        analog = sum(layer.analog_macs for layer in self.layers)
        return _PICO * (PJ_PER_ACCUMULATE * self.synops + PJ_PER_MAC * analog)

    @property
    def source(self) -> str:
        """Where the figures come from, in one line."""
        return f"spiking_energy; {self.device}"

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each layer."""
        return [{"model": self.name, **layer.to_dict()} for layer in self.layers]

    def tables(self) -> list[rich.table.Table]:
        return [self.table(), self.totals()]

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "layers": [layer.to_dict() for layer in self.layers],
            "device": asdict(self.device),
            "seconds": self.seconds,
            "spikes": self.spikes,
            "synops": self.synops,
            "macs": self.macs,
            "joules": self.joules,
            "watts": self.watts,
            "frame_joules": self.frame_joules,
            "accumulate_joules": self.accumulate_joules,
            "assumptions": list(self.assumptions),
        }

    def table(self) -> rich.table.Table:
        """The layers as a `rich.table.Table`."""
        title = Text(f"{self.name}: one inference on {self.device.name}")
        table = rich.table.Table(title=title, show_footer=True)
        table.add_column("layer", Text("total"))
        table.add_column("type")
        dynamic = sum(layer.joules for layer in self.layers)
        for head, footer in (
            ("spikes", _count(self.spikes)),
            ("rate", ""),
            ("synaptic operations", _count(self.synops)),
            ("MACs in frames", _count(self.macs)),
            ("energy", readable(dynamic, "J")),
        ):
            table.add_column(head, footer, justify="right")
        for layer in self.layers:
            cells = (
                layer.path,
                layer.layer_type,
                _count(layer.spikes),
                "" if layer.rate is None else f"{100 * layer.rate:.1f} %",
                _count(layer.synops),
                _count(layer.macs),
                readable(layer.joules, "J"),
            )
            table.add_row(*map(Text, cells))
        return table

    def totals(self) -> rich.table.Table:
        """The sums, and what was assumed, as a `rich.table.Table`."""
        grid = rich.table.Table.grid(padding=(0, 2))
        for line in (
            f"{readable(self.joules, 'J')} and {readable(self.watts, 'W')} during "
            f"{readable(self.seconds, 's')}",
            f"in frames, 45 nm: {readable(self.frame_joules, 'J')}; its spikes in "
            f"additions: {readable(self.accumulate_joules, 'J')}",
            *self.assumptions,
        ):
            grid.add_row(Text(line))
        return grid


def _count(value):
    return "" if value is None else f"{value:,.10g}"
