"""Converter: what DAC and ADC share."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.circuits import ranges
from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.quantizers.base import Quantizer

__all__ = ["Converter", "numbers_of"]


class Converter(Quantizer):
    """What DAC and ADC share: bits, fixed ranges, states of a range that is not set."""

    def __init__(
        self,
        bits: int,
        range: float | Sequence[float] | str,
        named: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bits = ranges.checked_bits(bits)
        self.range = ranges.checked_range(range, named)
        self.served = self.name
        if self.bits < 2 and not (self.is_fixed and self.range[0] != -self.range[1]):
            raise ValueError(
                "One bit on a symmetric range leaves zero alone. Give bits ≥ 2, or "
                f"use SteSign. Received: bits={bits}, range={range!r}."
            )

    @property
    def precision(self) -> int:
        """Bits of a code."""
        return self.bits

    @property
    def is_fixed(self) -> bool:
        """Whether the range is a pair of numbers."""
        return isinstance(self.range, tuple)

    @property
    def step(self) -> float | None:
        """The distance between codes of a fixed range, else None."""
        return ranges.step_between(self.bits, *self.range) if self.is_fixed else None

    def bind(self, kernel: Any) -> None:
        """Build for a kernel, whose path errors name. Does nothing the second time.

        Args:
            kernel: The hardware's kernel, with `path`, `view` and `tiling`.
        """
        if not self.built:
            self.served = kernel.path
            self._make_variables(kernel.view.matrix_shape[1], kernel)
            self.built = True

    def build(self, input_shape: Shape) -> None:
        self._make_variables(input_shape[-1] if input_shape else None)
        super().build(input_shape)

    def _make_variables(self, columns, kernel=None):
        """Make the variables of a range that is not fixed."""

    def _scalar(self, name, value=0.0, trainable=False, shape=()):
        return self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(value),
            trainable=trainable,
            autocast=False,
            dtype="float32",
            # Replicas see different batches.
            aggregation="mean",
            name=name,
        )

    def _is_set(self):
        """Whether the range has values, as a scalar bool tensor."""
        return ops.convert_to_tensor(True)

    def _what_is_missing(self):
        return "has a range that is not calibrated. Run calibrate(model, data) first."

    def check_ready(self, path: str | None = None) -> None:
        """Check that the range has values, where this can be seen (not in a trace).

        Args:
            path: Name for the message, by default that of the kernel it is bound to.

        Raises:
            ValueError: If the range is calibrated or learned and no value was set.
        """
        if not self._needs_values():
            return
        if not self.built or numbers_of(self._is_set()) is False:
            raise ValueError(
                f"The {type(self).__name__} of '{path or self.served}' "
                f"{self._what_is_missing()}"
            )

    def _needs_values(self):
        return self.range in ("learned", "calibrated")

    def _checked_values(self, values):
        """Values for the variable of a range, or `ValueError`."""
        if not self._needs_values():
            raise ValueError(
                f"The range of the {type(self).__name__} of '{self.served}' is "
                f"{self.range!r}, which no calibration sets. Only 'calibrated' (and, "
                "of a DAC, 'learned') ranges have a value of their own."
            )
        if not self.built:
            raise ValueError(
                f"The {type(self).__name__} of '{self.served}' is not built. Build the "
                "model (call it once) before its ranges are set."
            )
        values = np.asarray(ops.convert_to_numpy(values))
        good = values.dtype.kind in "iuf" and np.isfinite(values).all()
        if not (good and (values > 0).all()):
            raise ValueError(
                f"A range must be positive and finite. Received for the "
                f"{type(self).__name__} of '{self.served}': {values.tolist()!r}."
            )
        return values.astype("float32")

    def _checked_float(self, x):
        x = ops.convert_to_tensor(x)
        if not keras.backend.is_float_dtype(x.dtype):
            name = type(self).__name__
            raise TypeError(
                f"The {name} of '{self.served}' converts floating-point numbers. "
                f"Received: {keras.backend.standardize_dtype(x.dtype)}. Cast them "
                "first: keras.ops.cast(x, 'float32'), or begin the model with "
                "keras.layers.Rescaling(1.0)."
            )
        return x

    def _between(self, x):
        low, high = self.range
        return ranges.quantized_between(x, low, high, self.step)

    def _check_eagerly(self, x):
        """As `check_ready`, but where a function is traced with the tensor."""
        if numbers_of(ops.reshape(x, (-1,))[:0]) is not None:
            self.check_ready()

    def _or_batch(self, bound, x, unit=()):
        """`bound`, or where it is not set: an error, and in a trace max|x| / unit."""
        self._check_eagerly(x)
        largest = ranges.batch_bound(x if not unit else x / math.prod(unit))
        return ops.where(self._is_set(), bound, ops.cast(largest, "float32"))

    def quantized(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def get_config(self) -> Config:
        value = list(self.range) if self.is_fixed else self.range
        return {**super().get_config(), "bits": self.bits, "range": value}


def numbers_of(x):
    """A tensor as NumPy has it, or None where it is a trace.

    A scalar comes as a Python value.
    """
    try:
        value = ops.convert_to_numpy(x)
    except (TypeError, NotImplementedError, AttributeError):
        return None
    return value.item() if value.shape == () else value
