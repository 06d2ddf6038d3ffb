"""What the arrays of a model take, as figures and as a table."""

from dataclasses import asdict, dataclass
from typing import Any

import rich.table
from rich.text import Text

from hwa_keras.results import Tabular
from hwa_keras.results.text import readable

__all__ = ["PARTS", "ArrayEnergy", "KernelArrayEnergy"]

PARTS = ("array", "wires", "tias", "dacs", "adcs", "digital")
_HEADS = ("array", "wires", "TIAs", "DACs", "ADCs", "digital")


@dataclass(frozen=True)
class KernelArrayEnergy:
    """What the arrays of one kernel take for one example.

    The parts are energies in J, or without v_read the power of the thesis, in which
    inputs have no unit, conductances are in µS and r is 1: only `array` and `tias`.

    Args:
        path: Names from the model down to the kernel, joined by slashes.
        rows: Integer, rows of its matrix.
        columns: Integer, columns of its matrix.
        tiles: Pair, numbers of row tiles and of column tiles.
        products: Float, products of a vector and the matrix, for one example.
        dac_bits: Bits of its DACs, or None without.
        adc_bits: Bits of its ADCs, or None without.
        array: Of the devices.
        wires: Of the wires.
        tias: Of the transimpedance amplifiers of the columns.
        dacs: Of the DACs of the rows.
        adcs: Of the ADCs of the columns.
        digital: Of the additions behind them.
        seconds: Time of its products, one after the other, s; None without v_read.
    """

    path: str
    rows: int
    columns: int
    tiles: tuple[int, int]
    products: float
    dac_bits: int | None
    adc_bits: int | None
    array: float
    wires: float = 0.0
    tias: float = 0.0
    dacs: float = 0.0
    adcs: float = 0.0
    digital: float = 0.0
    seconds: float | None = None

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(getattr(self, part) for part in PARTS)

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {**asdict(self), "tiles": list(self.tiles), "total": self.total}


@dataclass(frozen=True)
class ArrayEnergy(Tabular):
    """What the arrays of a model take for one example: what `array_energy` returns.

    Printed, it is a table, and under it what was assumed.

    Args:
        name: The model's name.
        kernels: Tuple of `KernelArrayEnergy`s.
        v_read: Float, the voltage of the largest input, V; None for the unit-free power
            of the thesis.
        t_read: Float, seconds of a product, or None.
        digital: Tuple of the paths of kernels that are on no array.
        assumptions: Tuple of lines: what was assumed, and the sources.
    """

    name: str
    kernels: tuple[KernelArrayEnergy, ...]
    v_read: float | None
    t_read: float | None
    digital: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def parts(self) -> dict[str, float]:
        """Dictionary from the name of a part to its sum over the kernels."""
        return {
            part: sum(getattr(kernel, part) for kernel in self.kernels)
            for part in PARTS
        }

    @property
    def total(self) -> float:
        """The sum over kernels and parts: J, or without v_read unit-free power."""
        return sum(kernel.total for kernel in self.kernels)

    @property
    def joules(self) -> float:
        """The energy of one example, J.

        Raises:
            ValueError: Without v_read and t_read.
        """
        self._check_si("An energy in joules")
        return self.total

    @property
    def watts(self) -> float:
        """The mean power while the kernels compute, one after the other, W.

        Raises:
            ValueError: Without v_read and t_read.
        """
        self._check_si("A power in watts")
        return self.total / sum(k.seconds for k in self.kernels)  # type: ignore[misc]

    @property
    def source(self) -> str:
        """Where the figures come from, in one line."""
        heads = ("ADCs:", "DACs:", "digital:", "unit-free power:")
        named = [line for line in self.assumptions if line.startswith(heads)]
        return "; ".join(["array_energy", *named])

    def _check_si(self, what):
        if self.v_read is None:
            raise ValueError(
                f"{what} needs the voltage of the largest input and the time of a "
                "product: Crossbar(..., v_read=0.2, t_read=130e-9). Without them "
                "`total` is the unit-free power of the thesis."
            )

    def watts_of(self, kernel: KernelArrayEnergy) -> float:
        """The mean power of a kernel of this result while it computes, W.

        Args:
            kernel: A `KernelArrayEnergy`.

        Raises:
            ValueError: Without v_read and t_read.
        """
        self._check_si("A power in watts")
        return kernel.total / kernel.seconds  # type: ignore[operator]

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each kernel."""
        return [{"model": self.name, **kernel.to_dict()} for kernel in self.kernels]

    def tables(self) -> list[rich.table.Table]:
        return [self.table(), self.totals()]

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "kernels": [kernel.to_dict() for kernel in self.kernels],
            "parts": self.parts,
            "total": self.total,
            "watts": None if self.v_read is None else self.watts,
            "v_read": self.v_read,
            "t_read": self.t_read,
            "digital": list(self.digital),
            "assumptions": list(self.assumptions),
        }

    def formatted(self, value: float) -> str:
        """A part or a total in words, with its unit."""
        return f"{value:,.4g}" if self.v_read is None else readable(value, "J")

    def table(self) -> rich.table.Table:
        """The kernels as a `rich.table.Table`."""
        what = "power, unit-free" if self.v_read is None else "energy of one example"
        title = Text(f"{self.name}: {what}, of its arrays")
        table = rich.table.Table(title=title, show_footer=True)
        table.add_column("kernel", Text("total"))
        for name in ("matrix", "tiles", "products"):
            table.add_column(name, justify="right")
        for head, value in zip(_HEADS, self.parts.values(), strict=True):
            table.add_column(head, self.formatted(value), justify="right")
        table.add_column("sum", self.formatted(self.total), justify="right")
        if self.v_read is not None:
            table.add_column("power", readable(self.watts, "W"), justify="right")
        for kernel in self.kernels:
            table.add_row(*map(Text, self._cells(kernel)))
        return table

    def _cells(self, kernel):
        cells = [
            kernel.path,
            f"{kernel.rows} × {kernel.columns}",
            f"{kernel.tiles[0]} × {kernel.tiles[1]}",
            f"{kernel.products:,.10g}",
            *[self.formatted(getattr(kernel, part)) for part in PARTS],
            self.formatted(kernel.total),
        ]
        if self.v_read is not None:
            cells.append(readable(self.watts_of(kernel), "W"))
        return cells

    def totals(self) -> rich.table.Table:
        """The assumptions as a `rich.table.Table`."""
        grid = rich.table.Table.grid(padding=(0, 2))
        for line in self.assumptions:
            grid.add_row(Text(line))
        if self.digital:
            grid.add_row(Text(f"on no array: {', '.join(self.digital)}"))
        return grid
