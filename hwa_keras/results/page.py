"""report: one HTML page of a run, which needs nothing else to be read."""

import datetime
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import keras
import numpy as np

from hwa_keras.conversion.hardware_model import HardwareModel
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.core.types import PathLike
from hwa_keras.results.files import write_text
from hwa_keras.results.page_parts import drawn, missing, plain, png, study
from hwa_keras.results.result import Result
from hwa_keras.results.tabular import Tabular
from hwa_keras.version import __version__

__all__ = ["Section", "report"]

_TEMPLATE = "page.html.jinja"
# What every Keras layer has in its config and no reader wants to see.
_LAYER_KEYS = {"name", "trainable", "dtype", "scale"}


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, a paragraph, a table and a figure.

    Args:
        title: String.
        text: String, the paragraph, or empty.
        columns: List of strings, the head of the table.
        rows: List of rows; a row is a list of what its cells say, the first of which
            names the row. Empty for no table.
        figure: A Matplotlib figure, the path of a PNG file, or None.
    """

    title: str
    text: str = ""
    columns: Sequence = ()
    rows: Sequence = ()
    figure: Any = None


def report(
    path: PathLike,
    title: str,
    results: Tabular | Sequence[Tabular] = (),
    conversions: keras.Model | Sequence[keras.Model] = (),
    settings: Mapping[str, Any] | None = None,
    figures: Sequence[tuple[Any, str]] = (),
    notes: str | Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> None:
    """Write one HTML page of a run: numbers, plots, settings and versions.

    The page holds everything itself, the plots included: it asks no network for
    anything, prints well and fits a phone. It is written whole or not at all: a page
    that is already at `path` is replaced at the very end, or kept if something fails.
    Names and texts are escaped.

    Args:
        path: Where to write the page. Missing folders are made.
        title: String, the title of the page.
        results: A result or a list of them: of `drift_sweep`, `monte_carlo` and the
            curves of `hwa_keras.analysis`, of `summary`, `array_energy`,
            `search.search` and so on. `Result`s of the same axes and metric share one
            plot; each gets a table with mean over the chips, 95 % interval of the mean
            and standard deviation between chips. Others have their own tables and plot.
        conversions: A model that `to_hwa` converted, or a list of them: what is on
            hardware, and what stayed digital and why.
        settings: Dictionary of the settings of the run, which may be nested, or None.
        figures: List of pairs `(figure, caption)`. A figure is a Matplotlib figure or
            the path of a PNG file.
        notes: List of strings, the paragraphs below the title.
        sections: List of `Section`s, which come first.

    Raises:
        TypeError: If an argument holds something else than said above.
        ValueError: If there are neither results nor sections, a row is longer or
            shorter than the head of its table, or a file is no PNG.
        ImportError: If Jinja or Matplotlib is not installed.

    Example:
        >>> import pathlib
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> result = hwa_keras.drift_sweep(model, "pcm", data, chips=2, verbose=0)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "report.html")
        >>> hwa_keras.results.report(path, "A year on PCM", result)
        >>> "A year on PCM" in path.read_text(encoding="utf-8")
        True
    """
    shown = _as_list("results", results, Tabular, "drift_sweep")
    sections = list(sections)
    if not shown and not sections:
        raise ValueError(
            "Both `results` and `sections` are empty. Give at least one result, such "
            "as that of hwa_keras.drift_sweep, or a Section."
        )
    conversions = _as_list("conversions", conversions, HardwareModel, "to_hwa")
    notes = [notes] if isinstance(notes, str) else notes
    page = _template().render(
        title=title,
        notes=list(notes),
        studies=[study(group) for group in _groups(shown)],
        tables=[_tables(r) for r in shown if not isinstance(r, Result)],
        sections=[_section(section) for section in sections],
        conversions=[_conversion(model) for model in conversions],
        figures=[(png(figure), caption) for figure, caption in figures],
        settings=_flat(settings or {}),
        versions=_versions(),
        date=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )
    write_text(path, page)


def _as_list(name, value, kind, source):
    value = [value] if isinstance(value, kind) else list(value)
    for entry in value:
        if not isinstance(entry, kind):
            raise TypeError(
                f"`{name}` must be a {kind.__name__}, as hwa_keras.{source} returns "
                f"it, or a list of them. Received in it: {entry!r} of type "
                f"{type(entry).__name__}."
            )
    return value


def _groups(results):
    """The `Result`s, a list for each combination of axes and metric."""
    groups: list = []
    for result in results:
        if not isinstance(result, Result):
            continue
        key = result.axes, result.metric
        known = [group for group in groups if (group[0].axes, group[0].metric) == key]
        if known:
            known[0].append(result)
        else:
            groups.append([result])
    return groups


def _tables(result):
    """The tables and the figure of a result that is not of chips."""
    return {
        "title": type(result).__name__,
        "tables": [plain(table) for table in result.tables()],
        "figure": png(drawn([result])) if hasattr(result, "plot") else None,
    }


def _template():
    try:
        import jinja2
    except ImportError as error:
        raise missing("Jinja2") from error
    text = resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(text)


def _section(section):
    for row in section.rows:
        if len(row) != len(section.columns):
            raise ValueError(
                f"The table of the section '{section.title}' has "
                f"{len(section.columns)} columns, and a row of {len(row)} cells: "
                f"{list(row)}."
            )
    return {
        "title": section.title,
        "text": section.text,
        "columns": section.columns,
        "rows": section.rows,
        "figure": None if section.figure is None else png(section.figure),
    }


def _conversion(model):
    on_hardware = hardware_kernels(model)
    rows = [
        {
            "path": kernel.path,
            "shape": " × ".join(map(str, kernel.view.shape)),
            "quantizer": _describe(kernel.quantizer),
            "noise": _describe(kernel.noise),
            "circuits": [
                _describe(part)
                for part in (kernel.dac, kernel.output_noise, kernel.adc)
                if part is not None
            ],
        }
        for kernel in on_hardware
    ]
    # Not what quantizers, noises and devices keep.
    added = {id(w) for kernel in on_hardware for w in kernel.weights}
    total = sum(math.prod(w.shape) for w in model.weights if id(w) not in added)
    weights = sum(math.prod(kernel.view.shape) for kernel in on_hardware)
    return {
        "name": model.name,
        "kernels": rows,
        "has_circuits": any(row["circuits"] for row in rows),
        "digital": model.digital,
        "weights": f"{weights:,}",
        "share": f"{100 * weights / total:.1f} %",
    }


def _describe(member):
    """A quantizer or noise with its settings, in one line."""
    if member is None:
        return "—"
    if not isinstance(member, keras.layers.Layer):
        return getattr(member, "__name__", type(member).__name__)
    settings = {k: v for k, v in member.get_config().items() if k not in _LAYER_KEYS}
    parts = [f"{key}={_short(value)}" for key, value in settings.items()]
    if hasattr(member, "scale"):
        # A variable where it is ramped or learned: what it is now counts.
        parts.append(f"scale={_short(member.scale)}")
    return f"{type(member).__name__}({', '.join(parts)})"


def _short(value):
    if isinstance(value, keras.Variable):
        value = keras.ops.convert_to_numpy(value)
        if value.size > 1:
            return f"{value.min():.4g} … {value.max():.4g}"
        return f"{value.item():.4g}"
    if isinstance(value, dict):
        return value.get("class_name", "{…}")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_short, value)) + "]"
    return repr(value) if isinstance(value, str) else str(value)


def _flat(settings, prefix=""):
    """Nested settings as a list of pairs (dotted name, text)."""
    pairs = []
    for key, value in settings.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", str(value)))
    return pairs


def _versions():
    backend = keras.backend.backend()
    return {
        "hwa_keras": __version__,
        "Keras": keras.__version__,
        "Backend": f"{backend} {getattr(sys.modules.get(backend), '__version__', '')}",
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "Platform": platform.platform(),
        "Processors": str(os.cpu_count()),
    }
