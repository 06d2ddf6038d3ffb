"""Axis: what a study changes from point to point."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwa_keras.core.checks import is_number
from hwa_keras.core.types import Self

__all__ = ["Axis"]


@dataclass(frozen=True)
class Axis:
    """What a study changes from point to point, such as the time or the noise.

    Args:
        name: String, the name of the column in tables and files, such as `"time"`.
        levels: Sequence of finite numbers or strings, each once, such as bits or names
            of layers; or a dictionary from strings to numbers, such as `{"1 day":
            86400.0}`.
        label: String, what the levels are, with the unit if there is one, for tables
            and figures. Defaults to the name.
        unit: String, the name of the column of the numbers of a dictionary, such as
            `"seconds"`. Defaults to the name and `" value"`.
        titles: Sequence of strings, what to show in place of the levels. Defaults to
            the levels.
        is_log: Bool. Whether figures have the numbers on a logarithmic scale. Defaults
            to `False`.

    Raises:
        ValueError: If there is no level, or one is twice or not finite.

    Example:
        >>> axis = hwa_keras.results.Axis("time", {"1 s": 1.0, "1 day": 86400.0})
        >>> axis.levels, axis.places
        (('1 s', '1 day'), (1.0, 86400.0))
    """

    name: str
    levels: Any
    label: str = ""
    unit: str = ""
    titles: Sequence = ()
    is_log: bool = False
    places: tuple[float, ...] | None = None
    """Where the levels lie as numbers, or None of names; told by `levels`."""

    def __post_init__(self):
        levels, places = self.levels, self.places
        if isinstance(levels, dict):
            places, levels = tuple(map(float, levels.values())), tuple(levels)
        levels = tuple(_plain(level) for level in levels)
        if not levels:
            raise ValueError(f"The axis '{self.name}' has no levels. Give one or more.")
        if len(set(levels)) < len(levels):
            raise ValueError(
                f"The axis '{self.name}' has a level twice: "
                f"{', '.join(map(repr, levels))}."
            )
        has_names = any(isinstance(level, str) for level in levels)
        if not has_names:
            places = levels
        for number in (*(places or ()), *(v for v in levels if is_number(v))):
            if not math.isfinite(number):
                raise ValueError(
                    f"Levels of the axis '{self.name}' must be finite numbers or "
                    f"strings. Received: {number!r}."
                )
        for field, value in (
            ("levels", levels),
            ("places", None if places is None else tuple(places)),
            ("label", self.label or self.name),
            ("unit", self.unit or f"{self.name} value"),
            ("titles", tuple(map(str, self.titles or levels))),
        ):
            object.__setattr__(self, field, value)

    @property
    def has_names(self) -> bool:
        """Whether a level is a string."""
        return any(isinstance(level, str) for level in self.levels)

    @property
    def matplotlib_scale(self) -> str:
        """The scale of a figure's axis."""
        if not self.is_log:
            return "linear"
        return "log" if min(self.places or (1.0,)) > 0 else "symlog"

    def columns(self, level: Any) -> dict[str, Any]:
        """The cells of a row of a file: the level, and the number that a name is of."""
        cells = {self.name: level}
        if self.has_names and self.places is not None:
            cells[self.unit] = self.places[self.levels.index(level)]
        return cells

    def to_dict(self) -> dict[str, Any]:
        """The axis as what JSON can hold."""
        return {
            "name": self.name,
            "levels": list(self.levels),
            "label": self.label,
            "unit": self.unit,
            "titles": list(self.titles),
            "is_log": self.is_log,
            "places": None if self.places is None else list(self.places),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The axis that `to_dict` wrote."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        return cls(**fields)


def _plain(level):
    """A level as Python's own number or string."""
    level = level.item() if isinstance(level, np.generic) else level
    if isinstance(level, str) or is_number(level):
        return level
    raise ValueError(
        "A level must be a number or a string. Received: "
        f"{level!r} of type {type(level).__name__}."
    )
