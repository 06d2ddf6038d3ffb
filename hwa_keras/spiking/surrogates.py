"""Surrogate gradients: what a spike passes backward in place of the step's derivative.

A neuron fires where its membrane u is above the threshold θ, z = [u > θ], whose
derivative is zero but for one point. Training computes with another one, σ′(u − θ).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from keras import ops

from hwa_keras.core.checks import check_positive
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Self, Tensor

__all__ = [
    "Atan",
    "FastSigmoid",
    "Sigmoid",
    "Surrogate",
    "Triangular",
    "aliases",
    "deserialize",
    "get",
    "register",
    "serialize",
    "slope",
    "spike",
]

family = Family("surrogate", takes_callables=True)
get, serialize, deserialize = family.get, family.serialize, family.deserialize
aliases, register = family.aliases, family.register


def slope(surrogate, x):
    """σ′(x) of a surrogate, of the shape and dtype of x.

    Half precision is computed in `float32`: k·x of a distant membrane is beyond it.

    Args:
        surrogate: A `Surrogate`, or a callable from a tensor to one of its shape.
        x: Tensor, u − θ.

    Raises:
        ValueError: If a callable changes the shape.
    """
    wide = x if x.dtype == "float64" else ops.cast(x, "float32")
    found = ops.convert_to_tensor(surrogate(wide))
    if tuple(found.shape) != tuple(x.shape):
        raise ValueError(
            f"The surrogate {surrogate!r} must keep the shape of its input. It made "
            f"{tuple(found.shape)} of {tuple(x.shape)}."
        )
    return ops.cast(found, x.dtype)


def spike(
    x: Tensor,
    surrogate: "str | Surrogate | Callable[[Tensor], Tensor] | None" = "fast_sigmoid",
) -> Tensor:
    """z = [x > 0] with the gradient σ′(x) of a surrogate.

    Args:
        x: Float tensor, u − θ.
        surrogate: A surrogate, its name, or a callable. Defaults to `"fast_sigmoid"`.

    Returns:
        A tensor of zeros and ones, of the shape and dtype of x.

    Example:
        >>> z = hwa_keras.spiking.spike(np.array([-0.1, 0.0, 0.1], "float32"))
        >>> [float(v) for v in z]
        [0.0, 0.0, 1.0]
    """
    surrogate = get("fast_sigmoid" if surrogate is None else surrogate)

    @ops.custom_gradient
    def fire(x):
        def gradient(*args, upstream=None):
            return (args[0] if upstream is None else upstream) * slope(surrogate, x)

        return ops.cast(x > 0, x.dtype), gradient

    return fire(ops.convert_to_tensor(x))


@dataclass(frozen=True)
class Surrogate:
    """Base class of the surrogates: callable as σ′(x), x = u − θ."""

    def __post_init__(self):
        check_positive(type(self).__name__, **asdict(self))

    def __call__(self, x: Tensor) -> Tensor:
        """Return σ′(x), a tensor of the shape of x."""
        raise NotImplementedError

    def get_config(self) -> Config:
        return asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


family.base = Surrogate


@family.register("fast_sigmoid")
@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """The derivative of a fast sigmoid: σ′(x) = 1/(k·|x| + 1)².

    Args:
        k: Float > 0, how fast it falls. Defaults to `25.0`.

    Example:
        >>> surrogate = hwa_keras.spiking.FastSigmoid(k=25.0)
        >>> [round(float(v), 4) for v in surrogate(np.array([0.0, 0.04, -0.12]))]
        [1.0, 0.25, 0.0625]

    Reference:
        - Zenke and Ganguli, "SuperSpike: supervised learning in multilayer spiking
          neural networks", Neural Computation 30(6), 2018.
    """

    k: float = 25.0

    def __call__(self, x: Tensor) -> Tensor:
        near = 1.0 / (self.k * ops.abs(x) + 1.0)
        return near * near


@family.register("atan")
@dataclass(frozen=True)
class Atan(Surrogate):
    """The derivative of an arc tangent: σ′(x) = (α/2)/(1 + (π·α·x/2)²).

    Args:
        alpha: Float > 0, twice the value at 0. Defaults to `2.0`.

    Example:
        >>> float(hwa_keras.spiking.Atan()(np.array(0.0)))
        1.0

    Reference:
        - Fang et al., "Incorporating learnable membrane time constant to enhance
          learning of spiking neural networks", ICCV 2021.
    """

    alpha: float = 2.0

    def __call__(self, x: Tensor) -> Tensor:
        scaled = (math.pi / 2 * self.alpha) * x
        return (self.alpha / 2) / (1.0 + scaled * scaled)


@family.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """The derivative of a sigmoid: σ′(x) = k·s(k·x)·(1 − s(k·x)).

    Args:
        k: Float > 0, four times the value at 0. Defaults to `25.0`.

    Example:
        >>> float(hwa_keras.spiking.Sigmoid(k=25.0)(np.array(0.0)))
        6.25

    Reference:
        - Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural
          networks", IEEE Signal Processing Magazine 36(6), 2019.
    """

    k: float = 25.0

    def __call__(self, x: Tensor) -> Tensor:
        scaled = self.k * x  # 1 − s(x) = s(−x), which keeps its digits.
        return self.k * ops.sigmoid(scaled) * ops.sigmoid(-scaled)


@family.register("triangular")
@dataclass(frozen=True)
class Triangular(Surrogate):
    """A triangle: σ′(x) = height·max(0, 1 − |x|/width).

    Args:
        width: Float > 0, where it reaches zero. Defaults to `1.0`.
        height: Float > 0, the value at 0. Defaults to `1.0`.

    Example:
        >>> surrogate = hwa_keras.spiking.Triangular()
        >>> [float(v) for v in surrogate(np.array([-2.0, 0.0, 0.5]))]
        [0.0, 1.0, 0.5]

    Reference:
        - Bellec et al., "Long short-term memory and learning-to-learn in networks of
          spiking neurons", NeurIPS 2018, with a height of 0.3.
    """

    width: float = 1.0
    height: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return self.height * ops.maximum(0.0, 1.0 - ops.abs(x) / self.width)
