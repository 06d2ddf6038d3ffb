"""What a data set has and how it is read: what its reader tells `load`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Part", "Source", "check_split", "missing_package"]

Part = tuple[Any, np.ndarray]


class Source(NamedTuple):
    """The splits of a data set, the reader of one, and the number of classes."""

    splits: tuple[str, ...]
    read: Callable[[str], Part]
    num_classes: int
    note: str = ""
    """Why a split is missing."""


def check_split(name: str, split: str, splits: tuple[str, ...], note: str = "") -> None:
    """Raise a `ValueError` that names what there is."""
    if split not in splits:
        raise ValueError(
            f"The data set {name!r} has no such split. Received: split={split!r}. "
            f"Its splits: {', '.join(map(repr, splits))}. {note}".strip()
        )


def missing_package(name: str, package: str) -> ImportError:
    return ImportError(
        f"The data set {name!r} needs the package {package!r}. Install it with "
        "`pip install hwa_keras[examples]`."
    )
