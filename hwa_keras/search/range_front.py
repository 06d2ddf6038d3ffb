"""RangeFront: conductance ranges that no other beats in both error and energy."""

from dataclasses import asdict, dataclass, replace

import rich.console
import rich.table

__all__ = ["RangeFront", "RangePoint"]

_ROUNDING = 1.0 + 1e-9


@dataclass(frozen=True)
class RangePoint:
    """One choice of conductance ranges, and what it is worth.

    Args:
        g_u: Tuple of floats, the highest conductance in use for each kernel, µS.
        error: Predicted mean squared error of the outputs, to first order.
        energy: Of devices, wires and amplifiers for one example: J, or without v_read
            the unit-free power of the thesis.
        metric: Mean of the compiled metric over chips, or None if it was not measured.
        std: Its standard deviation over chips, or None.
    """

    g_u: tuple
    error: float
    energy: float
    metric: float | None = None
    std: float | None = None

    def measured(self, values):
        """This point with what chips gave: an array of the metric."""
        return replace(self, metric=float(values.mean()), std=float(values.std(ddof=1)))


@dataclass(frozen=True)
class RangeFront:
    """The front of conductance ranges per kernel, beside one range for all.

    Args:
        paths: Tuple of the kernels' paths.
        points: Tuple of `RangePoint`s, the front, from low to high energy.
        uniform: Tuple of `RangePoint`s with one range for all kernels.
        chosen: The `RangePoint` of least energy that keeps the bound asked for, or None
            if no bound was given.
        unit: `"J"`, or `""` for unit-free power.
        metric: Name of the metric that was measured, or None.
    """

    paths: tuple
    points: tuple
    uniform: tuple
    chosen: RangePoint | None = None
    unit: str = "J"
    metric: str | None = None

    def energy_at(self, error, uniform=False):
        """The least energy of a point with at most this error, or None if none has."""
        points = self.uniform if uniform else self.points
        energies = [p.energy for p in points if p.error <= error * _ROUNDING]
        return min(energies, default=None)

    def saved(self, error):
        """Share of the energy that ranges per kernel save over one for all, or None."""
        own, one = self.energy_at(error), self.energy_at(error, uniform=True)
        return None if own is None or one is None else 1.0 - own / one

    def table(self):
        """A `rich.table.Table` of the front."""
        title = "Conductance ranges, least energy for each error"
        table = rich.table.Table(title=title)
        for column in (f"energy {self.unit}".strip(), "error", self.metric or "metric"):
            table.add_column(column)
        table.add_column("g_u of each kernel, µS")
        for point in self.points:
            ranges = " ".join(f"{g:.3g}" for g in point.g_u)
            mark = " ←" if point == self.chosen else ""
            cells = (f"{point.energy:.4g}", f"{point.error:.4g}", _metric(point))
            table.add_row(*cells, ranges + mark)
        return table

    def print(self, file=None):
        """Print the table to a text file, or the terminal."""
        rich.console.Console(file=file).print(self.table())

    def to_dict(self):
        """The front as plain values, for JSON."""
        return asdict(self)

    def plot(self, path=None):
        """Draw both fronts, error over energy; save them to a path, if there is one.

        Returns:
            The matplotlib figure.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for points, label, style in (
            (self.uniform, "one range for all", "o--"),
            (self.points, "a range for each kernel", "s-"),
        ):
            axes.loglog(
                [p.energy for p in points],
                [p.error for p in points],
                style,
                label=label,
            )
        axes.set_xlabel(f"energy of the arrays ({self.unit})" if self.unit else "power")
        axes.set_ylabel("mean squared error of the outputs")
        axes.grid(alpha=0.3)
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure


def _metric(point):
    if point.metric is None:
        return "—"
    return f"{point.metric:.4g} ± {point.std:.2g}"
