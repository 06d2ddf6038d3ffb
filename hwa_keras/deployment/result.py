"""What measurements found: numbers, tables, files and plots."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import rich.console
import rich.table

from hwa_keras.statistics import estimate

__all__ = ["DriftResult", "Result"]

_LABELS = {
    "none": "no compensation",
    "oracle": "oracle",
    "measured": "measured GDC",
    "measured_columns": "measured by column",
    "measured_ideal": "against targets",
    "measured_columns_ideal": "against targets, by column",
}
# A model keeps its color; the compensation tells the line.
_STYLES: dict[str, dict] = {
    "none": {"linestyle": ":", "marker": "o"},
    "oracle": {"linestyle": "--", "marker": "^"},
    "measured": {"linestyle": "-", "marker": "s"},
    "measured_columns": {"linestyle": "-.", "marker": "D"},
    "measured_ideal": {"linestyle": (0, (5, 1)), "marker": "v"},
    "measured_columns_ideal": {"linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
}


class Result:
    """Base class of what measurements found.

    A subclass writes `rows()`, `to_dict()` and `table()`; files and text follow.
    """

    def rows(self):
        """A list of dictionaries with the same keys: the lines of `to_csv`."""
        raise NotImplementedError

    def to_dict(self):
        """Everything, each single measurement included, as what JSON can hold."""
        raise NotImplementedError

    def table(self):
        """A `rich` table of what was found."""
        raise NotImplementedError

    def to_csv(self, path, *others):
        """Write `rows()` as CSV, with full precision; those of other results below."""
        rows = [row for result in (self, *others) for row in result.rows()]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        Path(path).write_text(text.getvalue(), encoding="utf-8")

    def to_json(self, path):
        """Write `to_dict()` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    def __str__(self):
        text = io.StringIO()
        rich.console.Console(file=text, width=110).print(self.table())
        return text.getvalue()


class DriftResult(Result):
    """The metrics of many chips at many times.

    Args:
        records: Per chip, `{compensation: {time label: {metric: value}}}`.
        times: Dictionary from time labels to seconds since programming.
        compensations: List of names.
        metric: Name of the metric that tables and plots show.
        seed: Integer, the seed of the first chip.
        device: What the chips were made of, in words.
        name: Name of the model.
        numbers: The number i of each chip, whose seed is `seed + i`. Defaults to those
            from 0 on.
    """

    def __init__(
        self,
        records,
        times,
        compensations,
        metric,
        seed,
        device,
        name,
        numbers=None,
    ):
        self.records = list(records)
        self.numbers = list(range(len(self.records)) if numbers is None else numbers)
        self.times = dict(times)
        self.compensations = list(compensations)
        self.metric = metric
        self.seed = seed
        self.device = device
        self.name = name

    @property
    def chips(self):
        """Number of chips evaluated."""
        return len(self.records)

    def samples(self, compensation, time, metric=None):
        """One number per chip, as an array of shape `(chips,)`."""
        metric = metric or self.metric
        return np.array([r[compensation][time][metric] for r in self.records])

    def estimate(self, compensation, time, metric=None):
        """Mean, standard deviation and 95 % interval over the chips."""
        return estimate(self.samples(compensation, time, metric))

    def rows(self):
        """A list of dictionaries: one per compensation, time and metric."""
        metrics = list(next(iter(self.records[0][self.compensations[0]].values())))
        return [
            {
                "model": self.name,
                "compensation": compensation,
                "time": label,
                "seconds": seconds,
                "metric": metric,
                "mean": found.mean,
                "std": found.std,
                "low95": found.low,
                "high95": found.high,
                "chips": found.count,
            }
            for compensation in self.compensations
            for label, seconds in self.times.items()
            for metric in metrics
            for found in [self.estimate(compensation, label, metric)]
        ]

    def to_dict(self):
        """Everything, each chip's metrics included, as what JSON can hold."""
        content = {
            "model": self.name,
            "device": self.device,
            "metric": self.metric,
            "seed": self.seed,
            "times": self.times,
            "compensations": self.compensations,
            "numbers": self.numbers,
            "chips": self.records,
            "summary": self.rows(),
        }
        return without_nan(content)

    @classmethod
    def from_dict(cls, content):
        """The result that `to_dict` wrote, or `to_json` to a file read again."""
        keys = ("times", "compensations", "metric", "seed", "device", "numbers")
        arguments = {key: content[key] for key in keys}
        return cls(content["chips"], **arguments, name=content["model"])

    @classmethod
    def join(cls, *results):
        """Put the results of several shares of the chips of one sweep together.

        Args:
            *results: `DriftResult`s of `drift_sweep` over ranges of chips, the
                `range(j, chips, count)` of machine j for instance.

        Returns:
            A `DriftResult` of all chips, in the order of their numbers.

        Raises:
            ValueError: If they are not parts of one sweep, or a chip is in two of them.

        Example:
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
            >>> model.compile("adam", "mse")
            >>> data = np.ones((4, 8)), np.ones((4, 3))
            >>> shares = [
            ...     hwa_keras.drift_sweep(model, "pcm", data, chips=chips, verbose=0)
            ...     for chips in (range(0, 3, 2), range(1, 3, 2))
            ... ]
            >>> hwa_keras.deployment.DriftResult.join(*shares).chips
            3
        """
        if not results:
            raise ValueError("There are no results to join. Give at least one.")
        arguments = {}
        for key in ("times", "compensations", "metric", "seed", "device", "name"):
            values = [getattr(result, key) for result in results]
            arguments[key] = values[0]
            if any(value != values[0] for value in values):
                raise ValueError(
                    f"These are results of different sweeps: their `{key}` are "
                    f"{', '.join(map(repr, values))}."
                )
        numbers = [number for result in results for number in result.numbers]
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        if twice:
            raise ValueError(
                "The same chips are in several of these results, which would count "
                f"them twice: {', '.join(map(str, twice))}."
            )
        records = [record for result in results for record in result.records]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        records = [records[i] for i in order]
        return cls(records, **arguments, numbers=sorted(numbers))

    def table(self):
        """A `rich` table of `metric`: mean ± half-width of the 95 % interval."""
        title = f"{self.name}: {self.metric} over time, {self.chips} chips"
        table = rich.table.Table(title=title)
        table.add_column("time")
        for compensation in self.compensations:
            table.add_column(_LABELS[compensation], justify="right")
        for label in self.times:
            cells = [cell(self.estimate(c, label)) for c in self.compensations]
            table.add_row(label, *cells)
        return table

    def plot(self, path=None, axes=None):
        """Draw `metric` over time, one line per compensation, bands of 95 %.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, such as those that the `plot` of another
                result returned, which gives both on one figure; or None for a new
                figure.

        Returns:
            The axes.
        """
        axes = axes or new_axes()
        times = dict(sorted(self.times.items(), key=lambda item: item[1]))
        seconds = list(times.values())
        color = next_color(axes)
        for compensation in self.compensations:
            found = [self.estimate(compensation, label) for label in times]
            label = f"{self.name}, {_LABELS[compensation]}"
            draw_band(axes, seconds, found, label, color, **_STYLES[compensation])
        axes.set_xscale("symlog" if min(seconds) == 0 else "log")
        _label_times(axes, times)
        axes.set_xlabel("time since programming")
        axes.set_ylabel(f"{self.metric}, mean over chips")
        models = len({line.get_color() for line in axes.lines})
        columns = min(models, 2) if models > 1 else len(self.compensations)
        return finish(axes, columns, path)


def cell(found):
    """An estimate in a table: the mean, ± the half-width of its interval."""
    if found.count == 1:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} ± {found.half_width:.4f}"


def new_axes(height=4.2):
    """Matplotlib axes on a figure of their own, of a height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(7, height), layout="constrained").subplots()


def next_color(axes):
    """The first color of the cycle that no line on the axes has."""
    return f"C{len({line.get_color() for line in axes.lines})}"


def draw_band(axes, x, found, label, color, **style):
    """Draw the means of a list of estimates as a line, their intervals as a band."""
    axes.plot(x, [e.mean for e in found], label=label, color=color, **style)
    ends = [e.low for e in found], [e.high for e in found]
    axes.fill_between(x, *ends, color=color, alpha=0.15, linewidth=0)


def draw_boxes(axes, places, samples, label, color):
    """Draw samples as boxes, beside those that other results have drawn.

    A box goes from the first to the third quartile, with a line at the median;
    whiskers reach to the extremes.
    """
    before = len({line.get_color() for line in axes.lines})
    line = {"color": color}
    drawn = axes.boxplot(
        samples,
        positions=np.asarray(places) + 0.4 * before,
        widths=0.35,
        whis=(0, 100),
        showfliers=False,  # There are none.
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": (color, 0.25), "edgecolor": color},
        medianprops={**line, "linewidth": 2},
        whiskerprops=line,
        capprops=line,
    )
    drawn["boxes"][0].set_label(label)


def finish(axes, columns, path=None, drop=0.15):
    """Add grid and legend, and write the figure to a path that is not None.

    The legend has a number of columns and drops below the axes by a part of their
    height, or with None stands above them.
    """
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.figure.get_layout_engine() is None:
        axes.legend()
    else:  # Room is made beside the axes, where no line passes.
        axes.legend(
            loc="lower center" if drop is None else "upper center",
            bbox_to_anchor=(0.5, 1.0 if drop is None else -drop),
            ncols=columns,
            frameon=False,
        )
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes


def _label_times(axes, times):
    """Label the time axis, leaving out the labels that would overlap."""
    scale = axes.xaxis.get_transform().transform
    places = scale(np.array(list(times.values()), float))
    span = float(np.ptp(places)) or 1.0
    kept, end = {}, -math.inf  # Where the last label ends.
    for (label, seconds), place in zip(times.items(), places / span, strict=True):
        half = 0.01 + 0.007 * len(label)  # Of the axis, at the default font size.
        if place - half >= end:
            kept[label] = seconds
            end = place + half
    axes.set_xticks(list(kept.values()), list(kept))
    axes.minorticks_off()


def without_nan(value):
    """JSON has no NaN: the interval of a single chip is null."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
