"""Accumulator: sums in an integer register of a few bits."""

from typing import Any

from keras import ops

from hwa_keras.circuits.ranges import checked_bits
from hwa_keras.core.types import Config, Tensor
from hwa_keras.quantizers.base import (
    Quantizer,
    family,
    is_number,
    passed_within,
    with_pseudo_gradient,
)

__all__ = ["Accumulator"]


@family.register("accumulator")
class Accumulator(Quantizer):
    """Holds sums in an integer register of a few bits, in two's complement.

    The sum is rounded to an integer number of steps k. Of n bits, a register that
    saturates holds min(max(k, −2^(n−1)), 2^(n−1) − 1), with a gradient of 1 in its
    range and 0 outside; one that wraps holds ((k + 2^(n−1)) mod 2^n) − 2^(n−1), with
    a gradient of 1. Wrapping at the end is the same as wrapping after each addend;
    saturating at the end is what a register does whose partial sums stay in range.

    Args:
        bits: Integer from 2 to 24.
        step: Float > 0, what one unit of the register is worth: 1 for sums of binary
            products. Defaults to `1.0`.
        overflow: `"saturate"` or `"wrap"`. Defaults to `"saturate"`.

    Example:
        >>> layer = hwa_keras.circuits.Accumulator(bits=4, overflow="wrap")
        >>> [float(v) for v in layer(np.array([-9.0, 7.2, 8.0]))]
        [7.0, 7.0, -8.0]
    """

    def __init__(
        self, bits: int, step: float = 1.0, overflow: str = "saturate", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bits = checked_bits(bits, 2, 24)
        if not (is_number(step) and step > 0):
            raise ValueError(f"`step` must be positive. Received: step={step!r}.")
        if overflow not in ("saturate", "wrap"):
            raise ValueError(
                "`overflow` must be 'saturate' or 'wrap'. Received: "
                f"overflow={overflow!r}."
            )
        self.step = float(step)
        self.overflow = overflow

    @property
    def precision(self) -> int:
        return self.bits

    def quantized(self, inputs: Tensor) -> Tensor:
        half = 2.0 ** (self.bits - 1)
        low, high = -half * self.step, (half - 1) * self.step

        def forward(x):
            k = ops.round(x / self.step)
            if self.overflow == "wrap":
                k = k - 2 * half * ops.floor((k + half) / (2 * half))
            return ops.clip(k, -half, half - 1) * self.step

        def backward(x, upstream):
            if self.overflow == "wrap":
                return upstream
            return passed_within(low, high)(x, upstream)

        return with_pseudo_gradient(inputs, forward, backward)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bits": self.bits,
            "step": self.step,
            "overflow": self.overflow,
        }
