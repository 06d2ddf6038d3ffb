"""compare: what searches take at equal gain, over several seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.table

from hwa_keras.core.types import ArrayLike, PathLike, Self
from hwa_keras.results import Estimate, Tabular, estimate
from hwa_keras.results.plots import draw_band, finish, new_axes, next_color
from hwa_keras.results.tabular import cell, plain_table
from hwa_keras.results.text import from_json_number, plot_text
from hwa_keras.search.search_result import SearchResult

__all__ = ["Comparison", "compare"]


class Comparison(Tabular):
    """The cost of searches relative to one of them, at equal gain along the front.

    `compare` makes one.

    Args:
        baseline: String, the name that costs are relative to.
        levels: Array of floats, the gains.
        ratios: Dictionary from names to arrays `[seeds, levels]`, the cost in units of
            the baseline's; NaN where a front does not reach the gain.
        cost, gain: Strings, names of the objectives.
    """

    def __init__(
        self,
        baseline: str,
        levels: ArrayLike,
        ratios: Mapping[str, ArrayLike],
        cost: str = "power",
        gain: str = "accuracy",
    ) -> None:
        self.baseline = baseline
        self.levels = np.asarray(levels, float)
        self.ratios = {name: np.asarray(r, float) for name, r in ratios.items()}
        self.cost, self.gain = cost, gain

    def estimate(self, name: str, i: int) -> Estimate | None:
        """Mean and 95 % interval over the seeds that reach level i, or None."""
        values = self.ratios[name][:, i]
        reached = values[np.isfinite(values)]
        return estimate(reached) if reached.size else None

    def least(self, name: str) -> tuple[float, Estimate | None]:
        """The level with the least mean ratio, and its estimate.

        Only levels that all seeds reach count.

        Raises:
            ValueError: If there is no such level.
        """
        whole = np.flatnonzero(np.isfinite(self.ratios[name]).all(axis=0))
        if not whole.size:
            raise ValueError(f"No level is reached by all seeds of {name}.")
        best = min(whole, key=lambda i: self.ratios[name][:, i].mean())
        return float(self.levels[best]), self.estimate(name, int(best))

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each name and level that is reached."""
        return [
            {
                "name": name,
                self.gain: float(level),
                f"{self.cost} / {self.baseline}": found.mean,
                "std": found.std,
                "low95": found.low,
                "high95": found.high,
                "seeds": found.count,
            }
            for name in self.ratios
            for i, level in enumerate(self.levels)
            for found in [self.estimate(name, i)]
            if found is not None
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, each seed's ratio included, as what JSON can hold."""
        return {
            "baseline": self.baseline,
            "cost": self.cost,
            "gain": self.gain,
            "levels": self.levels.tolist(),
            "ratios": {name: r.tolist() for name, r in self.ratios.items()},
            "summary": self.rows(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The comparison that `to_dict` wrote."""
        ratios = {
            name: [[from_json_number(v) for v in row] for row in rows]
            for name, rows in content["ratios"].items()
        }
        names = content["baseline"], content["levels"]
        return cls(*names, ratios, content["cost"], content["gain"])

    def table(self) -> rich.table.Table:
        """A `rich` table: mean ± half-width of the 95 % interval."""
        title = f"{self.cost} in units of {self.baseline}'s, at equal {self.gain}"
        rows = []
        for i, level in enumerate(self.levels):
            found = [self.estimate(name, i) for name in self.ratios]
            cells = ["—" if each is None else cell(each) for each in found]
            rows.append([f"{level:.4g}", *cells])
        return plain_table(title, [self.gain, *self.ratios], rows)

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw the ratios over the gain, with bands of 95 %.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, or None for a new figure.

        Returns:
            The axes.
        """
        axes = axes or new_axes()
        for name in self.ratios:
            found = [self.estimate(name, i) for i in range(len(self.levels))]
            reached = [i for i, each in enumerate(found) if each is not None]
            levels, kept = self.levels[reached], [found[i] for i in reached]
            draw_band(axes, levels, kept, name, next_color(axes), marker="o")
        axes.axhline(1.0, color="0.6", linewidth=1, zorder=0)
        axes.set_xlabel(plot_text(self.gain))
        axes.set_ylabel(plot_text(f"{self.cost} / {self.cost} of {self.baseline}"))
        return finish(axes, len(self.ratios), path)


def compare(
    results: Mapping[str, Sequence[SearchResult]],
    baseline: str = "M1",
    levels: ArrayLike | None = None,
    cost: str = "power",
    gain: str = "accuracy",
) -> Comparison:
    """Compare fronts at equal gain, seed by seed.

    Args:
        results: Dictionary from names to lists of `SearchResult`s, one for each seed;
            result i of a name is compared with result i of the baseline.
        baseline: Name that costs are relative to. Defaults to `"M1"`.
        levels: Gains, ascending; or None for ten in the upper half of what the
            baseline reaches with all seeds.
        cost: Name of an objective to minimize. Defaults to `"power"`.
        gain: Name of an objective to maximize. Defaults to `"accuracy"`.

    Returns:
        A `Comparison` of all names but the baseline.

    Raises:
        ValueError: If the baseline is missing, or names differ in their numbers of
            results.

    Example:
        >>> from hwa_keras.search import Candidate, SearchResult, Solution, compare
        >>> def front(powers):
        ...     accuracies = (0.6, 0.8, 0.9)
        ...     pairs = zip(accuracies, powers, strict=True)
        ...     return SearchResult(
        ...         "M1", 0, {"accuracy": "max", "power": "min"},
        ...         [
        ...             Solution(Candidate({}, (1.0,)), {"accuracy": a, "power": p})
        ...             for a, p in pairs
        ...         ],
        ...     )
        >>> found = compare(
        ...     {"M1": [front([1.0, 2.0, 4.0])], "M2": [front([0.5, 1.0, 3.0])]},
        ...     levels=[0.8, 0.9],
        ... )
        >>> found.ratios["M2"].tolist()
        [[0.5, 0.75]]
    """
    if baseline not in results:
        raise ValueError(
            f"`results` has no '{baseline}' to compare with. It has: "
            f"{', '.join(map(repr, results))}."
        )
    counts = {name: len(each) for name, each in results.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            "Each name needs one result for each seed, at least one. Received: "
            f"{counts}."
        )
    if levels is None:
        low = max(r.values(gain).min() for r in results[baseline])
        high = min(r.values(gain).max() for r in results[baseline])
        levels = np.linspace((low + high) / 2, high, 10)
    levels = np.asarray(levels, float)
    costs = {
        name: np.array([r.least_at(levels, cost, gain) for r in each])
        for name, each in results.items()
    }
    ratios = {n: c / costs[baseline] for n, c in costs.items() if n != baseline}
    return Comparison(baseline, levels, ratios, cost, gain)
