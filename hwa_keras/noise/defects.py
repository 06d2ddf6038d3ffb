"""Defects: what differs from chip to chip, and stays as it is on one."""

from typing import Any

from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checks import check_not_negative, check_positive
from hwa_keras.core.types import Config, Seed, Tensor
from hwa_keras.noise.base import Noise, family

__all__ = ["DropConnect", "ProcessVariation", "StuckAt", "SynapticMismatch"]


def check_rate(owner, rate):
    """Raise `ValueError` for a rate that is no probability."""
    check_not_negative(owner, rate=rate)
    if rate > 1:
        raise ValueError(
            f"`rate` of {owner} is a probability, from 0 to 1. Received: rate={rate}."
        )
    return float(rate)


@family.register("drop_connect")
class DropConnect(Noise):
    """Sets each weight to zero with a probability: cells that conduct nothing.

    The weights that stay are not rescaled.

    Args:
        rate: Float in [0, 1], the probability at scale 1.
        scale: Initial value of the `scale` variable; the probability is
            scale·rate. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.DropConnect(rate=1.0)
        >>> w = np.ones(3, "float32")
        >>> [float(v) for v in noise(w, hwa_keras.random.seed_from(7))]
        [0.0, 0.0, 0.0]

    Reference:
        - Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.
    """

    def __init__(self, rate: float, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)
        self.rate = check_rate("DropConnect", rate)

    def perturb(self, w: Tensor, seed: Seed, scale: Tensor) -> Tensor:
        dropped = random.bernoulli(ops.shape(w), seed, self.rate * scale)
        return ops.where(dropped, ops.zeros_like(w), w)

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate}


class ChipNoise(Noise):
    """Base class of what is drawn once for a chip and then stays.

    Every kernel of a model gets a draw of its own, from the seed of the model or
    layer, and keeps it through training, saving and loading. `redraw(seed)` is the
    next chip.

    Args:
        hold: Bool. Whether the draw is kept; if not, each call in training draws
            anew, so that the network learns for any chip. Defaults to `True`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.
    """

    def __init__(self, hold: bool = True, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)
        self.hold = bool(hold)
        self.chip = None

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        if self.hold and self.chip is None and seed is not None:
            self.chip = self.add_weight(
                shape=(2,),
                dtype="uint32",
                initializer=lambda shape, dtype: ops.cast(seed, dtype),
                trainable=False,
                name="chip",
            )

    def redraw(self, seed: Seed) -> None:
        """Hold another draw.

        Args:
            seed: `uint32` tensor of shape `(2,)`: `hwa_keras.random.seed_from(7)`.
        """
        if self.chip is None:
            raise ValueError(
                f"{type(self).__name__} holds no draw: it was made with hold=False, "
                "or does not belong to a built layer or model yet."
            )
        self.chip.assign(seed)

    def strength(self, factor: float | Tensor = 1.0, chip: Seed | None = None) -> Any:
        if chip is None and self.chip is not None:
            chip = self.chip.value
        return super().strength(factor), chip

    def perturb(self, w: Tensor, seed: Seed, strength: Any) -> Tensor:
        scale, chip = strength
        return self.vary(w, seed if chip is None else chip, scale)

    def vary(self, w: Tensor, seed: Seed, scale: float | Tensor) -> Tensor:
        """Return the weights of one chip, a pure function of its seed."""
        raise NotImplementedError

    def get_config(self) -> Config:
        return {**super().get_config(), "hold": self.hold}


@family.register("process_variation")
class ProcessVariation(ChipNoise):
    """Multiplies weights by what the process made of their circuits: W·(1 + σ·z).

    Transistors differ from their nominal size from chip to chip and across a chip.
    The factors are drawn once per chip and held: a noise in space, not in time.

    Args:
        std: Float ≥ 0, σ relative to the nominal value.
        granularity: What shares a factor: each `"weight"` has its own, each output
            `"column"`, or the whole `"layer"`. Defaults to `"weight"`.
        hold: Bool. Whether the draw is kept from one training step to the next, or
            each step is another chip. Defaults to `True`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> variation = hwa_keras.noise.ProcessVariation(0.1, granularity="column")
        >>> w = np.ones((2, 3), "float32")
        >>> varied = variation(w, hwa_keras.random.seed_from(7))
        >>> bool(ops.all(varied[0] == varied[1]))
        True

    Reference:
        - Pelgrom et al., "Matching properties of MOS transistors", IEEE JSSC 24, 1989.
    """

    def __init__(
        self,
        std: float,
        granularity: str = "weight",
        hold: bool = True,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(hold=hold, scale=scale, **kwargs)
        check_not_negative("ProcessVariation", std=std)
        if granularity not in ("weight", "column", "layer"):
            raise ValueError(
                "`granularity` must be 'weight', 'column' or 'layer'. Received: "
                f"granularity={granularity!r}."
            )
        self.std = float(std)
        self.granularity = granularity

    def vary(self, w: Tensor, seed: Seed, scale: float | Tensor) -> Tensor:
        shape = ops.shape(w)
        if self.granularity == "column":
            shape = (*(1 for _ in shape[:-1]), shape[-1])
        elif self.granularity == "layer":
            shape = (1,) * len(shape)
        z = ops.cast(random.normal(shape, seed), w.dtype)
        return w + w * (self.std * ops.cast(scale, w.dtype) * z)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "std": self.std,
            "granularity": self.granularity,
        }


@family.register("synaptic_mismatch")
class SynapticMismatch(ChipNoise):
    """Adds to weights what the process made of their synapses: W + std·range·z.

    Unlike in `ProcessVariation` the deviation is the same for all weights, of those at
    zero too: what differs is the charge that an analog synapse moves, in parts of the
    largest. It is drawn once per chip and held. Weights may leave ±range by it.

    A vendor's tutorial sets the variability of such synapses to "stddev = 4" without a
    unit. It is taken as percent of the range here: `std=0.04`.

    Args:
        std: Float ≥ 0, the standard deviation as a part of the range: 0.04 is 4 %.
        range: Float > 0, the largest magnitude of a weight: 0.9 where weights are in
            ±0.9.
        hold: Bool. Whether the draw is kept from one training step to the next, or
            each step is another chip, so that the network learns for any. Defaults to
            `True`.
        scale: Initial value of the `scale` variable, a factor on `std`. Defaults to
            `1.0`.

    Raises:
        ValueError: If `std` or `range` is out of its range.

    Example:
        >>> noise = hwa_keras.noise.SynapticMismatch(std=0.04, range=0.9)
        >>> w = np.zeros(10_000, "float32")
        >>> varied = noise(w, hwa_keras.random.seed_from(7))
        >>> round(float(ops.std(varied)), 3)  # 0.04 · 0.9
        0.036
        >>> layer = hwa_keras.layers.HWADense(
        ...     64,
        ...     kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale=0.9),
        ...     kernel_noise=hwa_keras.noise.SynapticMismatch(0.04, 0.9, hold=False),
        ... )
    """

    def __init__(
        self,
        std: float,
        range: float,
        hold: bool = True,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(hold=hold, scale=scale, **kwargs)
        check_not_negative("SynapticMismatch", std=std)
        check_positive("SynapticMismatch", range=range)
        self.std = float(std)
        self.range = float(range)

    def vary(self, w: Tensor, seed: Seed, scale: float | Tensor) -> Tensor:
        std = self.std * self.range * ops.cast(scale, w.dtype)
        return w + std * ops.cast(random.normal(ops.shape(w), seed), w.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "std": self.std, "range": self.range}


@family.register("stuck_at")
class StuckAt(ChipNoise):
    """Sets some weights of a chip to one value for good: devices that do not switch.

    Args:
        rate: Float in [0, 1], the probability at scale 1 that a device is stuck.
        value: Float in [-1, 1]: where it is stuck, relative to the largest magnitude
            of the kernel. Defaults to `0.0`.
        hold: Bool. Whether the same devices stay stuck from one training step to the
            next, or each step is another chip. Defaults to `True`.
        scale: Initial value of the `scale` variable; the probability is scale·rate.
            Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.StuckAt(rate=1.0, value=-1.0)
        >>> w = np.array([0.5, 2.0], "float32")
        >>> [float(v) for v in noise(w, hwa_keras.random.seed_from(7))]
        [-2.0, -2.0]

    Reference:
        - Chen et al., "Accelerator-friendly neural-network training: learning
          variations and defects in RRAM crossbar", DATE 2017.
    """

    def __init__(
        self,
        rate: float,
        value: float = 0.0,
        hold: bool = True,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(hold=hold, scale=scale, **kwargs)
        self.rate = check_rate("StuckAt", rate)
        if not -1 <= value <= 1:
            raise ValueError(
                "`value` is relative to the kernel's largest magnitude, from -1 to 1. "
                f"Received: value={value}."
            )
        self.value = float(value)

    def vary(self, w: Tensor, seed: Seed, scale: float | Tensor) -> Tensor:
        stuck = random.bernoulli(ops.shape(w), seed, self.rate * scale)
        return ops.where(stuck, self.value * ops.max(ops.abs(w)), w)

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "value": self.value}
