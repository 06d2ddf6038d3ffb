"""Result: the metrics of chips at the points of a study."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.table

from hwa_keras.core.types import PathLike, Self
from hwa_keras.results.axis import Axis
from hwa_keras.results.estimates import Estimate, estimate, proportion
from hwa_keras.results.plots import plot_result
from hwa_keras.results.result_table import result_table
from hwa_keras.results.tabular import Tabular
from hwa_keras.results.text import from_json_number, json_ready

__all__ = ["Result"]


class Result(Tabular):
    """The metrics of chips at the points of a study.

    A point is a level of each axis, such as `("measured", "1 year")` of the axes
    `compensation` and `time`; of a study that has no axis, such as `monte_carlo`, there
    is one point, `()`. Values at points are asked for by the levels:
    `result.estimate("measured", "1 year")`.

    Args:
        name: String, the name of the model.
        metric: String, the name of the metric that tables and figures show.
        axes: Sequence of `Axis`es. Figures are drawn over the last one, with a line for
            each combination of levels of the others.
        samples: Dictionary from points to dictionaries from the numbers of chips to
            dictionaries from names of metrics to floats, which may be NaN or infinite.
            A point need not have all chips.
        settings: Dictionary of what else the numbers depend on, such as the device and
            the seed: only results of the same settings are joined.

    Raises:
        ValueError: If a point has no chips, a point is missing or unknown, or the
            metric was not measured.

    Example:
        >>> from hwa_keras.results import Axis, Result
        >>> result = Result(
        ...     "mlp",
        ...     "accuracy",
        ...     [Axis("bits", [8, 4], label="bits per weight")],
        ...     {
        ...         (8,): {0: {"accuracy": 0.98}, 1: {"accuracy": 0.96}},
        ...         (4,): {0: {"accuracy": 0.91}, 1: {"accuracy": 0.89}},
        ...     },
        ... )
        >>> result.levels, result.chips
        ([8, 4], 2)
        >>> round(result.estimate(4).mean, 4)
        0.9
        >>> result.yield_above(0.9, 4).mean
        0.5
    """

    def __init__(
        self,
        name: str,
        metric: str,
        axes: Iterable[Axis],
        samples: Mapping[tuple, Mapping[int, Mapping[str, float]]],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = str(name)
        self.metric = metric
        self.axes = tuple(axes)
        self.settings = json_ready(settings or {})
        self.samples = {
            tuple(point): {int(i): dict(values) for i, values in chips.items()}
            for point, chips in samples.items()
        }
        expected = list(itertools.product(*(axis.levels for axis in self.axes)))
        if set(expected) != set(self.samples):
            raise ValueError(
                f"`samples` has the points {list(self.samples)}, and the axes have "
                f"{expected}. Give each point once."
            )
        self.samples = {point: self.samples[point] for point in expected}
        for point in self.samples:
            self.values(*point)

    @classmethod
    def from_curve(
        cls,
        name: str,
        metric: str,
        axis: Axis,
        samples: Mapping[Any, Mapping[str, Sequence[float]]],
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """A result of one axis from the samples at each of its levels.

        Args:
            name, metric, settings: As of `Result`.
            axis: An `Axis`.
            samples: Dictionary from levels to dictionaries from names of metrics to
                sequences of floats, one per sample. Sample i is that of chip i.

        Example:
            >>> from hwa_keras.results import Axis, Result
            >>> axis = Axis("method", ["SAM", "SGD"])
            >>> samples = {"SAM": {"loss": [0.1, 0.2]}, "SGD": {"loss": [0.3]}}
            >>> Result.from_curve("mlp", "loss", axis, samples).values("SAM").tolist()
            [0.1, 0.2]
        """
        chips = {
            (level,): {
                i: dict(zip(found, values, strict=True))
                for i, values in enumerate(zip(*found.values(), strict=True))
            }
            for level, found in samples.items()
        }
        return cls(name, metric, [axis], chips, settings)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the chips, ascending."""
        return sorted({i for chips in self.samples.values() for i in chips})

    @property
    def chips(self) -> int:
        """How many chips there are."""
        return len(self.numbers)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        chips = next(iter(self.samples.values()))
        return list(next(iter(chips.values())))

    @property
    def levels(self) -> list[Any]:
        """The levels of the last axis, a list; empty without axes."""
        return list(self.axes[-1].levels) if self.axes else []

    @property
    def series(self) -> list[tuple]:
        """The combinations of levels of all axes but the last, a list of tuples."""
        return list(itertools.product(*(axis.levels for axis in self.axes[:-1])))

    @property
    def records(self) -> list[dict[Any, Any]]:
        """What each chip gave, a list of dictionaries: by axis after axis, by metric.

        Example:
            >>> from hwa_keras.results import Axis, Result
            >>> samples = {("1 s",): {0: {"loss": 0.1}}, ("1 h",): {0: {"loss": 0.2}}}
            >>> axes = [Axis("time", ["1 s", "1 h"])]
            >>> Result("mlp", "loss", axes, samples).records
            [{'1 s': {'loss': 0.1}, '1 h': {'loss': 0.2}}]
        """
        records: dict = {number: {} for number in self.numbers}
        for point, chips in self.samples.items():
            for number, values in chips.items():
                place = records[number]
                for level in point:
                    place = place.setdefault(level, {})
                place.update(values)
        return list(records.values())

    def titles_of(self, point: Sequence[Any]) -> list[str]:
        """What figures and tables call the levels of the first axes, a list."""
        return [
            axis.titles[axis.levels.index(level)]
            for axis, level in zip(self.axes, point, strict=False)
        ]

    def values(self, *point: Any, metric: str | None = None) -> np.ndarray:
        """One number per chip, in the order of their numbers.

        Args:
            *point: A level of each axis.
            metric: Name of a metric, or None for the one that tables show.

        Returns:
            An array of shape `(chips,)`.

        Raises:
            ValueError: If the point or the metric was not measured.
        """
        metric = metric or self.metric
        if point not in self.samples:
            known = "; ".join(
                f"{axis.name} {', '.join(map(repr, axis.levels))}" for axis in self.axes
            )
            raise ValueError(
                f"There is no point {point!r}. Give a level of each axis: {known}."
                if self.axes
                else f"This result has one point, without levels. Received: {point!r}."
            )
        chips = self.samples[point]
        if not chips:
            raise ValueError(f"The point {point!r} has no chips.")
        first = next(iter(chips.values()))
        if metric not in first:
            raise ValueError(
                f"The metric '{metric}' was not measured at {point!r}. Metrics: "
                f"{', '.join(first)}."
            )
        return np.array([chips[i][metric] for i in sorted(chips)], "float64")

    def estimate(self, *point: Any, metric: str | None = None) -> Estimate:
        """The mean over the chips with its 95 % interval, an `Estimate`.

        The arguments are those of `values`. Of a single chip only the mean is known,
        and the rest is NaN.
        """
        return estimate(self.values(*point, metric=metric))

    def quantile(self, share: float, *point: Any, metric: str | None = None) -> float:
        """The value below which a share of the chips lies.

        Args:
            share: Float from 0 to 1: 0.5 for the median.
            *point, metric: As in `values`.
        """
        return float(np.quantile(self.values(*point, metric=metric), share))

    def yield_above(
        self, bound: float, *point: Any, metric: str | None = None
    ) -> Estimate:
        """The share of chips whose metric is above a bound, with its interval.

        Args:
            bound: Float. NaN is not above it.
            *point, metric: As in `values`.

        Returns:
            An `Estimate` with Clopper and Pearson's interval, which covers the share of
            all chips that could be made in at least 95 % of the cases: ten good chips
            of ten are a yield from 0.69 to 1.
        """
        good = self.values(*point, metric=metric) > bound
        return proportion(float(good.mean()), good.size, method="exact")

    def yield_below(
        self, bound: float, *point: Any, metric: str | None = None
    ) -> Estimate:
        """The share of chips whose metric, such as a loss, is below a bound.

        Arguments and return value are as of `yield_above`.
        """
        good = self.values(*point, metric=metric) < bound
        return proportion(float(good.mean()), good.size, method="exact")

    @classmethod
    def join(cls, *results: "Result") -> Self:
        """Put the results of several shares of the chips of one study together.

        Args:
            *results: `Result`s of one study over different chips, such as the
                `range(j, chips, count)` of machine j.

        Returns:
            A `Result` of all chips, in the order of their numbers.

        Raises:
            ValueError: If they are not parts of one study, or a chip is in two of them.

        Example:
            >>> from hwa_keras.results import Result
            >>> def share(*chips):
            ...     samples = {(): {i: {"loss": 0.1} for i in chips}}
            ...     return Result("mlp", "loss", [], samples)
            >>> Result.join(share(0, 2), share(1)).numbers
            [0, 1, 2]
        """
        if not results:
            raise ValueError("There are no results to join. Give at least one.")
        first = results[0]
        for key in ("name", "metric", "axes", "settings"):
            values = [getattr(result, key) for result in results]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"These are results of different studies: their `{key}` are "
                    f"{', '.join(map(repr, values))}."
                )
        numbers = [number for result in results for number in result.numbers]
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        if twice:
            raise ValueError(
                "The same chips are in several of these results, which would count "
                f"them twice: {', '.join(map(str, twice))}."
            )
        samples = {
            point: dict(
                sorted(item for r in results for item in r.samples[point].items())
            )
            for point in first.samples
        }
        return cls(first.name, first.metric, first.axes, samples, first.settings)

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one per point and metric."""
        return [
            {
                "model": self.name,
                **self._columns(point),
                "metric": metric,
                "mean": found.mean,
                "std": found.std,
                "low95": found.low,
                "high95": found.high,
                "median": found.median,
                "q05": found.q05,
                "q95": found.q95,
                "chips": found.count,
            }
            for point in self.samples
            for metric in self.metrics
            for found in [self.estimate(*point, metric=metric)]
        ]

    def chip_rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one per point and chip, with all metrics."""
        return [
            {"model": self.name, **self._columns(point), "chip": i, **values}
            for point, chips in self.samples.items()
            for i, values in sorted(chips.items())
        ]

    def _columns(self, point):
        cells: dict = {}
        for axis, level in zip(self.axes, point, strict=True):
            cells |= axis.columns(level)
        return cells

    def to_dict(self) -> dict[str, Any]:
        """Everything, each chip's metrics included, as a nested dictionary."""
        samples = [
            {"point": list(point), "chips": {str(i): dict(v) for i, v in chips.items()}}
            for point, chips in self.samples.items()
        ]
        return {
            "name": self.name,
            "metric": self.metric,
            "axes": [axis.to_dict() for axis in self.axes],
            "settings": self.settings,
            "samples": samples,
            "summary": self.rows(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote, also through JSON."""
        samples = {
            tuple(each["point"]): {
                int(i): {name: from_json_number(v) for name, v in values.items()}
                for i, values in each["chips"].items()
            }
            for each in content["samples"]
        }
        axes = [Axis.from_dict(axis) for axis in content["axes"]]
        settings = content["settings"]
        return cls(content["name"], content["metric"], axes, samples, settings)

    def table(self) -> rich.table.Table:
        """A `rich.table.Table` of `metric`: the mean and its 95 % interval.

        With one axis the median over the chips stands beside it, without any there is a
        row for each metric.
        """
        return result_table(self)

    def plot(
        self, path: PathLike | None = None, axes: Any = None, boxes: bool = False
    ) -> Any:
        """Draw `metric` over the levels of the last axis.

        Numbers are joined by a line for each series, with bands of 95 %; names have
        bars. Without an axis the chips are drawn as a box.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, such as those that the `plot` of another
                result returned, which gives both on one figure; or None for a new
                figure.
            boxes: Bool. Whether to draw the chips of each level as a box instead:
                minimum, quartiles, median and maximum. Defaults to `False`.

        Returns:
            The axes.
        """
        if not self.axes:
            axis = Axis("chips", [f"{self.chips} chips"])
            whole = {(axis.levels[0],): self.samples[()]}
            found = Result(self.name, self.metric, [axis], whole)
            return plot_result(found, path, axes, boxes=True)
        return plot_result(self, path, axes, boxes)
