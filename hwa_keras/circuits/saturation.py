"""Saturation: the ends of the range of an amplifier or a register."""

from typing import Any

from keras import ops

from hwa_keras.circuits.ranges import checked_pair
from hwa_keras.core.types import Config, Tensor
from hwa_keras.quantizers.base import (
    Quantizer,
    family,
    passed_within,
    with_pseudo_gradient,
)

__all__ = ["Saturation"]


@family.register("saturation")
class Saturation(Quantizer):
    """Saturates at the ends of a range, as amplifiers and registers do.

    Hard: y = min(max(x, low), high). Smooth: y = m + h·tanh((x − m)/h) with
    m = (low + high)/2 and h = (high − low)/2.

    Args:
        low: Float, the lower end.
        high: Float > low, the upper end.
        smooth: Bool. Defaults to `False`.
        gradient: `"true"`, the gradient of the formula (1 at the ends of the hard
            one), or `"straight_through"`: 1 everywhere. Defaults to `"true"`.

    Example:
        >>> layer = hwa_keras.circuits.Saturation(0.0, 6.0)
        >>> [float(v) for v in layer(np.array([-2.0, 3.0, 7.0]))]
        [0.0, 3.0, 6.0]
    """

    def __init__(
        self,
        low: float,
        high: float,
        smooth: bool = False,
        gradient: str = "true",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.low, self.high = checked_pair(low, high, finite=smooth)
        if gradient not in ("true", "straight_through"):
            raise ValueError(
                "`gradient` must be 'true' or 'straight_through'. Received: "
                f"gradient={gradient!r}."
            )
        self.smooth = bool(smooth)
        self.gradient = gradient

    def quantized(self, inputs: Tensor) -> Tensor:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2

        def forward(x):
            if self.smooth:
                return middle + half * ops.tanh((x - middle) / half)
            return ops.clip(x, self.low, self.high)

        def backward(x, upstream):
            if self.gradient == "straight_through":
                return upstream
            if self.smooth:
                return upstream * (1 - ops.square(ops.tanh((x - middle) / half)))
            return passed_within(self.low, self.high)(x, upstream)

        return with_pseudo_gradient(inputs, forward, backward)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "smooth": self.smooth,
            "gradient": self.gradient,
        }
