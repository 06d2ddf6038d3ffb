"""The types of public signatures that say what a value means."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack  # In `typing` from Python 3.11 on.

    Mixin: TypeAlias = Any  # It has what the Keras class beside it has.
else:
    Self = Any
    Mixin = object
    Unpack = dict

__all__ = [
    "ArrayLike",
    "Config",
    "Data",
    "Logs",
    "Mixin",
    "PathLike",
    "Seed",
    "Selector",
    "Self",
    "Shape",
    "Tensor",
    "Unpack",
]

Tensor: TypeAlias = Any
"""What the backend computes with, or turns into it: to a type checker, anything."""

Seed: TypeAlias = Any
"""A `uint32` tensor of shape `(2,)`, such as `hwa_keras.random.seed_from(7)`."""

Data: TypeAlias = Any
"""Arrays, structures of arrays, or batches of them: see the argument's description."""

Shape: TypeAlias = tuple[int | None, ...]
"""The shape of a tensor; None where a dimension is not known."""

Config: TypeAlias = dict[str, Any]
"""The arguments of an object, as `get_config` gives and `from_config` takes them."""

Logs: TypeAlias = dict[str, Any] | None
"""What Keras hands to a callback: a dictionary from names to numbers."""

PathLike: TypeAlias = str | os.PathLike[str]
"""The path of a file or of a folder."""

Selector: TypeAlias = str | type | Callable[[Any], bool]
"""Layers: a name or path with wildcards, a class, or a function from a layer."""
