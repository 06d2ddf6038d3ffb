"""report: one HTML page of a run, which needs nothing else to be read."""

import base64
import datetime
import io
import math
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hwa_keras.conversion.hardware_model import HardwareModel
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.deployment import DriftResult
from hwa_keras.version import __version__

__all__ = ["Section", "report"]

_TEMPLATE = "report.html.jinja"
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
    path,
    title,
    results=(),
    conversions=(),
    settings=None,
    figures=(),
    notes=(),
    sections=(),
):
    """Write one HTML page of a run: numbers, plots, settings and versions.

    The page holds everything itself, the plots included: it asks no network for
    anything, prints well and fits a phone. It is written whole or not at all: a page
    that is already at `path` is replaced at the very end, or kept if something fails.

    Args:
        path: Where to write the page. Missing folders are made.
        title: String, the title of the page.
        results: A `DriftResult` as `drift_sweep` returns it, or a list of them. Each
            gets a table: mean over the chips, 95 % interval of the mean and standard
            deviation between chips. All of them share one plot.
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
        >>> hwa_keras.analysis.report(path, "A year on PCM", result)
        >>> "A year on PCM" in path.read_text(encoding="utf-8")
        True
    """
    results = _as_list("results", results, DriftResult, "drift_sweep")
    sections = list(sections)
    if not results and not sections:
        raise ValueError(
            "Both `results` and `sections` are empty. Give at least one result of "
            "hwa_keras.drift_sweep, or a Section."
        )
    conversions = _as_list("conversions", conversions, HardwareModel, "to_hwa")
    notes = [notes] if isinstance(notes, str) else notes
    page = _template().render(
        title=title,
        notes=list(notes),
        results=[_table(result) for result in results],
        drift_plot=_drift_plot(results) if results else None,
        drift_alt=_drift_alt(results) if results else None,
        sections=[_section(section) for section in sections],
        conversions=[_conversion(model) for model in conversions],
        figures=[(_png(figure), caption) for figure, caption in figures],
        settings=_flat(settings or {}),
        versions=_versions(),
        date=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )
    _write_whole(Path(path), page)


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


def _template():
    try:
        import jinja2
    except ImportError as error:
        raise _missing("Jinja2") from error
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
        "figure": None if section.figure is None else _png(section.figure),
    }


def _table(result):
    """The table of one result: a row per time, a cell per compensation."""
    return {
        "name": result.name,
        "metric": result.metric,
        "chips": result.chips,
        "device": result.device,
        "seed": result.seed,
        "columns": [c.replace("_", " ").capitalize() for c in result.compensations],
        "rows": [
            (label, [_cell(result, name, label) for name in result.compensations])
            for label in result.times
        ],
    }


def _cell(result, compensation, time):
    found = result.estimate(compensation, time)
    single = found.count == 1
    return {
        "mean": f"{found.mean:.4f}",
        "half_width": None if single else f"{found.half_width:.4f}",
        "std": None if single else f"{found.std:.4f}",
    }


def _drift_plot(results):
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise _missing("matplotlib") from error
    axes = results[0].plot()
    for result in results[1:]:
        result.plot(axes=axes)
    return _png(axes.figure)


def _drift_alt(results):
    lines = [
        f"{result.name}, compensation {name}: from "
        f"{result.estimate(name, times[0]).mean:.4f} at {times[0]} to "
        f"{result.estimate(name, times[-1]).mean:.4f} at {times[-1]}"
        for result in results
        for name in result.compensations
        for times in [list(result.times)]
    ]
    return f"Lines of {results[0].metric} over time. " + "; ".join(lines) + "."


def _png(figure):
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


def _write_whole(path, text):
    """Write beside `path` and move into place, so that no page is ever half there."""
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder. Give the path of a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
        fresh = Path(folder) / path.name
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)


def _missing(package):
    return ImportError(
        f"A report needs the package {package!r}. Install it with "
        "`pip install hwa_keras[examples]`."
    )
