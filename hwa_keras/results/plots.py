"""Figures: lines with bands, boxes, names along an axis, and the legend."""

import math

import numpy as np

from hwa_keras.core.files import write_whole
from hwa_keras.results.text import plot_text

__all__ = ["draw_band", "draw_boxes", "finish", "new_axes", "next_color", "plot_result"]

_ROOM = 70  # Letters that stand side by side below the axes.
# A result keeps its color; the series of a result differ in line and marker.
_LINES = (":", "--", "-", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))
_MARKERS = ("o", "^", "s", "D", "v", "P")


def new_axes(height=4.2):
    """Matplotlib axes on a figure of their own, of a height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(7, height), layout="constrained").subplots()


def next_color(axes):
    """The first color of the cycle that no line on the axes has."""
    return f"C{len({line.get_color() for line in axes.lines})}"


def draw_band(axes, x, found, label, color, **style):
    """Draw the means of a list of estimates as a line, their intervals as a band."""
    means = [e.mean for e in found]
    axes.plot(x, means, label=plot_text(label), color=color, **style)
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
    drawn["boxes"][0].set_label(plot_text(label))


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
        write_whole(path, lambda part: axes.figure.savefig(part, dpi=150))
    return axes


def plot_result(result, path=None, axes=None, boxes=False):
    """Draw a `Result` over the levels of its last axis, one line per series.

    Args:
        result: A `Result`.
        path, axes, boxes: As in `Result.plot`.

    Returns:
        The axes.
    """
    axis = result.axes[-1]
    named = boxes or axis.places is None
    texts = [plot_text(title) for title in axis.titles]
    longest = max(map(len, texts))
    crowded = named and len(texts) * longest > _ROOM
    if axes is None:
        axes = new_axes(4.2 + 0.07 * longest) if crowded else new_axes()
    color = next_color(axes)
    if named:
        _plot_named(axes, result, texts, color, boxes, crowded)
    else:
        _plot_lines(axes, result, color)
        axes.set_xscale(axis.matplotlib_scale)
        if axis.has_names:
            _label_places(axes, dict(zip(texts, axis.places, strict=True)))
    axes.set_xlabel(plot_text(axis.label))
    axes.set_ylabel(plot_text(result.metric))
    colors = len({line.get_color() for line in axes.lines})
    columns = min(colors, 2) if colors > 1 else len(result.series)
    if crowded:
        return finish(axes, columns, path, drop=None)
    return finish(axes, columns, path, drop=0.2 if named else 0.15)


def _name(result, series):
    """A line's label: the name of the result, and which of its series."""
    return ", ".join([result.name, *result.titles_of(series)])


def _plot_lines(axes, result, color):
    places = result.axes[-1].places
    order = np.argsort(places, kind="stable")
    several = len(result.series) > 1
    for i, series in enumerate(result.series):
        found = [result.estimate(*series, result.levels[k]) for k in order]
        style = {
            "linestyle": _LINES[i % len(_LINES)] if several else "-",
            "marker": _MARKERS[i % len(_MARKERS)] if several else "o",
        }
        x = [places[k] for k in order]
        draw_band(axes, x, found, _name(result, series), color, **style)


def _plot_named(axes, result, texts, color, boxes, crowded):
    """Draw the levels side by side, their names turned where they are crowded."""
    if crowded:
        size = min(10.0, 280.0 / len(texts))
        axes.tick_params(axis="x", rotation=90, labelsize=size)
    else:
        texts = [text.replace(" ", "\n", 1) for text in texts]
    axes.xaxis.update_units(texts)
    places = np.asarray(axes.convert_xunits(texts), float)
    for series in result.series:
        points = [(*series, level) for level in result.levels]
        label = _name(result, series)
        if boxes:
            draw_boxes(axes, places, [result.values(*p) for p in points], label, color)
        else:  # No line: between two names there is nothing.
            found = [result.estimate(*point) for point in points]
            axes.errorbar(
                places,
                [e.mean for e in found],
                yerr=[
                    [e.mean - e.low for e in found],
                    [e.high - e.mean for e in found],
                ],
                fmt="o",
                capsize=3,
                color=color,
                label=plot_text(label),
            )
        color = next_color(axes)


def _label_places(axes, places):
    """Label the axis, leaving out the labels that would overlap."""
    scale = axes.xaxis.get_transform().transform
    at = scale(np.array(list(places.values()), float))
    span = float(np.ptp(at)) or 1.0
    kept, end = {}, -math.inf  # Where the last label ends.
    order = np.argsort(at, kind="stable")
    pairs = list(places.items())
    for (label, value), place in ((pairs[k], at[k] / span) for k in order):
        half = 0.01 + 0.007 * len(label)  # Of the axis, at the default font size.
        if place - half >= end:
            kept[label] = value
            end = place + half
    axes.set_xticks(list(kept.values()), list(kept))
    axes.minorticks_off()
