"""Hardware: one description of what a layer's products are computed with."""

from dataclasses import dataclass, fields, replace
from typing import Any

import keras

from hwa_keras import devices, quantizers
from hwa_keras import noise as noise_family
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Config, Self

__all__ = ["Hardware"]

_FAMILIES: dict[str, Any] = {
    "kernel_quantizer": quantizers,
    "kernel_noise": noise_family,
    "dac": quantizers,
    "adc": quantizers,
    "output_noise": noise_family,
}


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True, eq=False)
class Hardware:
    """What a layer's products of inputs and kernel are computed with.

    x → DAC → tiles: x_k·W̃_k → output noise → ADC → Σ_k → + bias → activation, with
    W̃ = noise(quantizer(W)) in training, quantizer(W) otherwise, and what the devices
    hold on a chip. Every part is optional; with none, a layer is Keras's own to the
    bit. Each kernel gets copies of the parts.

    Args:
        kernel_quantizer: A quantizer, its name, any callable `tensor → tensor`, or
            None.
        kernel_noise: A noise, its name, any callable `(w, seed) → tensor`, or None.
        dac: A `circuits.DAC`, or any quantizer of the inputs, or None.
        adc: A `circuits.ADC`, or any quantizer of the outputs of a tile
            (`circuits.Saturation`, `circuits.Accumulator`), or None.
        output_noise: A `circuits.OutputNoise`, or any noise of a tile's outputs, or
            None.
        tile: Pair (rows, columns), the largest size of a tile, either of them None for
            no bound; or None. A kernel with more rows is cut into row tiles, whose sums
            are digitized one by one and then added; one with more columns into column
            tiles.
        bound_management: Bool. Where the ADC would clip, halve the inputs of an example
            until it does not, and multiply the digital result in turn. It takes a
            second product. Defaults to `False`.
        bias: `"digital"`: added after the ADC; `"analog"`: a row of the array, which is
            programmed, drifts and is noisy as the kernel, unquantized, and adds to the
            last row tile before the ADC. The row is driven so that the largest bias
            takes the largest conductance. For dense layers and convolutions, and
            einsums with one axis of outputs. Defaults to `"digital"`.
        device: A device, its name or a noise: what `program` writes the kernel to
            where it is given no other; or None.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> hardware = hwa_keras.Hardware(
        ...     kernel_noise="programming_noise",
        ...     dac=hwa_keras.circuits.DAC(8, range="learned"),
        ...     adc=hwa_keras.circuits.ADC(8, range=4.0),
        ...     tile=(128, 128),
        ... )
        >>> layer = hwa_keras.layers.HWADense(3, hardware=hardware)
        >>> layer(np.ones((2, 200)), training=True).shape == (2, 3)
        True

    Reference:
        - Rasch et al., 2021, arXiv:2104.02184; Rasch et al., 2023, arXiv:2302.08469.
    """

    kernel_quantizer: Any = None
    kernel_noise: Any = None
    dac: Any = None
    adc: Any = None
    output_noise: Any = None
    tile: tuple[int | None, int | None] | None = None
    bound_management: bool = False
    bias: str = "digital"
    device: Any = None

    def __post_init__(self):
        for name, family in _FAMILIES.items():
            object.__setattr__(self, name, family.get(getattr(self, name)))
        object.__setattr__(self, "device", noise_family.as_device(self.device))
        object.__setattr__(self, "tile", _checked_tile(self.tile))
        check_choice("Hardware", (True, False), bound_management=self.bound_management)
        check_choice("Hardware", ("digital", "analog"), bias=self.bias)

    @property
    def has_circuits(self) -> bool:
        """Whether something is described that stands between inputs, tiles and sum."""
        parts = (self.dac, self.adc, self.output_noise, self.tile)
        return self.bias == "analog" or any(part is not None for part in parts)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        own = (self.kernel_quantizer, self.kernel_noise, self.device)
        return not self.has_circuits and all(part is None for part in own)

    def with_settings(self, **settings: Any) -> Self:
        """This description with other parts.

        Raises:
            ValueError: For the name of no part; the message lists them.
        """
        unknown = sorted(set(settings) - {field.name for field in fields(self)})
        if unknown:
            known = ", ".join(field.name for field in fields(self))
            raise ValueError(f"Unknown settings {unknown}. Known settings: {known}.")
        return replace(self, **settings)

    def of_bias(self) -> Self:
        """The description of the row of the array that holds an analog bias."""
        converters: dict[str, Any] = {"dac": None, "adc": None, "output_noise": None}
        columns = None if self.tile is None else (None, self.tile[1])
        return replace(
            self, kernel_quantizer=None, tile=columns, bias="digital", **converters
        )

    def copies(self) -> dict[str, Any]:
        """{name: a copy of that part, or None}, for one kernel."""
        return {name: replicate(getattr(self, name)) for name in _FAMILIES}

    def get_config(self) -> Config:
        config = {n: f.serialize(getattr(self, n)) for n, f in _FAMILIES.items()}
        return {
            **config,
            "tile": self.tile and list(self.tile),
            "bound_management": self.bound_management,
            "bias": self.bias,
            "device": devices.serialize(self.device),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        for name, family in (*_FAMILIES.items(), ("device", devices)):
            config[name] = family.deserialize(config.get(name))
        return cls(**config)


def _checked_tile(tile):
    if tile is None:
        return None
    if not isinstance(tile, (tuple, list)) or len(tile) != 2:
        raise ValueError(
            "`tile` of Hardware must be a pair (rows, columns), such as (512, 512), or "
            f"None. Received: tile={tile!r}."
        )
    for name, size in zip(("rows", "columns"), tile, strict=True):
        if size is not None:
            check_count("a tile", **{name: size})
    return tuple(tile)
