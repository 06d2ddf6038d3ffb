"""Circuits at the ends of a layer: converters, saturation, noisy and narrow sums.

Each is a layer, to stand anywhere in a model, and an argument of the hardware layers:
`input_quantizer=DAC(...)`, `output_quantizer=ADC(...)` (or `Saturation`, or
`Accumulator`), `output_noise=OutputNoise(...)`.
"""

import keras
from keras import ops

from hwa_keras import random
from hwa_keras.checkpoint import SavesSeeds
from hwa_keras.noise.base import family
from hwa_keras.noise.gaussian import AdditiveGaussian
from hwa_keras.quantizers.base import (
    Quantizer,
    is_number,
    passed_within,
    with_pseudo_gradient,
)
from hwa_keras.quantizers.base import family as quantizer_family

__all__ = ["ADC", "DAC", "Accumulator", "OutputNoise", "Saturation"]


@family.register("output_noise")
class OutputNoise(SavesSeeds, AdditiveGaussian):
    """Adds Gaussian noise to the outputs of a layer, as its circuits do.

    y + scale·σ·z with σ as in `AdditiveGaussian`: std, or std times the largest
    magnitude or the standard deviation of the batch of outputs. As a layer of its own
    it draws from a seed of its own at each call, with `training=True` only unless
    `always` is set.

    Args:
        std: Float ≥ 0.
        relative_to: `"absolute"`, `"max"` or `"std"`. Defaults to `"absolute"`.
        always: Bool. Whether there is noise at inference, too. Defaults to `False`.
        seed: Integer, the seed as a layer of its own, or None for a random one.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> layer = hwa_keras.noise.OutputNoise(0.1, relative_to="std", always=True)
        >>> layer(np.ones((2, 3), "float32")).shape == (2, 3)
        True
    """

    def __init__(
        self,
        std,
        relative_to="absolute",
        always=False,
        seed=None,
        scale=1.0,
        **kwargs,
    ):
        super().__init__(std, relative_to=relative_to, scale=scale, **kwargs)
        self.always = bool(always)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, seed=None, training=None):
        if seed is None:
            if not (training or self.always):
                return inputs
            seed = random.next_seed(self.seed_generator)
        return super().call(inputs, seed)

    def compute_output_spec(self, inputs, seed=None, training=None):
        return super().compute_output_spec(inputs)

    def get_config(self):
        return {**super().get_config(), "always": self.always, "seed": self.seed}


@quantizer_family.register("saturation")
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
        >>> layer = hwa_keras.noise.Saturation(0.0, 6.0)
        >>> [float(v) for v in layer(np.array([-2.0, 3.0, 7.0]))]
        [0.0, 3.0, 6.0]
    """

    def __init__(self, low, high, smooth=False, gradient="true", **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = _checked_range((low, high))
        if gradient not in ("true", "straight_through"):
            raise ValueError(
                "`gradient` must be 'true' or 'straight_through'. Received: "
                f"gradient={gradient!r}."
            )
        self.smooth = bool(smooth)
        self.gradient = gradient

    def quantized(self, inputs):
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

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "smooth": self.smooth,
            "gradient": self.gradient,
        }


@quantizer_family.register("adc")
class ADC(Quantizer):
    """Converts analog outputs to digital: uniform codes over a range.

    y = low + Δ·round((min(max(x, low), high) − low)/Δ), with Δ = (high − low)/(2^bits
    − 1); on a symmetric range Δ = (high − low)/(2^bits − 2), which leaves one code
    out and makes zero a code. dy/dx = 1 inside the range, 0 outside.

    Args:
        bits: Integer from 1 to 16 (from 2 on a symmetric range).
        range: Pair (low, high), or a positive number r for (−r, r).

    Example:
        >>> layer = hwa_keras.noise.ADC(bits=2, range=(0.0, 3.0))
        >>> [float(v) for v in layer(np.array([-1.0, 1.4, 9.0]))]
        [0.0, 1.0, 3.0]

    Reference:
        - Rasch et al., 2021, arXiv:2104.02184, for the code left out.
    """

    def __init__(self, bits, range, **kwargs):
        super().__init__(**kwargs)
        self.bits = _checked_bits(bits)
        self.range = _checked_range((-range, range) if is_number(range) else range)
        if self.bits < 2 and self.range[0] == -self.range[1]:
            raise ValueError(
                "One bit on a symmetric range leaves zero alone. Give bits ≥ 2, or "
                f"use SteSign. Received: bits={bits}, range={range}."
            )

    @property
    def precision(self):
        return self.bits

    @property
    def step(self):
        """The distance between codes."""
        low, high = self.range
        # One code less on a symmetric range, so that zero is one.
        return (high - low) / (2**self.bits - (2 if low == -high else 1))

    def quantized(self, inputs):
        low, high = self.range

        def forward(x):
            codes = ops.round((ops.clip(x, low, high) - low) / self.step)
            return codes * self.step + low

        return with_pseudo_gradient(inputs, forward, passed_within(low, high))

    def get_config(self):
        return {**super().get_config(), "bits": self.bits, "range": list(self.range)}


@quantizer_family.register("dac")
class DAC(ADC):
    """Converts digital inputs to analog: uniform codes over a range, as `ADC` has.

    As the `input_quantizer` of a hardware layer it gives the precision of the inputs.

    Args:
        bits: Integer from 1 to 16 (from 2 on a symmetric range).
        range: Pair (low, high), or a positive number r for (−r, r).

    Example:
        >>> layer = hwa_keras.layers.HWADense(
        ...     3, input_quantizer=hwa_keras.noise.DAC(bits=8, range=(0.0, 1.0))
        ... )
        >>> layer(np.ones((2, 4))).shape == (2, 3)
        True
    """


@quantizer_family.register("accumulator")
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
        >>> layer = hwa_keras.noise.Accumulator(bits=4, overflow="wrap")
        >>> [float(v) for v in layer(np.array([-9.0, 7.2, 8.0]))]
        [7.0, 7.0, -8.0]
    """

    def __init__(self, bits, step=1.0, overflow="saturate", **kwargs):
        super().__init__(**kwargs)
        self.bits = _checked_bits(bits, 2, 24)
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
    def precision(self):
        return self.bits

    def quantized(self, inputs):
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

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "step": self.step,
            "overflow": self.overflow,
        }


def _checked_bits(bits, fewest=1, most=16):
    if isinstance(bits, bool) or bits not in range(fewest, most + 1):
        raise ValueError(
            f"`bits` must be an integer from {fewest} to {most}. Received: "
            f"bits={bits!r}."
        )
    return int(bits)


def _checked_range(ends):
    low, high = ends
    if not (is_number(low) and is_number(high) and low < high):
        raise ValueError(
            "A range must be two numbers, the lower one first. Received: "
            f"low={low!r}, high={high!r}."
        )
    return float(low), float(high)
