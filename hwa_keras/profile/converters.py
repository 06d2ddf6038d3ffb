"""Energy of what stands around an array: converters, amplifiers and adders.

Reference:
    - R. H. Walden, "Analog-to-digital converter survey and analysis", IEEE JSAC 1999.
    - R. Schreier and G. C. Temes, "Understanding delta-sigma data converters", 2005.
    - T. Andrulis et al., "Modeling analog-digital-converter energy and area for
      compute-in-memory accelerator design", 2024, arXiv:2404.06553: a fit of the
      published converters of B. Murmann's ADC performance survey.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hwa_keras.core.checks import (
    check_choice,
    check_count,
    check_not_negative,
    check_positive,
)

__all__ = [
    "ADC_PJ",
    "PJ_PER_ADDITION",
    "Periphery",
    "adc_energy",
    "schreier_energy",
    "walden_energy",
]

ADC_PJ = {
    6: {45: 2.0, 32: 1.06, 22: 0.53, 14: 0.22},
    8: {45: 3.2, 32: 1.71, 22: 0.85, 14: 0.36},
}
"""Energy of a conversion in pJ, by bits and technology in nm, at 1 GS/s or less.

What good published converters take, from the model of Andrulis et al., 2024, which fits
Murmann's survey.
"""

PJ_PER_ADDITION = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}
"""Energy of an addition in 45 nm, in pJ.

From M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
2014.
"""

_DAC_FOM = 1.2e-15
_DAC_SOURCE = (
    "1.2 fJ a step (relaxation DACs in 40 nm, Rubino, Crovetti and Aiello, APCCAS 2019)"
)


def walden_energy(bits: float, fom: float) -> float:
    """Energy of a conversion by Walden's figure of merit: E = fom·2^bits, in J.

    Args:
        bits: Float > 0, the (effective) number of bits.
        fom: Float > 0, energy of a conversion step, J.

    Example:
        >>> hwa_keras.profile.walden_energy(8, fom=10e-15)
        2.56e-12

    Reference:
        - Walden, 1999.
    """
    check_positive("walden_energy", bits=bits, fom=fom)
    return fom * 2.0**bits


def schreier_energy(bits: float, fom: float) -> float:
    """Energy of a conversion by Schreier's figure of merit, for thermal noise, in J.

    fom = SNDR + 10·log₁₀(bandwidth/power) in dB, with SNDR = 20·log₁₀(2^bits) +
    10·log₁₀(1.5) and two conversions per period of the bandwidth, so that E =
    10^((SNDR − fom)/10)/2. It grows by a factor of 4 a bit, where Walden's grows by 2.

    Args:
        bits: Float > 0, the effective number of bits.
        fom: Float > 0, the figure of merit, dB.

    Example:
        >>> round(hwa_keras.profile.schreier_energy(8, fom=160.0) * 1e12, 2)
        4.92

    Reference:
        - Schreier and Temes, 2005.
    """
    check_positive("schreier_energy", bits=bits, fom=fom)
    sndr = 20.0 * bits * math.log10(2.0) + 10.0 * math.log10(1.5)
    return 10.0 ** ((sndr - fom) / 10.0) / 2.0


def adc_energy(bits: int, technology: float = 45.0) -> float:
    """Energy of a conversion from analog to digital by a table of converters, in J.

    In bits E = a + b·2^bits, Walden's form and a part that all converters have, through
    the values of `ADC_PJ` at 6 and 8 bits; in the technology a power law from each of
    its columns to the next. It holds for 1 GS/s or less.

    Args:
        bits: Integer from 1 to 16.
        technology: Float from 14 to 45, the feature size, nm. Defaults to `45.0`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> round(hwa_keras.profile.adc_energy(8, technology=14) * 1e12, 3)
        0.36
        >>> round(hwa_keras.profile.adc_energy(7, technology=45) * 1e12, 3)
        2.4

    Reference:
        - Andrulis et al., 2024, arXiv:2404.06553.
    """
    bits = check_count("adc_energy", most=16, bits=bits)
    at = {known: _at_technology(ADC_PJ[known], technology) for known in ADC_PJ}
    low, high = sorted(at)
    b = (at[high] - at[low]) / (2.0**high - 2.0**low)
    return 1e-12 * (at[low] + b * (2.0**bits - 2.0**low))


def _at_technology(row, technology):
    """A value between those of a row of the table: a line in both logarithms."""
    check_positive("adc_energy", technology=technology)
    nodes = sorted(row)
    if not nodes[0] <= technology <= nodes[-1]:
        raise ValueError(
            f"`technology` must be from {nodes[0]} to {nodes[-1]} nm, where ADCs are "
            f"tabulated. Received: technology={technology}. Elsewhere give the energy "
            "of a conversion itself: Periphery(adc=0.2e-12)."
        )
    below = max(node for node in nodes[:-1] if node <= technology)
    above = nodes[nodes.index(below) + 1]
    slope = math.log(row[above] / row[below]) / math.log(above / below)
    return row[below] * (technology / below) ** slope


@dataclass(frozen=True)
class Periphery:
    """What stands around the arrays of a crossbar, and the energy that it takes.

    Args:
        technology: Float from 14 to 45, the feature size that `adc_energy` takes, nm.
            Defaults to `45.0`.
        adc: Energy of a conversion, J, or a function from bits to it, such as
            `lambda bits: walden_energy(bits, 10e-15)`; None for `adc_energy`.
        dac: The same for DACs; None for 1.2 fJ·2^bits.
        tia_resistance: Float ≥ 0, the feedback resistance r of the amplifiers of the
            columns, Ω. An amplifier takes r·I². None for the resistance at which the
            largest current of a kernel makes v_read.
        addition: Float ≥ 0, energy of a digital addition, J. Defaults to that of 32-bit
            integers in 45 nm, `1e-13`.
        subtraction: Where what the two devices of a pair conduct is subtracted:
            `"analog"`, before one ADC, or `"digital"`, behind two. Defaults to
            `"analog"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> periphery = hwa_keras.profile.Periphery(technology=14)
        >>> round(periphery.of_adc(8) * 1e12, 2), round(periphery.of_dac(8) * 1e12, 2)
        (0.36, 0.31)
    """

    technology: float = 45.0
    adc: float | Callable[[int], float] | None = None
    dac: float | Callable[[int], float] | None = None
    tia_resistance: float | None = None
    addition: float = 1e-12 * PJ_PER_ADDITION["int32"]
    subtraction: str = "analog"

    def __post_init__(self):
        for name in ("adc", "dac", "tia_resistance", "addition"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                check_not_negative("Periphery", **{name: value})
        known = ("analog", "digital")
        check_choice("Periphery", known, subtraction=self.subtraction)
        if self.adc is None:
            adc_energy(8, self.technology)

    def of_adc(self, bits: int) -> float:
        """Energy of a conversion by an ADC of so many bits, J."""
        if self.adc is None:
            return adc_energy(bits, self.technology)
        return self.adc(bits) if callable(self.adc) else self.adc

    def of_dac(self, bits: int) -> float:
        """Energy of a conversion by a DAC of so many bits, J."""
        if self.dac is None:
            return walden_energy(bits, _DAC_FOM)
        return self.dac(bits) if callable(self.dac) else self.dac

    def sources(self) -> tuple[str, ...]:
        """Where the energies come from, a tuple of lines."""
        adc, dac = "as given", "as given"
        if self.adc is None:
            adc = (
                f"{self.technology:g} nm at 1 GS/s or less, Andrulis et al., "
                "arXiv:2404.06553; a + b·2^bits"
            )
        if self.dac is None:
            dac = f"{_DAC_SOURCE}; 2^bits steps"
        return (
            f"ADCs: {adc}",
            f"DACs: {dac}",
            f"digital: {self.addition * 1e12:g} pJ an addition (32-bit integers in "
            "45 nm take 0.1 pJ, Horowitz, ISSCC 2014)",
        )
