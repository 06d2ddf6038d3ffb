"""Size: a number of a network that depends on what was chosen."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Choice", "Size"]


@dataclass(frozen=True)
class Choice:
    """Something of a network that can be chosen.

    Args:
        name: What it is, such as `"stage0.depth"`.
        options: Tuple of numbers, ascending.
    """

    name: str
    options: tuple


@dataclass(frozen=True, eq=False)
class Size:
    """A whole number, such as the channels of a layer, as a table over choices.

    Args:
        choices: Tuple of the `Choice`s that it depends on; none for a fixed number.
        table: Integer array with an axis for each choice.

    Example:
        >>> from hwa_keras.search.sizes import Choice, Size
        >>> width = Size.of(Choice("width", (8, 16)))
        >>> middle = width.times(Choice("expansion", (0.5, 1.0)))
        >>> middle.at({"width": 16, "expansion": 0.5}), middle.largest
        (8, 16)
    """

    choices: tuple
    table: np.ndarray

    @classmethod
    def of(cls, choice):
        """The number that was chosen."""
        if len(choice.options) == 1:
            return cls.fixed(choice.options[0])
        return cls((choice,), np.array(choice.options))

    @classmethod
    def fixed(cls, number):
        """A number that nothing changes."""
        return cls((), np.array(number))

    def times(self, factor):
        """The product with a `Choice` of factors, rounded, at least 1."""
        products = self.table[..., None] * np.array(factor.options)
        table = np.maximum(np.round(products), 1).astype(int)
        if len(factor.options) == 1:
            return Size(self.choices, table[..., 0])
        return Size((*self.choices, factor), table)

    @property
    def largest(self):
        """The largest number that it can be."""
        return int(self.table.max())

    @property
    def is_fixed(self):
        """Whether it is the same whatever is chosen."""
        return self.table.min() == self.table.max()

    def at(self, config):
        """The number for a configuration, a dictionary of choices."""
        return int(
            self.table[tuple(c.options.index(config[c.name]) for c in self.choices)]
        )

    def strides(self):
        """Steps in the flat table for each choice, by name."""
        shape = self.table.shape
        return {
            choice.name: math.prod(shape[i + 1 :])
            for i, choice in enumerate(self.choices)
        }
