"""SRAM near threshold: the lower the supply, the less energy, the more wrong bits."""

import math
import numbers
from dataclasses import dataclass, field, replace

import numpy as np
from keras import ops

from hwa_keras import random
from hwa_keras.devices.device import (
    Device,
    check_not_negative,
    check_positive,
    register,
)
from hwa_keras.quantizers.code import Code, check_encoding

__all__ = ["SRAM", "error_rate", "relative_energy"]


def relative_energy(p, a=12.8):
    """The energy of a memory whose bits are read wrong with a probability.

    η(p) = −ln(p)/a and η(0) = 1, in units of the energy of a reliable memory. No cell
    costs more than a reliable one, so that η = 1 below p = e^−a.

    Args:
        p: Float or array in [0, ½].
        a: Float > 0, a constant of the technology. Defaults to `12.8`.

    Returns:
        A float or `float64` array.

    Example:
        >>> round(hwa_keras.devices.relative_energy(0.01), 2)
        0.36

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.27.
    """
    check_positive("relative_energy", a=a)
    values = np.asarray(p, "float64")
    if not np.all((values >= 0) & (values <= 0.5)):
        raise ValueError(
            "`p` is the probability that a bit is read wrong, from 0 to 0.5. "
            f"Received: p={p}."
        )
    floor = math.exp(-a)
    found = -np.log(np.maximum(values, floor)) / a
    return float(found) if found.ndim == 0 else found


def error_rate(energy, a=12.8):
    """The probability of a wrong bit that goes with an energy: η⁻¹.

    Args:
        energy: Float or array from η(½) to 1, in units of a reliable memory's.
        a: Float > 0, a constant of the technology. Defaults to `12.8`.

    Returns:
        A float or `float64` array: p = e^(−a·η), and 0 for η = 1.

    Example:
        >>> round(hwa_keras.devices.error_rate(0.36), 3)
        0.01
    """
    lowest = relative_energy(0.5, a)
    values = np.asarray(energy, "float64")
    if not np.all((values >= lowest) & (values <= 1)):
        raise ValueError(
            f"`energy` must be from {lowest:.4g}, where a bit is lost (p = ½), to 1, a "
            f"reliable memory. Received: energy={energy}."
        )
    found = np.where(values == 1, 0.0, np.minimum(np.exp(-a * values), 0.5))
    return float(found) if found.ndim == 0 else found


def check_error_rate(owner, **rates):
    """Raise `ValueError` for a probability of error that is not in [0, ½]."""
    for name, rate in rates.items():
        if not (isinstance(rate, numbers.Real) and 0 <= float(rate) <= 0.5):
            raise ValueError(
                f"`{name}` of {owner} is the probability that a bit is read wrong, "
                "from 0 to 0.5: at 0.5 nothing is left of what was stored. Received: "
                f"{name}={rate!r}."
            )


def check_bit_factors(owner, factors, code=None):
    """Check the factors on p of each bit, and return them as a tuple or None."""
    if factors is None:
        return None
    if not isinstance(factors, (list, tuple)):
        raise ValueError(
            f"`bit_factors` of {owner} must be a list of factors on p, one per bit and "
            f"the highest bit first, or None. Received: bit_factors={factors!r}."
        )
    for factor in factors:
        check_not_negative(owner, bit_factors=factor)
    if code is not None and len(factors) != code.bits:
        raise ValueError(
            f"`bit_factors` of {owner} has {len(factors)} factors, and the code of the "
            f"quantizer has {code.bits} bits. Give one per bit, the highest bit first."
        )
    return tuple(float(factor) for factor in factors)


def kernel_code(owner, quantizer, path):
    """The code of a kernel's quantizer, or a `ValueError` that says what is missing."""
    found = getattr(quantizer, "code", lambda: None)()
    if found is None:
        has = "no quantizer" if quantizer is None else f"{quantizer!r}, of unknown code"
        raise ValueError(
            f"{owner} flips the bits of quantized weights, and '{path}' has {has}. "
            "Give the kernel a quantizer: kernel_quantizer='ste_sign' or "
            "BinaryConnect() for 1 bit, DoReFa(k_bit=4, mode='weights') or "
            "Uniform(levels=8, scale='max') for 4 bits."
        )
    if found.bits > 24:
        raise ValueError(
            f"{owner} flips the bits of codes of up to 24 bits, which is what float32 "
            f"holds, and {quantizer!r} of '{path}' has {found.bits}. Give it fewer "
            "levels."
        )
    return found


def flips(shape, seed, p, bits, factors=None):
    """Draw which bits are read wrong: the binary symmetric channel.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        p: Scalar from 0 to ½, the probability of each bit.
        bits: Integer, bits of a code.
        factors: Sequence of factors on p, one per bit, the highest bit first; None
            for the same p everywhere. No product exceeds ½.

    Returns:
        An `int32` tensor, a bit that is read wrong being 1.

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.28.
    """
    factors = reversed(factors or (1.0,) * bits)
    rates = [ops.minimum(p * factor, 0.5) for factor in factors]
    return random.bernoulli_bits(shape, seed, rates)


@register("sram")
@dataclass(frozen=True)
class SRAM(Device):
    """Digital memory at a supply voltage near the threshold of its transistors.

    Each bit of a weight's code is read wrong with probability p, for an energy of
    η(p) = −ln(p)/a of that of a reliable memory. Nothing drifts, so nothing is
    compensated. Which bits a kernel has, its quantizer tells.

    Args:
        p: Float in [0, ½], or None: each kernel has that of its `noise.BitFlip`, as
            `training.LaNMax` has found it. Defaults to `None`.
        errors: `"soft"`: at each read other bits are wrong, as noise or particles
            make them. `"hard"`: the same bits are wrong at each read, as the
            variation of a chip's cells makes them. Soft errors are read noise: a chip
            with `read_noise="per_call"` draws them at each call, with `"frozen"` it
            keeps one draw, with `"off"` it has none. Defaults to `"soft"`.
        encoding: `"twos_complement"` or `"sign_magnitude"`, for codes of more than one
            bit; None for that of the `BitFlip`, or else `"twos_complement"`.
        bit_factors: Factors on p for each bit, the highest first, as in `BitFlip`;
            None for those of the `BitFlip`, or else the same p for all.
        a: Float > 0, the constant of the technology. Defaults to `12.8`.
        code: The `Code` of the kernel; set when a chip is programmed.
        step: Nested tuple of floats, the learned step of the code, or None.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     hwa_keras.layers.HWADense(3, kernel_quantizer="ste_sign"),
        ... ])
        >>> memory = hwa_keras.devices.SRAM(p=0.01, errors="hard")
        >>> chip = hwa_keras.program(model, memory, seed=1)
        >>> chip(np.ones((2, 8))).shape == (2, 3)
        True
        >>> round(memory.energy, 2)
        0.36

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 3.3.1.
    """

    p: float | None = None
    errors: str = "soft"
    encoding: str | None = None
    bit_factors: tuple | None = None
    a: float = 12.8
    code: Code | None = None
    step: tuple | None = field(default=None, repr=False)

    drifts = False

    def __post_init__(self):
        if self.p is not None:
            check_error_rate("SRAM", p=self.p)
        check_positive("SRAM", a=self.a)
        if self.errors not in ("soft", "hard"):
            raise ValueError(
                "`errors` of SRAM must be 'soft' (drawn at each read) or 'hard' (drawn "
                f"once per chip). Received: errors={self.errors!r}."
            )
        if self.encoding is not None:
            check_encoding("SRAM", self.encoding)
        if isinstance(self.code, dict):  # From a file, in which tuples are lists.
            code = Code(**{**self.code, "axis": _as_tuple(self.code["axis"])})
            object.__setattr__(self, "code", code)
        factors = check_bit_factors("SRAM", self.bit_factors, self.code)
        object.__setattr__(self, "bit_factors", factors)
        object.__setattr__(self, "step", _as_tuple(self.step))

    @property
    def energy(self):
        """η(p), in units of the energy of a reliable memory."""
        if self.p is None:
            raise ValueError("SRAM(p=None) has the p of each kernel: none of its own.")
        return relative_energy(self.p, self.a)

    def for_kernel(self, path, quantizer, noise):
        from hwa_keras.noise.bit_flip import bit_flip_of  # Noises know devices.

        own = bit_flip_of(noise)
        quantizer = getattr(own, "quantizer", None) or quantizer
        code = kernel_code("SRAM", quantizer, path)
        step = quantizer.code_step()
        if self.p is None and own is None:
            raise ValueError(
                f"SRAM() takes p from the BitFlip of each kernel, and '{path}' has "
                "none. Give the p of the memory: SRAM(p=0.01)."
            )
        return replace(
            self,
            p=own.error_rate if self.p is None else self.p,
            encoding=self.encoding or getattr(own, "encoding", "twos_complement"),
            bit_factors=self.bit_factors or getattr(own, "bit_factors", None),
            code=code,
            step=None if step is None else ops.convert_to_numpy(step).tolist(),
        )

    def program(self, weights, seed):
        if self.errors == "hard":
            weights = self._read(weights, self._flips(ops.shape(weights), seed))
        return {"weights": weights}

    def read(self, state, t, z=None):
        weights = state["weights"] + 0.0 * t  # The time stays an input of exports.
        return weights if z is None else self._read(weights, z)

    def draw_read_noise(self, shape, seed):
        if self.errors == "hard" or self.p == 0:
            return None
        return self._flips(shape, seed)

    def perturb(self, weights, seed, scale=1.0):
        raise ValueError(
            "SRAM knows the bits of a kernel only once a chip is programmed. Train "
            "with kernel_noise=hwa_keras.noise.BitFlip(p)."
        )

    def oracle_gain(self, state, t):
        return ops.ones(())

    def _flips(self, shape, seed):
        bits = self._known_code().bits
        return flips(shape, seed, self.p, bits, self.bit_factors)

    def _read(self, weights, wrong):
        step = None if self.step is None else np.array(self.step, "float32")
        return self._known_code().flipped(weights, wrong, step, self.encoding)

    def _known_code(self):
        if self.code is None:
            raise ValueError(
                "This SRAM belongs to no kernel, so the bits of a weight are not "
                "known. hwa_keras.program(model, SRAM(...)) gives each kernel its own."
            )
        return self.code


def _as_tuple(values):
    if isinstance(values, (list, tuple)):
        return tuple(_as_tuple(value) for value in values)
    return values
