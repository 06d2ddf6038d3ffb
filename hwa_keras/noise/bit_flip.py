"""BitFlip: memory cells that are read wrong."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras import quantizers
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Config, Seed, Tensor
from hwa_keras.devices.bits import (
    check_bit_factors,
    check_encoding,
    check_error_rate,
    code_of,
    flips,
    matrix_code,
    matrix_step,
)
from hwa_keras.noise.base import Noise, family

__all__ = ["BitFlip", "bit_flip_of"]


@family.register("bit_flip")
class BitFlip(Noise):
    """Flips each bit of quantized weights with a probability: under-volted memory.

    The binary symmetric channel. A weight of one bit is stored as its sign, and a flip
    changes it; of n bits each flips on its own, and the weight becomes that of the
    code that is read. The kernel needs a quantizer, which tells the bits. What is
    drawn anew for each call in training are soft errors; a chip is made with
    `hwa_keras.program(model, hwa_keras.devices.SRAM())`.

    Args:
        p: Float in [0, ½], the initial value of the `p` variable: the probability that
            a bit is read wrong. At 0 the weights are read as they are, and no random
            numbers are drawn.
        encoding: How codes of more than one bit are stored: `"twos_complement"` or
            `"sign_magnitude"`. Defaults to `"twos_complement"`.
        bit_factors: List of floats ≥ 0, a factor on p for each bit, the highest first:
            `[0.0, 1.0, 1.0, 1.0]` keeps the highest of four in reliable cells. None
            for the same p everywhere. Defaults to `None`.
        quantizer: What the weights were quantized with: a quantizer or its name.
            Defaults to the quantizer of the kernel that the noise belongs to.
        scale: Initial value of the `scale` variable, a factor on p; no probability
            exceeds ½. Defaults to `1.0`.

    Raises:
        ValueError: If p is out of its range; or when the noise comes to a kernel that
            no quantizer has given a code.

    Example:
        >>> noise = hwa_keras.noise.BitFlip(0.5, quantizer="ste_sign")
        >>> w = np.ones(1000, "float32")
        >>> flipped = noise(w, hwa_keras.random.seed_from(7))
        >>> round(float(ops.mean(flipped < 0)), 3)
        0.499
        >>> _ = noise.p.assign(0.0)
        >>> bool(ops.all(noise(w, hwa_keras.random.seed_from(7)) == w))
        True

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equations 3.28, 3.29.
    """

    def __init__(
        self,
        p: float,
        encoding: str = "twos_complement",
        bit_factors: Sequence[float] | None = None,
        quantizer: str | quantizers.Quantizer | None = None,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(scale=scale, **kwargs)
        check_error_rate("BitFlip", p=p)
        self._initial_p = float(p)
        self.encoding = check_encoding("BitFlip", encoding)
        self.bit_factors = check_bit_factors("BitFlip", bit_factors)
        # In functions: Keras would count the weights of quantizers as the noise's too.
        given = quantizers.get(quantizer)
        self._given_quantizer = lambda: given
        self._quantizer = lambda: None
        self.p = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self._initial_p),
            trainable=False,
            dtype="float32",
            autocast=False,
            name="p",
        )
        # What training.LaNMax needs to go on: velocity of p, best loss, epochs done.
        self.search = self.add_weight(
            shape=(3,),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,
            name="search",
        )
        self._view = None
        self.code: Any = None
        if given is not None:
            self._know(given, "weights")

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        self._view = kernel.view
        self._know(self._given_quantizer() or kernel.quantizer, kernel.path)

    def _know(self, quantizer, path):
        """Know the code of the weights, or raise `ValueError`."""
        code = code_of("BitFlip", quantizer, path)
        self.code = matrix_code(code, self._view)
        check_bit_factors("BitFlip", self.bit_factors, self.code)
        self._quantizer = lambda: quantizer

    @property
    def quantizer(self) -> Any:
        """What the weights were quantized with; None as long as that is not known."""
        return self._quantizer()

    @property
    def error_rate(self) -> float:
        """The probability that a bit is read wrong: p·scale, ½ at most."""
        p = float(ops.convert_to_numpy(self.p.value))
        return min(p * self.total_scale, 0.5)

    def strength(self, factor: float | Tensor = 1.0, chip: Seed | None = None) -> Any:
        step = None if self.quantizer is None else self.quantizer.code_step()
        step = matrix_step(step, self._view)
        return super().strength(factor) * self.p.value, step

    def perturb(self, w: Tensor, seed: Seed, strength: Any) -> Tensor:
        p, step = strength
        if self.quantizer is None:
            self._know(None, "weights")  # Says what is missing.

        def read():
            wrong = flips(ops.shape(w), seed, p, self.code.bits, self.bit_factors)
            return self.code.flipped(w, wrong, step, self.encoding)

        return ops.cond(p > 0, read, lambda: w)

    def for_kernel(self, kernel: Any) -> "BitFlip":
        copy = replicate(self)
        copy.bind(kernel)
        return copy

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "p": self._initial_p,
            "encoding": self.encoding,
            "bit_factors": self.bit_factors and list(self.bit_factors),
            "quantizer": quantizers.serialize(self._given_quantizer()),
        }


def bit_flip_of(noise):
    """The `BitFlip` in a noise, the first of several; None if there is none."""
    leaves = noise.leaves() if isinstance(noise, Noise) else []
    return next((leaf for leaf in leaves if isinstance(leaf, BitFlip)), None)
