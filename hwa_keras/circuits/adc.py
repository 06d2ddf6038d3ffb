"""ADC: from the signals of a crossbar to the numbers of a layer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from hwa_keras.circuits import ranges
from hwa_keras.circuits.converter import Converter
from hwa_keras.core.checks import check_choice
from hwa_keras.core.types import ArrayLike, Config, Tensor
from hwa_keras.quantizers.base import family

__all__ = ["ADC"]


@family.register("adc")
class ADC(Converter):
    """Converts analog outputs to digital: uniform codes over a range.

    On a symmetric range (−b, b): ŷ = b·round(clip(y/b, −1, 1)·Q)/Q with
    Q = 2^(bits − 1) − 1. On a pair: ŷ = low + Δ·round((clip(y, low, high) − low)/Δ)
    with Δ = (high − low)/(2^bits − 1). dŷ/dy = 1 inside the range, 0 outside; no
    gradient reaches the range.

    What the range is:

    - a positive number r for (−r, r), or a pair (low, high): fixed, in the unit of the
      outputs;
    - a positive number f with `relative_to="full_column"`: b = f·full scale, where the
      full scale is what the hardware layer says that a full column of a tile can give:
      rows of the tile · max|W| in it · bound of the inputs;
    - `"calibrated"`: b is what `set_range` set, one for the layer, for each tile or for
      each column of each tile (`per`); using it before is an error. With
      `relative_to="full_column"` the factor f is calibrated in its place, as goes with
      inputs that are scaled vector by vector (`DAC(range="vector_max")`).

    Args:
        bits: Integer from 1 to 16 (from 2 on a symmetric range).
        range: See above.
        per: `"tile"`, `"column"` or `"layer"`: what has a calibrated range of its own.
            Defaults to `"tile"`.
        relative_to: `"absolute"` or `"full_column"`. Defaults to `"absolute"`.
        metrics: As for every quantizer.

    Raises:
        ValueError: If an argument is out of its range; called eagerly, if the range is
            calibrated and has no value yet. A graph takes max|y| there; `check_ready`
            tells.
        TypeError: If what it converts are integers.

    Example:
        >>> layer = hwa_keras.circuits.ADC(bits=2, range=(0.0, 3.0))
        >>> [float(v) for v in layer(np.array([-1.0, 1.4, 9.0]))]
        [0.0, 1.0, 3.0]

    Reference:
        - Rasch et al., 2021, arXiv:2104.02184, for the code left out.
    """

    def __init__(
        self,
        bits: int,
        range: float | Sequence[float] | str,
        per: str = "tile",
        relative_to: str = "absolute",
        **kwargs: Any,
    ) -> None:
        super().__init__(bits, range, ("calibrated",), **kwargs)
        self.per = check_choice("ADC", ("tile", "column", "layer"), per=per)
        self.relative_to = check_choice(
            "ADC", ("absolute", "full_column"), relative_to=relative_to
        )
        if self.is_relative and range != "calibrated":
            self.range = ranges.checked_bound(range)

    def _make_variables(self, columns, kernel=None):
        if self.range != "calibrated":
            return
        grid, tile_columns = ((1, 1), None) if kernel is None else _tiles(kernel)
        shape = {"layer": (), "tile": grid, "column": (grid[0], columns)}[self.per]
        if None in shape:
            raise ValueError(
                "per='column' needs to know the number of columns, and the last axis "
                f"of what the ADC '{self.served}' converts has no fixed size."
            )
        self._columns, self._tile_columns = columns, tile_columns
        self._value = self._scalar("output_range", shape=shape)

    @property
    def is_relative(self) -> bool:
        """Whether the range is a share of what a full column can give."""
        return self.relative_to == "full_column"

    @property
    def is_symmetric(self) -> bool:
        """Whether the range is (−b, b)."""
        return not self.is_fixed or self.range[0] == -self.range[1]

    @property
    def output_range(self) -> Tensor | None:
        """The variable of a calibrated range as a tensor, 0 where it is not set.

        Its shape is () per layer, `[K, M]` per tile, `[K, C]` per column, of K·M tiles
        and C columns.
        """
        if not (self.built and self._needs_values()):
            return None
        return ops.convert_to_tensor(self._value.value)

    def _is_set(self):
        return ops.all(self._value.value > 0)

    def set_range(self, values: ArrayLike) -> None:
        """Set a calibrated range.

        Args:
            values: Positive float, or array of the shape of `output_range`.

        Raises:
            ValueError: If a value is not positive and finite, if the shape is another,
                if the range is not calibrated, or if the ADC is not built.
        """
        values = self._checked_values(values)
        shape = tuple(self._value.shape)
        if values.shape not in ((), shape):
            raise ValueError(
                f"The ADC of '{self.served}' has ranges of shape {shape} "
                f"(per='{self.per}'). Received: shape {values.shape}."
            )
        self._value.assign(np.broadcast_to(values, shape))

    def bound(self, full_scale: tuple[Tensor, ...] | None = None) -> Tensor | None:
        """The bound b of a symmetric range.

        Args:
            full_scale: What a full column can give: tensors that broadcast with the
                outputs, and whose product it is. For `relative_to="full_column"`.

        Returns:
            A tensor without gradient that broadcasts with the outputs `[..., C]`, or
            `[..., K, C]` where there are K > 1 rows of tiles; None for a pair that is
            not symmetric.

        Raises:
            ValueError: If the full scale is needed and not given.
        """
        if not self.is_symmetric:
            return None
        return ops.stop_gradient(math.prod(self._factors(full_scale)))

    def _factors(self, full_scale):
        """What the bound is the product of."""
        if self.is_fixed:
            return (ops.convert_to_tensor(self.range[1]),)
        value = self.range
        if value == "calibrated":
            value = self._expanded(ops.convert_to_tensor(self._value.value))
        if not self.is_relative:
            return (value,)
        if full_scale is None:
            raise ValueError(
                f"The ADC '{self.served}' is relative to a full column, and nothing "
                "says what one gives. It goes with hardware layers, as their adc; as a "
                "layer of its own take a fixed or calibrated range."
            )
        return (value, *full_scale)

    def _expanded(self, value):
        """One bound per column, where a variable has one per tile."""
        if self.per == "layer":
            return value
        if self.per == "tile" and value.shape[1] > 1:
            value = ops.repeat(value, self._tile_columns, axis=1)[:, : self._columns]
        return value[0] if value.shape[0] == 1 else value

    def convert(
        self,
        y: Tensor,
        full_scale: tuple[Tensor, ...] | None = None,
        training: bool = False,
    ) -> Tensor:
        """Convert the outputs of tiles.

        Args:
            y: Float tensor `[..., C]`, or `[..., K, C]` of K > 1 rows of tiles.
            full_scale: See `bound`.
            training: Bool. Whether both directions are compiled, for speed.

        Returns:
            A tensor of the shape and dtype of `y`.

        Raises:
            ValueError: If it is called eagerly and the range has no value yet, or if
                the full scale is needed and not given.
            TypeError: If `y` has integers.
        """
        y = self._checked_float(y)
        if self.is_fixed:
            return self._between(y)
        if not self.built:
            self.build(y.shape)
        value, *unit = self._factors(full_scale)
        if self.range == "calibrated":
            value = self._or_batch(value, y, unit)
        return ranges.quantized_within(y, (value, *unit), self.bits, fused=training)

    def sum_of_tiles(
        self, stacks: list[Tensor], full_scale: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """Convert the sums of row tiles and add them, in one compiled pass each way.

        Args:
            stacks: List of float tensors `[k, G, n, c]`: n sums of each of the C = G·c
                columns, of K row tiles in all.
            full_scale: See `bound`: tensors `[K, C]`, or such that broadcast with
                `[K, G, n, c]`.

        Returns:
            Tensor `[n, C]`, of the dtype of the sums.

        Raises:
            ValueError: As of `convert`, or if the range is not symmetric.
            TypeError: If the sums are integers.
        """
        stacks = [self._checked_float(stack) for stack in stacks]
        if not self.is_symmetric:
            raise ValueError(
                f"The ADC of '{self.served}' must have a symmetric range for this. "
                f"Received: range={self.range!r}."
            )
        _, groups, _, width = stacks[0].shape
        bounds = [
            ops.reshape(f, (-1, groups, 1, width)) if len(f.shape) == 2 else f
            for f in map(ops.convert_to_tensor, self._factors(full_scale))
        ]
        if self.range == "calibrated":
            value, *unit = bounds
            self._check_eagerly(stacks[0])
            bounds[0] = ops.cond(  # The sums are not looked at once it is set.
                self._is_set(),
                lambda: value,
                lambda: self._or_batch(value, ops.concatenate(stacks), unit),
            )
        return ranges.sum_within(stacks, bounds, self.bits)

    def quantized(self, inputs: Tensor) -> Tensor:
        return self.convert(inputs)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "per": self.per,
            "relative_to": self.relative_to,
        }


def _tiles(kernel):
    """The grid (K, M) of a kernel's tiles, and how many columns a tile has."""
    grid = tuple(int(n) for n in kernel.tiling.grid)
    if grid[1] == 1:
        return grid, None
    tiles = kernel.tiling.cut(ops.zeros(kernel.view.matrix_shape))
    return grid, int(tiles.shape[-1])
