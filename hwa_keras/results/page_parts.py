"""Parts of the page: the studies of chips, tables of others, and pictures."""

import base64
import io
import math
import os
from pathlib import Path

from rich.text import Text

from hwa_keras.results.tabular import cell

__all__ = ["drawn", "missing", "plain", "png", "study"]


def study(results):
    """What the page shows of `Result`s with the same axes and metric."""
    first = results[0]
    axis = first.axes[-1] if first.axes else None
    over = f"over {axis.label}" if axis else "of chips"
    heading = f"{first.metric} {over}"
    return {
        "heading": heading[:1].upper() + heading[1:],
        "plot": png(drawn(results)),
        "alt": _alt(results),
        "compensated": any(a.name == "compensation" for a in first.axes),
        "tables": [_table(result) for result in results],
    }


def _table(result):
    """The table of one result: a row per level, a cell per series."""
    levels = result.levels or [None]
    axis = result.axes[-1] if result.axes else None
    return {
        "name": result.name,
        "metric": result.metric,
        "chips": result.chips,
        "settings": "; ".join(f"{k}: {v}" for k, v in result.settings.items()),
        "head": axis.label if axis else "chips",
        "group": ", ".join(a.label for a in result.axes[:-1]),
        "columns": [
            ", ".join(result.titles_of(series)) or result.metric
            for series in result.series
        ],
        "rows": [
            (
                axis.titles[i] if axis else "all",
                [_cell(result, (*s, level)[: len(result.axes)]) for s in result.series],
            )
            for i, level in enumerate(levels)
        ],
    }


def _cell(result, point):
    found = result.estimate(*point)
    text = cell(found).split(" ", 1)
    return {
        "mean": text[0],
        "interval": text[1] if len(text) > 1 else None,
        "std": None if math.isnan(found.std) else f"{found.std:.4f}",
    }


def drawn(results):
    """The figure of results that share their axes."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing("matplotlib") from error
    axes = results[0].plot()
    for result in results[1:]:
        result.plot(axes=axes)
    return axes.figure


def _alt(results):
    """The figure in words."""
    lines = []
    for result in results:
        for series in result.series:
            name = ", ".join([result.name, *result.titles_of(series)])
            if not result.axes:
                lines.append(f"{name}: {result.estimate().mean:.4f}")
                continue
            ends = [
                f"{result.estimate(*series, result.levels[i]).mean:.4f} at "
                f"{result.axes[-1].titles[i]}"
                for i in (0, -1)
            ]
            lines.append(f"{name}: from {ends[0]} to {ends[1]}")
    return f"{results[0].metric}. {'; '.join(lines)}."


def plain(table):
    """A `rich.table.Table` as texts: title, heads and rows, the footer last."""
    cells = [[_text(c) for c in column.cells] for column in table.columns]
    rows = [list(row) for row in zip(*cells, strict=True)]
    if table.show_footer:
        rows.append([_text(column.footer) for column in table.columns])
    return {
        "title": _text(table.title or ""),
        "columns": [_text(column.header) for column in table.columns],
        "rows": rows,
    }


def _text(part):
    """A cell as text: `Text`, or a string with markup."""
    return part.plain if isinstance(part, Text) else Text.from_markup(str(part)).plain


def png(figure):
    """The PNG of a Matplotlib figure or of a file, as text for a data URL."""
    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        content = buffer.getvalue()
    elif isinstance(figure, (str, os.PathLike)):
        content = Path(figure).read_bytes()
    else:
        raise TypeError(
            "A figure must be a Matplotlib figure or the path of a PNG file. "
            f"Received: {figure!r} of type {type(figure).__name__}."
        )
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"'{figure}' is no PNG file. Save the figure as PNG.")
    return base64.b64encode(content).decode("ascii")


def missing(package):
    return ImportError(
        f"A report needs the package {package!r}. Install it with "
        "`pip install hwa_keras[examples]`."
    )
