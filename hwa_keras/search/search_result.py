"""SearchResult: the networks that no other beats, and how the search found them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rich.table

from hwa_keras.core.types import ArrayLike, PathLike, Self
from hwa_keras.results.plots import finish, new_axes, next_color
from hwa_keras.results.tabular import Tabular, plain_table
from hwa_keras.results.text import from_json_number, plot_text
from hwa_keras.search.design_space import Candidate

__all__ = ["SearchResult", "Solution"]


@dataclass(frozen=True)
class Solution:
    """A candidate and its values.

    Args:
        candidate: A `Candidate`.
        values: Dictionary from names to floats.
    """

    candidate: Candidate
    values: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The solution as what JSON can hold."""
        return {**self.candidate.to_dict(), "values": dict(self.values)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The solution that `to_dict` wrote."""
        values = {k: from_json_number(v) for k, v in content["values"].items()}
        return cls(Candidate.from_dict(content), values)


class SearchResult(Tabular):
    """The front of a search, by which candidates trade one objective for another.

    `search` makes one.

    Args:
        mode: String, what was searched: `"M1"`, `"M2"`, `"M2u"` or `"M3"`.
        seed: Integer, the seed of the search.
        directions: Dictionary from the objectives' names to `"max"` or `"min"`.
        front: Sequence of `Solution`s, none of which another beats in all objectives.
        history: List of a dictionary for each generation: `generation`, `evaluations`
            so far, `failures` so far, `front` (its size) and `hypervolume`, that of the
            front above `reference`.
        failures: Sequence of `Candidate`s with an objective that was no finite number.
        reference: Dictionary from names to floats, the worst values of the first
            generation.

    Example:
        >>> from hwa_keras.search import Candidate, SearchResult, Solution
        >>> small = Candidate({"depth": 1}, (1.0, 0.0))
        >>> large = Candidate({"depth": 2}, (1.0, 1.0))
        >>> result = SearchResult(
        ...     mode="M1",
        ...     seed=0,
        ...     directions={"accuracy": "max", "power": "min"},
        ...     front=[
        ...         Solution(small, {"accuracy": 0.8, "power": 1.0}),
        ...         Solution(large, {"accuracy": 0.9, "power": 3.0}),
        ...     ],
        ... )
        >>> round(result.power_at(0.85), 6)
        2.0
    """

    def __init__(
        self,
        mode: str,
        seed: int,
        directions: Mapping[str, str],
        front: Sequence[Solution],
        history: Sequence[dict[str, Any]] = (),
        failures: Sequence[Candidate] = (),
        reference: Mapping[str, float] | None = None,
    ) -> None:
        if not front:
            raise ValueError("`front` is empty. Give at least one Solution.")
        self.mode = mode
        self.seed = seed
        self.directions = dict(directions)
        first = next(iter(self.directions))
        self.front = tuple(sorted(front, key=lambda s: s.values[first]))
        self.history = list(history)
        self.failures = tuple(failures)
        self.reference = dict(reference or {})

    def values(self, name: str) -> np.ndarray:
        """One objective along the front, an array.

        Raises:
            ValueError: If it was not measured.
        """
        known = self.front[0].values
        if name not in known:
            raise ValueError(f"'{name}' was not measured. Known: {', '.join(known)}.")
        return np.array([solution.values[name] for solution in self.front])

    def least_at(
        self, level: ArrayLike, cost: str = "power", gain: str = "accuracy"
    ) -> Any:
        """The least cost at which a gain is reached, interpolated along the front.

        Args:
            level: Float, or an array of them: the gain to reach.
            cost: Name of an objective to minimize. Defaults to `"power"`.
            gain: Name of an objective to maximize. Defaults to `"accuracy"`.

        Returns:
            Float, or an array: the cost, linear between neighbors on the front; below
            it that of the cheapest, above it NaN.
        """
        costs, gains = self.values(cost), self.values(gain)
        kept = pareto(np.stack([costs, -gains], axis=1))
        order = np.flatnonzero(kept)[np.argsort(gains[kept], kind="stable")]
        found = np.interp(level, gains[order], costs[order], right=np.nan)
        return float(found) if np.ndim(found) == 0 else found

    def power_at(self, accuracy: ArrayLike) -> Any:
        """`least_at` of power and accuracy."""
        return self.least_at(accuracy)

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """What the front dominates above a reference, the product of the units.

        Args:
            reference: Dictionary from names to values, or None for that of the first
                generation. To compare searches, give all the same.
        """
        signed = [self._costs(s.values) for s in self.front]
        return hypervolume(signed, self._costs(reference or self.reference))

    def _costs(self, values):
        return costs_of(values, self.directions)

    def best(
        self, count: int = 3, cost: str = "power", gain: str = "accuracy"
    ) -> list[Solution]:
        """Solutions spread evenly over the gain of the upper half of the front.

        Args:
            count: Integer ≥ 1. Defaults to `3`.
            cost, gain: As in `least_at`.

        Returns:
            A list of at most `count` distinct `Solution`s, the best gain first.
        """
        gains = self.values(gain)
        middle = (gains.min() + gains.max()) / 2
        found = []
        for level in np.linspace(gains.max(), middle, count):
            enough = [s for s in self.front if s.values[gain] >= level]
            cheapest = min(enough, key=lambda s: s.values[cost])
            if cheapest not in found:
                found.append(cheapest)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each solution of the front."""
        return [
            {
                "mode": self.mode,
                "seed": self.seed,
                **solution.values,
                **solution.candidate.config,
                "multipliers": " ".join(
                    f"{m:.6g}" for m in solution.candidate.multipliers
                ),
            }
            for solution in self.front
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold; `from_json` reads it."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "directions": self.directions,
            "front": [solution.to_dict() for solution in self.front],
            "history": self.history,
            "failures": [candidate.to_dict() for candidate in self.failures],
            "reference": self.reference,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote."""
        return cls(
            content["mode"],
            content["seed"],
            content["directions"],
            [Solution.from_dict(each) for each in content["front"]],
            content["history"],
            [Candidate.from_dict(each) for each in content["failures"]],
            content["reference"],
        )

    def table(self) -> rich.table.Table:
        """A `rich` table of the front."""
        title = f"{self.mode}, seed {self.seed}: {len(self.front)} on the front"
        if self.failures:
            title += f", {len(self.failures)} failed"
        names, rows = list(self.front[0].values), []
        for solution in self.front:
            config = solution.candidate.config.items()
            used = [m for m in solution.candidate.multipliers if m > 0]
            span = f"{min(used):.3g} to {max(used):.3g}" if used else "—"
            network = " ".join(f"{name}={option}" for name, option in config)
            values = (f"{solution.values[name]:.4g}" for name in names)
            rows.append([network, span, *values])
        return plain_table(title, ["network", "g_u / default", *names], rows, named=2)

    def plot(
        self,
        path: PathLike | None = None,
        axes: Any = None,
        cost: str | None = None,
        gain: str | None = None,
    ) -> Any:
        """Draw the front, the gain over the cost.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, such as those that the `plot` of another
                result returned; or None for a new figure.
            cost: Name of an objective, or None for the first to minimize.
            gain: The same, for the first to maximize.

        Returns:
            The axes.
        """
        cost, gain = cost or self._first("min"), gain or self._first("max")
        axes = axes or new_axes()
        order = np.argsort(self.values(cost), kind="stable")
        axes.plot(
            self.values(cost)[order],
            self.values(gain)[order],
            marker="o",
            markersize=3,
            color=next_color(axes),
            label=plot_text(f"{self.mode}, seed {self.seed}"),
        )
        axes.set_xlabel(plot_text(cost))
        axes.set_ylabel(plot_text(gain))
        return finish(axes, min(len(axes.lines), 4), path)

    def _first(self, direction):
        """The first objective of a direction, or if there is none the first."""
        names = [n for n, d in self.directions.items() if d == direction]
        return (names or list(self.directions))[0]

    def plot_history(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw the hypervolume over the generations; arguments as in `plot`."""
        axes = axes or new_axes()
        axes.plot(
            [each["generation"] for each in self.history],
            [each["hypervolume"] for each in self.history],
            color=next_color(axes),
            label=plot_text(f"{self.mode}, seed {self.seed}"),
        )
        axes.set_xlabel("generation")
        axes.set_ylabel("hypervolume of the front")
        return finish(axes, min(len(axes.lines), 4), path)


def costs_of(values, directions):
    """An array of the objectives, each to be minimized."""
    return np.array(
        [-values[n] if d == "max" else values[n] for n, d in directions.items()]
    )


def pareto(costs):
    """Which rows of costs `[n, objectives]` no other row beats; of equals, the first.

    Example:
        >>> from hwa_keras.search.search_result import pareto
        >>> pareto(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
        [True, True, False]
    """
    costs = np.asarray(costs, float)
    best = np.zeros(len(costs), bool)
    first = np.unique(costs, axis=0, return_index=True)[1]
    for i in first:
        better = (costs <= costs[i]).all(1) & (costs < costs[i]).any(1)
        best[i] = not better.any()
    return best


def hypervolume(costs, reference):
    """The volume that costs `[n, objectives]` dominate below a reference, by pymoo."""
    from pymoo.indicators.hv import HV

    return float(HV(ref_point=np.asarray(reference, float))(np.asarray(costs, float)))
