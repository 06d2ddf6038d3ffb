"""Checks of arguments: messages with the name, the value and what is allowed."""

import math
import numbers
from typing import Any, TypeGuard

import numpy as np

__all__ = [
    "check_choice",
    "check_count",
    "check_not_negative",
    "check_positive",
    "is_number",
]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _is_finite(value):
    return is_number(value) and math.isfinite(value)


def check_not_negative(owner, **values):
    """Raise `ValueError` naming the first value that is negative or not finite."""
    for name, value in values.items():
        if not (_is_finite(value) and value >= 0):
            raise ValueError(
                f"`{name}` of {owner} must be a finite number and not negative. "
                f"Received: {name}={value!r}."
            )


def check_positive(owner, **values):
    """Raise `ValueError` naming the first value that is not positive and finite."""
    for name, value in values.items():
        if not (_is_finite(value) and value > 0):
            raise ValueError(
                f"`{name}` of {owner} must be a positive, finite number. "
                f"Received: {name}={value!r}."
            )


def check_count(owner, least=1, most=None, **values):
    """Raise `ValueError` naming the first value that is no integer of that size.

    Returns:
        The last value as an `int`.
    """
    for name, value in values.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            limit = f"≥ {least}" if most is None else f"from {least} to {most}"
            raise ValueError(
                f"`{name}` of {owner} must be an integer {limit}. Received: "
                f"{name}={value!r}."
            )
    return int(value)


def check_choice(owner, known, **values):
    """Raise `ValueError` naming the first value that is not among those known.

    Returns:
        The last value.
    """
    for name, value in values.items():
        if not any(
            value is k or (type(value) is type(k) and value == k) for k in known
        ):
            raise ValueError(
                f"`{name}` of {owner} must be one of {', '.join(map(repr, known))}. "
                f"Received: {name}={value!r}."
            )
    return value
