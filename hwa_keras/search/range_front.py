"""RangeFront: conductance ranges that no other beats in both error and energy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import rich.table

from hwa_keras.core.types import PathLike, Self
from hwa_keras.results.plots import finish, new_axes
from hwa_keras.results.tabular import Tabular, plain_table
from hwa_keras.results.text import from_json_number

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

    g_u: tuple[float, ...]
    error: float
    energy: float
    metric: float | None = None
    std: float | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The point of a dictionary, also through JSON."""
        numbers: dict[str, Any] = {
            name: None if content[name] is None else from_json_number(content[name])
            for name in ("error", "energy", "metric", "std")
        }
        return cls(tuple(map(from_json_number, content["g_u"])), **numbers)

    def measured(self, values: np.ndarray) -> "RangePoint":
        """This point with what chips gave: an array of the metric."""
        return replace(self, metric=float(values.mean()), std=float(values.std(ddof=1)))


@dataclass(frozen=True)
class RangeFront(Tabular):
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

    paths: tuple[str, ...]
    points: tuple[RangePoint, ...]
    uniform: tuple[RangePoint, ...]
    chosen: RangePoint | None = None
    unit: str = "J"
    metric: str | None = None

    def energy_at(self, error: float, uniform: bool = False) -> float | None:
        """The least energy of a point with at most this error, or None if none has."""
        points = self.uniform if uniform else self.points
        energies = [p.energy for p in points if p.error <= error * _ROUNDING]
        return min(energies, default=None)

    def saved(self, error: float) -> float | None:
        """Share of the energy that ranges per kernel save over one for all, or None."""
        own, one = self.energy_at(error), self.energy_at(error, uniform=True)
        return None if own is None or one is None else 1.0 - own / one

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: the points of the front, and those of one range."""
        return [
            {
                "ranges": name,
                "energy": point.energy,
                "error": point.error,
                "metric": point.metric,
                "std": point.std,
                "g_u": " ".join(f"{g:.6g}" for g in point.g_u),
                "chosen": point == self.chosen,
            }
            for name, points in (("by kernel", self.points), ("one", self.uniform))
            for point in points
        ]

    def table(self) -> rich.table.Table:
        """A `rich.table.Table` of the front."""
        heads = ["g_u of each kernel, µS", f"energy {self.unit}".strip(), "error"]
        rows = [
            (
                " ".join(f"{g:.3g}" for g in point.g_u)
                + (" ←" if point == self.chosen else ""),
                f"{point.energy:.4g}",
                f"{point.error:.4g}",
                _metric(point),
            )
            for point in self.points
        ]
        title = "Conductance ranges, least energy for each error"
        return plain_table(title, [*heads, self.metric or "metric"], rows)

    def to_dict(self) -> dict[str, Any]:
        """The front as a nested dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The front that `to_dict` wrote, also through JSON."""

        several = {
            name: tuple(map(RangePoint.from_dict, content[name]))
            for name in ("points", "uniform")
        }
        chosen = content["chosen"] and RangePoint.from_dict(content["chosen"])
        paths = tuple(content["paths"])
        return cls(**{**content, **several, "chosen": chosen, "paths": paths})

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw both fronts, error over energy.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, or None for a new figure.

        Returns:
            The axes.
        """
        axes = axes or new_axes()
        for points, label, style in (
            (self.uniform, "one range for all", "o--"),
            (self.points, "a range for each kernel", "s-"),
        ):
            energies, errors = [p.energy for p in points], [p.error for p in points]
            axes.loglog(energies, errors, style, label=label)
        axes.set_xlabel(f"energy of the arrays ({self.unit})" if self.unit else "power")
        axes.set_ylabel("mean squared error of the outputs")
        return finish(axes, 2, path)


def _metric(point):
    if point.metric is None:
        return "—"
    return f"{point.metric:.4g} ± {point.std:.2g}"
