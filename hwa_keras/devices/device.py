"""What every device is: programs once, ages, is read."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from keras import ops

from hwa_keras.core import random
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Seed, Self, Tensor

_family = Family("device")
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
register = _family.register


@dataclass(frozen=True, eq=False)  # Equal by what a subclass holds.
class Device:
    """A technology that stores weights imperfectly.

    A subclass is a frozen dataclass of plain numbers; its methods are pure functions
    of tensors, so that training noise, chips and exported graphs use one formula.
    `hwa_keras.devices.register("alias", package="my_lab")` has it saved and found by
    name.

    Attributes:
        drifts: Bool. Whether the weights age, so that there is drift to compensate.
        needs_shapes: Bool. Whether its formulas need the numbers of rows and columns
            while a graph is made.
        is_array: Bool. Whether it computes where it stores, in tiles of a crossbar; a
            digital memory does not.
    """

    drifts = True
    needs_shapes = False
    is_array = True

    def check_time(self, t: float | Tensor) -> float:
        """Return a time in seconds as a float, if the device can be read then.

        Args:
            t: Number, seconds since the end of programming.

        Raises:
            ValueError: If it is negative, not finite or, where the technology is
                known at some times only, none of them.
        """
        return check_time(t)

    def for_kernel(self, kernel: Any) -> Self:
        """This device for one kernel of a chip: itself, or a copy that knows more.

        Args:
            kernel: What has a `path`, a `view`, a `quantizer` and a `noise`, such as a
                `HardwareKernel`.
        """
        return self

    def for_network(self, count: int, largest: float | None) -> list[Self]:
        """This device for each of several kernels of one model.

        Args:
            count: Integer, how many kernels it holds.
            largest: Float, the largest magnitude of the weights that `per="network"`
                is about; or None if there are none or they still train.

        Returns:
            A list of as many devices, in the order of the model's layers.
        """
        return [self] * count

    def program(self, weights: Tensor, seed: Seed) -> dict[str, Tensor]:
        """Write weights once.

        Args:
            weights: Float tensor `[..., rows, columns]`, the target weights, one
                matrix per tile.
            seed: `uint32` tensor of shape `(2,)`.

        Returns:
            The state of the written devices: a dictionary of float tensors.
        """
        raise NotImplementedError

    def read(
        self, state: dict[str, Tensor], t: float | Tensor, z: Tensor | None = None
    ) -> Tensor:
        """The weights that the devices hold at a time.

        Args:
            state: What `program` returned.
            t: Scalar, seconds since the end of programming.
            z: Random numbers that `draw_read_noise` gave, or None to read without
                read noise.

        Returns:
            A float tensor of the shape of the programmed weights.
        """
        raise NotImplementedError

    def perturb(
        self, weights: Tensor, seed: Seed, scale: float | Tensor = 1.0
    ) -> Tensor:
        """The weights as they stand right after programming: training noise.

        W + scale·(W₀ − W), where W₀ is what `read` finds at t = 0 after `program`. A
        subclass overrides it for speed only, with noise of the same distribution.

        Args:
            weights: Float tensor `[..., rows, columns]`.
            seed: `uint32` tensor of shape `(2,)`.
            scale: Scalar, factor on the noise.
        """
        written = self.read(self.program(weights, seed), ops.zeros((), weights.dtype))
        return weights + scale * (written - weights)

    def perturb_at(
        self,
        weights: Tensor,
        seed: Seed,
        t: float | Tensor,
        scale: float | Tensor = 1.0,
        gain: str | None = "tile",
    ) -> Tensor:
        """The weights as they are read at a time, compensated: noise of training.

        W + scale·(γ·W_t − W), where W_t is what `read` finds at the time after
        `program`, with read noise, and γ = mean |W₀| / mean |W_t| what a controller
        measures. A subclass overrides it for speed only, with noise of the same
        distribution.

        Args:
            weights: Float tensor `[..., rows, columns]`.
            seed: `uint32` tensor of shape `(2,)`.
            t: Scalar tensor, seconds since the end of programming.
            scale: Scalar, factor on the noise.
            gain: `"tile"` or `"column"`: what has a γ of its own; or None for γ = 1.
        """
        state = self.program(weights, random.fold_in(seed, 0))
        z = self.draw_read_noise(ops.shape(weights), random.fold_in(seed, 1))
        read = self.read(state, t, z)
        if gain is not None:
            axes = (-2, -1) if gain == "tile" else (-2,)
            written = self.read(state, ops.zeros((), weights.dtype))
            total = ops.sum(ops.abs(written), axis=axes, keepdims=True)
            now = ops.sum(ops.abs(read), axis=axes, keepdims=True)
            read = read * ops.where(now > 0, total / ops.where(now > 0, now, 1.0), 1.0)
        return weights + scale * (read - weights)

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        """The factor that undoes the mean drift, for who knows the drift exponent."""
        raise NotImplementedError

    def draw_read_noise(self, shape: tuple[int, ...], seed: Seed) -> Tensor | None:
        """The random numbers of one read of an array, or None if reads are exact."""
        return None

    def get_config(self) -> Config:
        return asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


_family.base = Device


def for_kernels(chosen, targets):
    """The devices of several kernels of one model, each made for its kernel.

    Args:
        chosen: List of devices, one per kernel, in the order of the model's layers.
        targets: List of what is written for the kernels: tensors, or Nones while they
            train.

    Returns:
        A list of as many devices; see `Device.for_network`.
    """
    largest = _largest_of_network(chosen, targets)
    found = list(chosen)
    for device in {id(device): device for device in chosen}.values():
        places = [i for i, other in enumerate(chosen) if other is device]
        own = device.for_network(len(places), largest)
        for i, each in zip(places, own, strict=True):
            found[i] = each
    return found


def _largest_of_network(chosen, targets):
    """The largest |weight| of all kernels on devices with `per="network"`, or None."""
    pairs = zip(chosen, targets, strict=True)
    shared = [w for device, w in pairs if getattr(device, "per", None) == "network"]
    if not shared or any(w is None for w in shared):
        return None
    largest = max(float(ops.max(ops.abs(w))) for w in shared)
    return largest if math.isfinite(largest) else None


def weight_range(weights: Tensor, per: str) -> tuple[Tensor, Tensor]:
    """Largest magnitude of a tile, or of each of its columns.

    Args:
        weights: Float tensor `[..., rows, columns]`; one axis is taken for rows.
        per: `"layer"` for one range per tile, `"column"` for one per column of a tile.

    Returns:
        A pair of tensors that broadcast with `weights`: the range, and 1 where there
        is a weight to write. Where all weights are zero nothing tells the range: it
        is 1 there, the second tensor is 0, and the devices stay unwritten.
    """
    axes: tuple[int, ...] = (-2, -1) if per == "layer" else (-2,)
    if len(weights.shape) < 2:
        axes = tuple(range(len(weights.shape)))
    # Not max|W|: XLA would hold |W| for it, as much memory again.
    largest = ops.maximum(
        ops.max(weights, axis=axes, keepdims=True),
        -ops.min(weights, axis=axes, keepdims=True),
    )
    written = largest > 0
    largest = ops.where(written, largest, ops.ones_like(largest))
    return largest, ops.cast(written, weights.dtype)


def sum_of_tiles(x):
    """The sum over the rows and columns of each tile `[..., rows, columns]`."""
    return ops.sum(x, axis=tuple(range(-min(len(x.shape), 2), 0)))


def check_time(t):
    """Raise `ValueError` for a time that is negative or not a finite `float32`."""
    value = float(t)
    is_bool = isinstance(t, (bool, np.bool_))
    if is_bool or not 0 <= value <= float(np.finfo("float32").max):
        raise ValueError(
            "`t` is the time in seconds since the end of programming and must be "
            "finite, as a 32-bit float too, and not negative. Received: "
            f"t={t if is_bool else value}."
        )
    return value


def check_per(owner, per):
    """Raise `ValueError` for an unknown granularity of the conductance range."""
    if per not in ("layer", "column"):
        raise ValueError(
            f"`per` of {owner} must be 'layer' (one conductance range for a kernel) "
            f"or 'column' (one per output column). Received: per={per!r}."
        )
