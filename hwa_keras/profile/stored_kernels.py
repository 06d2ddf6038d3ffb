"""The kernels of a model and the memory that holds them."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from hwa_keras.core.kernels import find_kernels
from hwa_keras.devices.sram import relative_energy
from hwa_keras.noise.bit_flip import BitFlip, bit_flip_of

__all__ = ["StoredKernel", "stored_kernels"]


@dataclass(frozen=True)
class StoredKernel:
    """A kernel of a model and the memory that holds it.

    Args:
        path: Names from the model down to the variable, joined by slashes.
        variable: The Keras variable.
        weights: Integer, how many weights it has.
        bits: Bits of a weight.
        noise: Its `BitFlip`, or None in reliable memory.
    """

    path: str
    variable: keras.Variable
    weights: int
    bits: int
    noise: BitFlip | None

    @property
    def error_rate(self):
        """The probability that a bit is read wrong, as it is now; 0 if reliable."""
        return 0.0 if self.noise is None else self.noise.error_rate

    def relative_energy(self, a=12.8):
        """η, in units of reliable memory: the mean over the bits where p differs."""
        factors = getattr(self.noise, "bit_factors", None) or (1.0,)
        rates = np.minimum(self.error_rate * np.array(factors), 0.5)
        return float(np.mean(relative_energy(rates, a)))


def stored_kernels(model, float_bits=16):
    """The kernels of a model and the memory that holds each.

    Args:
        model: A built Keras model, its layers on hardware or not.
        float_bits: Bits of a weight without a quantizer. Defaults to `16`.

    Returns:
        A list of `StoredKernel`s in the order of the model's layers, each variable
        once.
    """
    stored = []
    for kernel in find_kernels(model)[0]:
        flips = bit_flip_of(kernel.noise)
        # A BitFlip's own quantizer, if it was given one, tells the code that is stored.
        quantizer = getattr(flips, "quantizer", None) or kernel.quantizer
        stored.append(
            StoredKernel(
                path=kernel.path,
                variable=kernel.variable,
                weights=math.prod(kernel.view.shape),
                bits=getattr(quantizer, "precision", None) or float_bits,
                noise=flips,
            )
        )
    return stored
