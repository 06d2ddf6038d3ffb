"""SRAM near threshold: the lower the supply, the less energy, the more wrong bits."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from keras import ops

from hwa_keras.core.checks import check_positive
from hwa_keras.core.types import ArrayLike, Seed, Self, Tensor
from hwa_keras.devices.bits import (
    check_bit_factors,
    check_encoding,
    check_error_rate,
    code_of,
    flips,
    matrix_code,
    matrix_step,
)
from hwa_keras.devices.device import Device, register
from hwa_keras.quantizers.code import Code

__all__ = ["SRAM", "error_rate", "relative_energy"]


def relative_energy(p: ArrayLike, a: float = 12.8) -> Any:
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


def error_rate(energy: ArrayLike, a: float = 12.8) -> Any:
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
    bit_factors: tuple[float, ...] | None = None
    a: float = 12.8
    code: Code | None = None
    step: tuple | None = field(default=None, repr=False)

    drifts = False
    is_array = False

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
    def energy(self) -> float:
        """η(p), in units of the energy of a reliable memory."""
        if self.p is None:
            raise ValueError("SRAM(p=None) has the p of each kernel: none of its own.")
        return relative_energy(self.p, self.a)

    def for_kernel(self, kernel: Any) -> Self:
        own = _error_source(kernel.noise)
        quantizer = getattr(own, "quantizer", None) or kernel.quantizer
        code = matrix_code(code_of("SRAM", quantizer, kernel.path), kernel.view)
        step = matrix_step(quantizer.code_step(), kernel.view)
        if self.p is None and own is None:
            raise ValueError(
                f"SRAM() takes p from the BitFlip of each kernel, and '{kernel.path}' "
                "has none. Give the p of the memory: SRAM(p=0.01)."
            )
        return replace(
            self,
            p=own.error_rate if self.p is None else self.p,
            encoding=self.encoding or getattr(own, "encoding", "twos_complement"),
            bit_factors=self.bit_factors or getattr(own, "bit_factors", None),
            code=code,
            step=None if step is None else ops.convert_to_numpy(step).tolist(),
        )

    def program(self, weights: Tensor, seed: Seed) -> dict[str, Tensor]:
        if self.errors == "hard":
            weights = self._read(weights, self._flips(ops.shape(weights), seed))
        return {"weights": weights}

    def read(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        weights = state["weights"] + 0.0 * t  # The time stays an input of exports.
        return weights if z is None else self._read(weights, z)

    def draw_read_noise(self, shape: tuple[int, ...], seed: Seed) -> Tensor | None:
        if self.errors == "hard" or self.p == 0:
            return None
        return self._flips(shape, seed)

    def perturb(
        self, weights: Tensor, seed: Seed, scale: float | Tensor = 1.0
    ) -> Tensor:
        raise ValueError(
            "The errors of SRAM belong to the bits of a kernel on a chip. Train with "
            "kernel_noise=hwa_keras.noise.BitFlip(p)."
        )

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
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


def _error_source(noise):
    """What in a kernel's noise has an error rate of its own: a `BitFlip`; or None."""
    leaves = noise.leaves() if hasattr(noise, "leaves") else []
    return next((leaf for leaf in leaves if hasattr(leaf, "error_rate")), None)


def _as_tuple(values):
    if isinstance(values, (list, tuple)):
        return tuple(_as_tuple(value) for value in values)
    return values
