"""Curve: a metric measured at several levels of something that hurts it."""

import numpy as np
import rich.table

from hwa_keras.deployment.result import (
    Result,
    cell,
    draw_band,
    draw_boxes,
    finish,
    new_axes,
    next_color,
    without_nan,
)
from hwa_keras.statistics import estimate

__all__ = ["Curve"]

_ROOM = 70  # Letters that stand side by side below the axes.


class Curve(Result):
    """The metrics of one model at several levels, with several samples at each.

    Args:
        name: String, the name of the model.
        quantity: String, what the levels are, with its unit if it has one: the label
            of the axis, such as `"bits per weight"`.
        metric: String, the name of the metric that tables and plots show.
        samples: Dictionary from levels to dictionaries from names of metrics to
            sequences of floats, one per sample. A level is a number, such as a
            standard deviation or a number of bits, or a string. The levels may differ
            in their numbers of samples.

    Raises:
        ValueError: If there is no level, or a level has no sample of the metric.

    Example:
        >>> curve = hwa_keras.analysis.Curve(
        ...     name="mlp",
        ...     quantity="bits per weight",
        ...     metric="accuracy",
        ...     samples={8: {"accuracy": [0.98, 0.96]}, 4: {"accuracy": [0.91, 0.89]}},
        ... )
        >>> curve.levels
        [8, 4]
        >>> round(curve.estimate(4).mean, 4)
        0.9
    """

    def __init__(self, name, quantity, metric, samples):
        self.name = name
        self.quantity = quantity
        self.metric = metric
        self.samples = {
            level: {key: np.asarray(values, float) for key, values in found.items()}
            for level, found in samples.items()
        }
        if not self.samples:
            raise ValueError("`samples` is empty. Give the samples of a level or more.")
        for level in self.samples:
            if self.values(level).size == 0:
                raise ValueError(f"The level {level!r} has no sample of '{metric}'.")

    @property
    def levels(self):
        """The levels, in the order in which they were measured."""
        return list(self.samples)

    def values(self, level, metric=None):
        """One number per sample.

        Args:
            level: One of `levels`.
            metric: Name of a metric, or None for the one that tables show.

        Returns:
            An array of shape `(samples,)`.

        Raises:
            ValueError: If the level or the metric was not measured.
        """
        metric = metric or self.metric
        if level not in self.samples:
            raise ValueError(
                f"The level {level!r} was not measured. Levels: "
                f"{', '.join(map(repr, self.samples))}."
            )
        found = self.samples[level]
        if metric not in found:
            raise ValueError(
                f"The metric '{metric}' was not measured at the level {level!r}. "
                f"Metrics: {', '.join(found)}."
            )
        return found[metric]

    def estimate(self, level, metric=None):
        """Mean, standard deviation and 95 % interval over the samples of a level.

        Args:
            level: One of `levels`.
            metric: Name of a metric, or None for the one that tables show.

        Returns:
            A `hwa_keras.statistics.Estimate`; of a single sample only the mean is
            known, and the rest is NaN.
        """
        return estimate(self.values(level, metric))

    def rows(self):
        """A list of dictionaries: one per level and metric."""
        return [
            {
                "model": self.name,
                "quantity": self.quantity,
                "level": level,
                "metric": metric,
                "mean": found.mean,
                "std": found.std,
                "low95": found.low,
                "high95": found.high,
                "samples": found.count,
            }
            for level, measured in self.samples.items()
            for metric in measured
            for found in [self.estimate(level, metric)]
        ]

    def to_dict(self):
        """Everything, each sample included, as what JSON can hold."""
        samples = [
            {"level": level, **{key: v.tolist() for key, v in found.items()}}
            for level, found in self.samples.items()
        ]
        content = {
            "model": self.name,
            "quantity": self.quantity,
            "metric": self.metric,
            "samples": samples,
            "summary": self.rows(),
        }
        return without_nan(content)

    def table(self):
        """A `rich` table of `metric`: mean ± half-width of the 95 % interval."""
        table = rich.table.Table(title=f"{self.name}: {self.metric}")
        table.add_column(self.quantity)
        table.add_column(self.metric, justify="right")
        table.add_column("samples", justify="right")
        for level in self.levels:
            found = self.estimate(level)
            table.add_row(str(level), cell(found), str(found.count))
        return table

    def plot(self, path=None, axes=None, boxes=False):
        """Draw `metric` over the levels, with bands (for names: bars) of 95 %.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, such as those that the `plot` of another
                curve returned, which gives both on one figure; or None for a new
                figure.
            boxes: Bool. Whether to draw the samples of each level as a box instead:
                minimum, quartiles, median and maximum. Defaults to `False`.

        Returns:
            The axes.
        """
        named = boxes or any(isinstance(level, str) for level in self.levels)
        longest = max(len(str(level)) for level in self.levels)
        crowded = named and len(self.levels) * longest > _ROOM
        if axes is None:
            axes = new_axes(4.2 + 0.07 * longest) if crowded else new_axes()
        color = next_color(axes)
        if named:
            self._plot_named(axes, color, boxes, crowded)
        else:
            levels = sorted(self.levels)
            found = [self.estimate(level) for level in levels]
            draw_band(axes, levels, found, self.name, color, marker="o")
        axes.set_xlabel(self.quantity)
        axes.set_ylabel(self.metric)
        curves = len({line.get_color() for line in axes.lines})
        drop = 0.2 if named else 0.15
        return finish(axes, curves, path, drop=None if crowded else drop)

    def _plot_named(self, axes, color, boxes, crowded):
        """Draw the levels side by side, their names turned where they are crowded."""
        names = [str(level) for level in self.levels]
        if crowded:
            size = min(10.0, 280.0 / len(names))
            axes.tick_params(axis="x", rotation=90, labelsize=size)
        else:
            names = [name.replace(" ", "\n", 1) for name in names]
        axes.xaxis.update_units(names)
        places = np.asarray(axes.convert_xunits(names), float)
        if boxes:
            samples = [self.values(level) for level in self.levels]
            draw_boxes(axes, places, samples, self.name, color)
        else:  # No line: between two names there is nothing.
            found = [self.estimate(level) for level in self.levels]
            axes.errorbar(
                places,
                [e.mean for e in found],
                yerr=[e.half_width for e in found],
                fmt="o",
                capsize=3,
                color=color,
                label=self.name,
            )
