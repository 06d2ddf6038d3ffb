"""Names and numbers as tables, files and figures take them."""

import math
from typing import Any

import numpy as np

__all__ = ["csv_cell", "from_json_number", "json_ready", "plot_text", "readable"]

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # What spreadsheets calculate.
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def csv_cell(value):
    """A value of a CSV file: text that a spreadsheet would calculate is quoted.

    Example:
        >>> from hwa_keras.results.text import csv_cell
        >>> csv_cell("=1+1"), csv_cell("net"), csv_cell(-0.5)
        ("'=1+1", 'net', -0.5)
    """
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value


def json_ready(value):
    """Nested values as what JSON can hold.

    JSON has no NaN and no infinities: they become the strings "NaN", "Infinity" and
    "-Infinity", as in the JSON of Protocol Buffers. NumPy's numbers and arrays become
    Python's, tuples lists and keys strings.

    Example:
        >>> from hwa_keras.results.text import json_ready
        >>> json_ready({"loss": [0.5, math.inf], 8: np.float32(2.0)})
        {'loss': [0.5, 'Infinity'], '8': 2.0}
    """
    if isinstance(value, dict):
        return {str(key): json_ready(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [json_ready(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return json_ready(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, v in _WORDS.items() if str(v) == str(value))
    return value


def from_json_number(value: Any) -> float:
    """The number that `json_ready` wrote.

    Example:
        >>> from hwa_keras.results.text import from_json_number
        >>> from_json_number("-Infinity"), from_json_number(0.5)
        (-inf, 0.5)
    """
    return _WORDS[value] if isinstance(value, str) else float(value)


def plot_text(name):
    """A name as a label of Matplotlib: `$` begins no formula, `_` hides no line.

    Example:
        >>> from hwa_keras.results.text import plot_text
        >>> plot_text("_cost in $")
        ' _cost in \\\\$'
    """
    escaped = str(name).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def readable(value, unit):
    """A number with a prefix of its unit, such as 13.4 nJ."""
    for prefix, factor in (
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
        ("n", 1e-9),
        ("p", 1e-12),
    ):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value * 1e15:.4g} f{unit}" if value else f"0 {unit}"
