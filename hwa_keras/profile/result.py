"""What a model costs, as figures and as a table: what `summary` returns."""

import collections
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.text import Text

from hwa_keras.profile.array_result import ArrayEnergy
from hwa_keras.profile.energy import MemoryEnergy
from hwa_keras.profile.spiking_result import SpikingEnergy
from hwa_keras.results.tabular import Tabular, plain_table
from hwa_keras.results.text import readable

__all__ = ["LayerSummary", "ModelSummary"]

_KIB = 8 * 1024  # bits
_HEADS = ("part", "energy", "source")  # Of the table of energies.


@dataclass(frozen=True)
class LayerSummary:
    """What one layer costs.

    Args:
        name: The layer's name, with the names of the models around it.
        layer_type: Its class.
        input_precision: Bits of its input quantizer, or None without one.
        output_shape: Tuple, the batch axis first; None if it cannot be told.
        params: Dictionary from bits to the number of parameters of so many bits.
        trainable_params: How many of them are trainable.
        macs: Dictionary from bits to the number of multiply-accumulate operations
            for one example; None if they cannot be counted.
        noise: The noises of the layer, or None.
        error_rates: Tuple of the probabilities that a bit is read wrong, one per
            kernel with a `BitFlip`.
        energy_share: The share of its kernels in the energy of the memory of all
            kernels, as in `memory_energy`; None without kernels of its own, and in a
            model without a `BitFlip`.
        array_energy: What its arrays take for one example, as `array_energy` tells it;
            None without arrays of its own, and where it was not asked for.
        spiking_energy: What its spikes and synaptic operations take for one example, J,
            as `spiking_energy` tells it; None without, and where it was not asked for.
    """

    name: str
    layer_type: str
    input_precision: int | None
    output_shape: tuple[int | None, ...] | None
    params: dict[int, int]
    trainable_params: int
    macs: dict[int, int] | None
    noise: str | None
    error_rates: tuple[float, ...] = ()
    energy_share: float | None = None
    array_energy: float | None = None
    spiking_energy: float | None = None

    @property
    def total_params(self) -> int:
        return sum(self.params.values())

    @property
    def memory_bits(self) -> int:
        return sum(bits * count for bits, count in self.params.items())

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "layer_type": self.layer_type,
            "input_precision": self.input_precision,
            "output_shape": self.output_shape and list(self.output_shape),
            "params": _with_text_keys(self.params),
            "trainable_params": self.trainable_params,
            "memory_bits": self.memory_bits,
            "macs": None if self.macs is None else _with_text_keys(self.macs),
            "noise": self.noise,
            "error_rates": list(self.error_rates),
            "energy_share": self.energy_share,
            "array_energy": self.array_energy,
            "spiking_energy": self.spiking_energy,
        }


@dataclass(frozen=True)
class ModelSummary(Tabular):
    """What a model costs: what `summary` returns. Printed, it is a table.

    Args:
        name: The model's name.
        layers: Tuple of `LayerSummary`s.
        memory: The `MemoryEnergy` of its kernels; None without a `BitFlip`.
        arrays: The `ArrayEnergy` of its crossbars, or None where it was not asked for.
        spiking: The `SpikingEnergy` of its neurons and synapses, or None likewise.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    memory: MemoryEnergy | None = None
    arrays: ArrayEnergy | None = None
    spiking: SpikingEnergy | None = None

    @property
    def relative_energy(self) -> float | None:
        """The energy of the memory in units of what it is without errors, or None."""
        return None if self.memory is None else self.memory.relative

    @property
    def params(self) -> dict[int, int]:
        """Dictionary from bits to the number of parameters of so many bits."""
        return _merged(layer.params for layer in self.layers)

    @property
    def total_params(self) -> int:
        return sum(self.params.values())

    @property
    def trainable_params(self) -> int:
        return sum(layer.trainable_params for layer in self.layers)

    @property
    def non_trainable_params(self) -> int:
        return self.total_params - self.trainable_params

    @property
    def memory_bits(self) -> int:
        return sum(layer.memory_bits for layer in self.layers)

    @property
    def memory_bits_with_8_bit_floats(self) -> int:
        """The memory if what has more than 8 bits had 8."""
        return sum(min(bits, 8) * count for bits, count in self.params.items())

    @property
    def float32_memory_bits(self) -> int:
        """The memory if every parameter had 32 bits."""
        return 32 * self.total_params

    @property
    def compression_ratio(self) -> float:
        """The memory as a share of that in 32 bits: the smaller, the better."""
        return self.memory_bits / max(1e-8, self.float32_memory_bits)

    @property
    def macs(self) -> dict[int, int]:
        """Dictionary from bits to the number of operations of that precision."""
        return _merged(layer.macs or {} for layer in self.layers)

    @property
    def total_macs(self) -> int:
        """The operations that could be counted."""
        return sum(self.macs.values())

    @property
    def uncounted(self) -> list[str]:
        """Names of the layers whose operations are not in `macs`."""
        return [layer.name for layer in self.layers if layer.macs is None]

    def macs_share(self, bits: int) -> float:
        """The share of operations, of those counted, with a precision of `bits`."""
        return self.macs.get(bits, 0) / max(1, self.total_macs)

    @property
    def low_precision_share(self) -> float:
        """The share of operations, of those counted, with 2 bits or fewer."""
        low = sum(count for bits, count in self.macs.items() if bits <= 2)
        return low / max(1, self.total_macs)

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each layer."""
        return [{"model": self.name, **layer.to_dict()} for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "layers": [layer.to_dict() for layer in self.layers],
            "params": _with_text_keys(self.params),
            "total_params": self.total_params,
            "trainable_params": self.trainable_params,
            "non_trainable_params": self.non_trainable_params,
            "memory_bits": self.memory_bits,
            "memory_bits_with_8_bit_floats": self.memory_bits_with_8_bit_floats,
            "float32_memory_bits": self.float32_memory_bits,
            "compression_ratio": self.compression_ratio,
            "macs": _with_text_keys(self.macs),
            "total_macs": self.total_macs,
            "uncounted": self.uncounted,
            "binarized_share": self.macs_share(1),
            "ternarized_share": self.macs_share(2),
            "low_precision_share": self.low_precision_share,
            "relative_energy": self.relative_energy,
            "array_energy": self.arrays and self.arrays.total,
            "spiking_energy": self.spiking and self.spiking.joules,
            "energies": [dict(zip(_HEADS, row, strict=True)) for row in self.energies],
        }

    def table(self) -> rich.table.Table:
        """The layers as a `rich.table.Table`."""
        noisy = any(layer.noise for layer in self.layers)
        flipped = any(layer.error_rates for layer in self.layers)
        title = Text(f"{self.name}: what it costs")
        table = rich.table.Table(title=title, show_footer=True)
        table.add_column("layer", Text("total"))
        table.add_column("input bits", justify="right")
        table.add_column("output shape", justify="right")
        for bits, count in self.params.items():
            table.add_column(f"{bits}-bit params", f"{count:,}", justify="right")
        table.add_column("KiB", f"{self.memory_bits / _KIB:,.2f}", justify="right")
        for bits, count in self.macs.items():
            table.add_column(f"{bits}-bit MACs", f"{count:,}", justify="right")
        if not self.macs:
            table.add_column("MACs", "?" if self.uncounted else "0", justify="right")
        if noisy:
            table.add_column("noise")
        if flipped:
            table.add_column("bit error rate", justify="right")
            table.add_column("energy share", justify="right")
        for head, total, _ in self._energy_columns():
            table.add_column(head, total, justify="right")
        for layer in self.layers:
            cells = self._cells(layer) + ([layer.noise or "—"] if noisy else [])
            cells += _energy_cells(layer) if flipped else []
            cells += [of_layer(layer) for _, _, of_layer in self._energy_columns()]
            table.add_row(*map(Text, cells))
        return table

    def _energy_columns(self):
        """Triples: the head of a column, its sum, and what it shows of a layer."""
        columns = []
        if (arrays := self.arrays) is not None:
            columns.append(
                (
                    self._array_head(),
                    arrays.formatted(arrays.total),
                    lambda layer: _or_dash(layer.array_energy, arrays.formatted),
                )
            )
        if (spiking := self.spiking) is not None:
            columns.append(
                (
                    "spiking energy",
                    readable(spiking.joules, "J"),
                    lambda layer: _or_dash(layer.spiking_energy, _in_joules),
                )
            )
        return columns

    def _array_head(self):
        is_power = self.arrays is not None and self.arrays.v_read is None
        return "array power" if is_power else "array energy"

    def _cells(self, layer):
        macs = [
            "?" if layer.macs is None else f"{layer.macs.get(bits, 0):,}"
            for bits in self.macs or (32,)
        ]
        return [
            layer.name,
            str(layer.input_precision or "—"),
            "?" if layer.output_shape is None else str(layer.output_shape),
            *[f"{layer.params.get(bits, 0):,}" for bits in self.params],
            f"{layer.memory_bits / _KIB:,.2f}",
            *macs,
        ]

    def totals(self) -> rich.table.Table:
        """The sums as a `rich.table.Table`."""
        grid = rich.table.Table.grid(padding=(0, 2))
        macs = f"{self.total_macs:,}"
        if self.uncounted:
            macs += f", and those not counted: {', '.join(self.uncounted)}"
        rows = [
            ("params", f"{self.total_params:,}"),
            ("trainable params", f"{self.trainable_params:,}"),
            ("non-trainable params", f"{self.non_trainable_params:,}"),
            ("size", _readable(self.memory_bits)),
            ("size, floats in 8 bits", _readable(self.memory_bits_with_8_bit_floats)),
            ("size, all in 32 bits", _readable(self.float32_memory_bits)),
            ("compression ratio", f"{self.compression_ratio:.4f}"),
            ("MACs of one example", macs),
            ("of these in 2 bits or fewer", f"{self.low_precision_share:.4f}"),
            ("of these binarized", f"{self.macs_share(1):.4f}"),
            ("of these ternarized", f"{self.macs_share(2):.4f}"),
        ]
        for row in rows:
            grid.add_row(*map(Text, row))
        return grid

    @property
    def energies(self) -> list[tuple[str, str, str]]:
        """Triples of strings: what takes energy, how much, and the source."""
        rows = []
        if self.memory is not None:
            joules = readable(self.memory.joules(self.memory.pj_per_bit), "J")
            share = f"{joules}, {100 * self.memory.relative:.1f} % of reliable"
            rows.append(("memory", share, self.memory.source))
        if self.arrays is not None:
            total = self.arrays.formatted(self.arrays.total)
            rows.append((self._array_head(), total, self.arrays.source))
        if self.spiking is not None:
            total = readable(self.spiking.joules, "J")
            rows.append(("spikes", total, self.spiking.source))
        return rows

    def tables(self) -> list[rich.table.Table]:
        energies = [self.energy_table()] if self.energies else []
        return [self.table(), self.totals(), *energies]

    def energy_table(self) -> rich.table.Table:
        """The energies of one example and their sources, as a `rich.table.Table`."""
        title = f"{self.name}: energy of one example"
        return plain_table(title, _HEADS, self.energies, named=len(_HEADS))


def _in_joules(value):
    """An energy in words, such as 13.4 nJ."""
    return readable(value, "J")


def _or_dash(value, in_words):
    return "—" if value is None else in_words(value)


def _energy_cells(layer):
    rates = ", ".join(f"{rate:.3g}" for rate in layer.error_rates)
    share = layer.energy_share
    return [rates or "—", "—" if share is None else f"{100 * share:.1f} %"]


def _merged(counts):
    total: collections.Counter = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _with_text_keys(counts):
    """JSON knows no other keys."""
    return {str(bits): count for bits, count in counts.items()}


def _readable(bits):
    size, units = bits / 8, ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.2f} {units[0]}"
