"""What the memory of a model's kernels costs, by their bits and their reliability."""

from dataclasses import dataclass
from typing import Any

import keras
import rich.table
from rich.text import Text

from hwa_keras.core.checks import check_count, check_positive, is_number
from hwa_keras.profile.stored_kernels import stored_kernels
from hwa_keras.results import Tabular

__all__ = [
    "PJ_PER_BIT",
    "WIDE_RESNET_28_10_WEIGHTS",
    "KernelEnergy",
    "MemoryEnergy",
    "check_model",
    "memory_energy",
]

PJ_PER_BIT = {
    "sram_8_kib": 10 / 64,
    "sram_32_kib": 20 / 64,
    "sram_1_mib": 100 / 64,
    "dram": 1300 / 64,
    "dram_high": 2600 / 64,
}
"""Energy of reading a bit of a reliable memory in 45 nm, in pJ.

That of an access of 64 bits, divided by 64: caches of three sizes, and DRAM from the
lower to the upper end of its range. From M. Horowitz, "Computing's energy problem (and
what we can do about it)", ISSCC 2014, as in table 2.1 of S. Henwood, PhD thesis,
Polytechnique Montréal, 2024.
"""

WIDE_RESNET_28_10_WEIGHTS = 36_461_232
"""Weights of the 29 kernels of WideResNet-28-10 for CIFAR-10, the thesis's unit."""

_SRAMS = (("sram_8_kib", 2**16), ("sram_32_kib", 2**18), ("sram_1_mib", 2**23))


@dataclass(frozen=True)
class KernelEnergy:
    """What the memory of one kernel costs.

    Args:
        path: Names from the model down to the kernel, joined by slashes.
        weights: Integer, how many weights it has.
        bits: Bits of a weight.
        error_rate: p, the probability that a bit is read wrong.
        relative: η(p), in units of the energy of a reliable memory.
        share: Of the energy of all kernels, from 0 to 1.
    """

    path: str
    weights: int
    bits: int
    error_rate: float
    relative: float
    share: float

    @property
    def energy(self) -> float:
        """bits·η·weights, in units of the energy of one reliable bit."""
        return self.bits * self.relative * self.weights

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        names = ("path", "weights", "bits", "error_rate", "relative", "energy", "share")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class MemoryEnergy(Tabular):
    """What the memory of a model's kernels costs: what `memory_energy` returns.

    Printed, it is a table.

    Args:
        name: The model's name.
        kernels: Tuple of `KernelEnergy`s.
        reference: What the energy is compared with, in words.
        reference_energy: Its energy, in units of the energy of one reliable bit.
        a: The constant of the technology.
    """

    name: str
    kernels: tuple[KernelEnergy, ...]
    reference: str
    reference_energy: float
    a: float = 12.8

    @property
    def energy(self) -> float:
        """E, in units of the energy of one reliable bit."""
        return sum(kernel.energy for kernel in self.kernels)

    @property
    def relative(self) -> float:
        """The energy in units of the reference's."""
        return self.energy / self.reference_energy

    @property
    def weights(self) -> int:
        """How many weights the kernels have together."""
        return sum(kernel.weights for kernel in self.kernels)

    def joules(self, pj_per_bit: float) -> float:
        """The energy of reading every kernel once.

        Args:
            pj_per_bit: Float > 0, the energy of reading one reliable bit in pJ, such
                as those in `hwa_keras.profile.PJ_PER_BIT`.

        Returns:
            A float, in J: E·pj_per_bit·10⁻¹².

        Raises:
            ValueError: If it is no positive, finite number.

        Example:
            >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
            >>> found = hwa_keras.memory_energy(model)  # 640 weights of 16 bits
            >>> found.joules(hwa_keras.profile.PJ_PER_BIT["sram_8_kib"])
            1.6e-09
        """
        check_positive("joules", pj_per_bit=pj_per_bit)
        return self.energy * pj_per_bit * 1e-12

    @property
    def memory(self) -> str:
        """The smallest SRAM of `PJ_PER_BIT` that holds all kernels.

        Banks of 1 MiB where none does.
        """
        bits = sum(kernel.bits * kernel.weights for kernel in self.kernels)
        return next((name for name, size in _SRAMS if bits <= size), _SRAMS[-1][0])

    @property
    def pj_per_bit(self) -> float:
        """Of that memory, as `joules` takes it."""
        return PJ_PER_BIT[self.memory]

    @property
    def source(self) -> str:
        """Where the figures come from, in one line."""
        return (
            f"memory_energy; η(p) = −ln(p)/{self.a:g}, Henwood, 2024; each kernel read "
            f"once, {self.pj_per_bit:.3g} pJ a reliable bit ({self.memory}), "
            "Horowitz, ISSCC 2014"
        )

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: one for each kernel."""
        return [{"model": self.name, **kernel.to_dict()} for kernel in self.kernels]

    def tables(self) -> list[rich.table.Table]:
        return [self.table(), self.totals()]

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "kernels": [kernel.to_dict() for kernel in self.kernels],
            "energy": self.energy,
            "reference": self.reference,
            "reference_energy": self.reference_energy,
            "relative": self.relative,
            "a": self.a,
        }

    def table(self) -> rich.table.Table:
        """The kernels as a `rich.table.Table`."""
        title = f"{self.name}: energy of the memory of its kernels"
        table = rich.table.Table(title=Text(title), show_footer=True)
        table.add_column("kernel", Text("total"))
        table.add_column("weights", f"{self.weights:,}", justify="right")
        table.add_column("bits", justify="right")
        table.add_column("bit error rate", justify="right")
        table.add_column("energy of a bit", justify="right")
        table.add_column("energy", f"{self.energy:,.1f}", justify="right")
        table.add_column("share", justify="right")
        for kernel in self.kernels:
            cells = (
                kernel.path,
                f"{kernel.weights:,}",
                f"{kernel.bits}",
                f"{kernel.error_rate:.3g}",
                f"{kernel.relative:.3f}",
                f"{kernel.energy:,.1f}",
                f"{100 * kernel.share:.1f} %",
            )
            table.add_row(*map(Text, cells))
        return table

    def totals(self) -> rich.table.Table:
        """The sums as a `rich.table.Table`."""
        grid = rich.table.Table.grid(padding=(0, 2))
        for row in (
            ("energy, in reliable bits", f"{self.energy:,.1f}"),
            ("reference", f"{self.reference}: {self.reference_energy:,.1f}"),
            ("relative to the reference", f"{100 * self.relative:.1f} %"),
        ):
            grid.add_row(*map(Text, row))
        return grid


def memory_energy(
    model: keras.Model,
    reference: str | float | keras.Model = "reliable",
    a: float = 12.8,
    float_bits: int = 16,
) -> MemoryEnergy:
    """The energy of the memory that holds a model's kernels.

    E = Σ bits·η(p)·weights over the kernels, with η(p) = −ln(p)/a and η(0) = 1, in
    units of the energy of one reliable bit. p is what the `noise.BitFlip` of a kernel
    has now, its scale included; a kernel without one is in reliable memory, whatever
    other noise it has. Where the bits of a weight have different p (`bit_factors`), η
    is their mean. Only kernels count: biases, embeddings and the parameters of
    normalizations stay in other, reliable memory, and so do learned scales of
    quantizers. A layer that is called twice is stored once.

    Args:
        model: Any built Keras model, its layers on hardware or not, also with models
            inside.
        reference: What the energy is compared with. Defaults to `"reliable"`.

            - `"reliable"`: the same kernels in the same bits, all reliable.
            - `"16_bit"`: the same kernels in 16 bits, reliable.
            - `"wide_resnet_28_10"`: the kernels of WideResNet-28-10 for CIFAR-10 in
              16 bits, reliable.
            - A built Keras model: its own energy, with its own error rates.
            - A number > 0: so many bits, reliable.
        a: Float > 0, a constant of the technology. Defaults to `12.8`.
        float_bits: Integer ≥ 1, bits of a weight without a quantizer that has a
            `precision`. Defaults to `16`.

    Returns:
        A `MemoryEnergy`: `energy`, `relative`, `kernels`, `joules(pj_per_bit)`,
        `to_dict()`, `table()`.

    Raises:
        TypeError: If it is no Keras model, or a chip; or if the reference is neither
            a string, a model nor a number.
        ValueError: If a model is not built or has no kernels; or if `reference`, `a`
            or `float_bits` is not among what is allowed.

    Example:
        >>> bits = dict(kernel_quantizer="ste_sign", use_bias=False)
        >>> noise = hwa_keras.noise.BitFlip(0.01)
        >>> model = keras.Sequential([
        ...     keras.Input((64,)),
        ...     hwa_keras.layers.HWADense(100, kernel_noise=noise, **bits),
        ...     hwa_keras.layers.HWADense(10, **bits),
        ... ])
        >>> found = hwa_keras.memory_energy(model)
        >>> [round(kernel.relative, 2) for kernel in found.kernels]
        [0.36, 1.0]
        >>> round(found.energy)  # 0.36·6400 + 1000 of 7400 bits
        3303
        >>> round(found.relative, 3)
        0.446
        >>> round(hwa_keras.memory_energy(model, "16_bit").relative, 3)
        0.028

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equations 3.27, 3.30.
    """
    check_positive("memory_energy", a=a)
    check_count("memory_energy", float_bits=float_bits)
    kernels = _kernel_energies("memory_energy", model, a, float_bits)
    words, energy = _reference(reference, kernels, a, float_bits)
    return MemoryEnergy(model.name, kernels, words, float(energy), float(a))


def check_model(owner, model):
    """Raise an error that names the function `owner` unless it is a built model."""
    if not isinstance(model, keras.Model) or getattr(model, "is_chip", False):
        raise TypeError(
            f"`{owner}` takes a Keras model; of a chip, give it the model that was "
            f"programmed. Received: {model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights yet. Call it "
            "once on a batch of inputs, or begin it with keras.Input(shape)."
        )


def _kernel_energies(owner, model, a, float_bits):
    """The `KernelEnergy`s of a model, in the order of `stored_kernels`."""
    check_model(owner, model)
    stored = stored_kernels(model, int(float_bits))
    if not stored:
        raise ValueError(
            f"The model '{model.name}' has no kernels, so no memory to ask about. "
            "Kernels are the weights of products, or weights of two or more "
            "dimensions named '...kernel'."
        )
    relative = [kernel.relative_energy(a) for kernel in stored]
    total = sum(
        kernel.bits * eta * kernel.weights
        for kernel, eta in zip(stored, relative, strict=True)
    )
    return tuple(
        KernelEnergy(
            path=kernel.path,
            weights=kernel.weights,
            bits=kernel.bits,
            error_rate=kernel.error_rate,
            relative=eta,
            share=kernel.bits * eta * kernel.weights / total,
        )
        for kernel, eta in zip(stored, relative, strict=True)
    )


def _reference(reference, kernels, a, float_bits):
    """A pair: the reference in words, and its energy in reliable bits."""
    if isinstance(reference, keras.Model):
        others = _kernel_energies("reference", reference, a, float_bits)
        return f"the model '{reference.name}'", sum(k.energy for k in others)
    if is_number(reference):
        check_positive("memory_energy", reference=reference)
        return "reliable bits that were given", reference
    weights = sum(k.weights for k in kernels)
    wide_resnet = "the kernels of WideResNet-28-10 in 16 bits, reliable"
    known = {
        "reliable": ("the same, reliable", sum(k.bits * k.weights for k in kernels)),
        "16_bit": ("the same kernels in 16 bits, reliable", 16 * weights),
        "wide_resnet_28_10": (wide_resnet, 16 * WIDE_RESNET_28_10_WEIGHTS),
    }
    if isinstance(reference, str) and reference in known:
        return known[reference]
    error = ValueError if isinstance(reference, str) else TypeError
    raise error(
        f"`reference` of memory_energy must be one of {', '.join(map(repr, known))}, a "
        "built Keras model, or a number of reliable bits. Received: "
        f"reference={reference!r} of type {type(reference).__name__}."
    )
