"""Where a sharpness-aware step looks: the worst perturbation of the weights."""

import fnmatch
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras.core.types import Config, Self, Tensor

__all__ = ["METHODS", "SCALED", "Perturbation"]

METHODS = ("sam", "asam", "samson")
# The names of kernels, embeddings and scale vectors in Keras; those that ASAM's own
# implementation scales. Biases, offsets and all else are moved as by plain SAM.
SCALED = ("*kernel*", "*embeddings*", "gamma", "scale", "alpha")

_RHO = {"sam": 0.05, "asam": 0.5, "samson": 0.5}


class Perturbation:
    """The perturbation ε within a neighborhood that raises the loss most.

    To first order, ε = ρ·T²g/‖T g‖₂, where g is the gradient of the loss and T scales
    the neighborhood of each weight w of a tensor W:

    - `"sam"`: T = 1, a ball;
    - `"asam"`: T = |w| + η, wider for larger weights;
    - `"samson"`: T = (|w| + η)/‖W‖ₚ, relative to the range of the weights of the
      tensor (p = ∞) or to their norm (p = 2).

    The norm ‖T g‖₂ is over all tensors. Tensors that are not scaled have T = 1. A
    tensor of zeros has no range: with `"samson"` it is left where it is.

    Args:
        method: `"sam"`, `"asam"` or `"samson"`. Defaults to `"sam"`.
        rho: Float > 0, the size ρ of the neighborhood, in the units of the weights for
            SAM and relative for the others. Defaults to 0.05 for SAM and 0.5 for the
            others, which the papers use on CIFAR-10.
        eta: Float ≥ 0, the η above, in the units of the weights. Defaults to `0.01`.
        norm: 2 or infinity (`math.inf` or `"inf"`), the p above. Defaults to `2`.
        scaled: Which variables have T ≠ 1: a list of names, in which `*` and `?` are
            wildcards, or a function from a variable to a bool. Defaults to kernels,
            embeddings and the scale vectors of normalizations.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> perturbation = hwa_keras.training.Perturbation("sam", rho=0.1)
        >>> weights = [ops.array([3.0, 4.0])]
        >>> [epsilon] = perturbation(weights, weights)
        >>> [round(float(e), 3) for e in epsilon]
        [0.06, 0.08]

    Reference:
        - Foret et al., 2021, arXiv:2010.01412 (SAM); Kwon et al., 2021,
          arXiv:2102.11600 (ASAM).
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equations 3.23, 3.26
          and 5.1 to 5.3 (SAMSON).
    """

    def __init__(
        self,
        method: str = "sam",
        rho: float | None = None,
        eta: float = 0.01,
        norm: float | str = 2,
        scaled: Sequence[str] | Callable[[Any], bool] = SCALED,
    ) -> None:
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {', '.join(map(repr, METHODS))}. Received: "
                f"method={method!r}."
            )
        rho = _RHO[method] if rho is None else rho
        if not _is_number(eta) or not 0 <= eta < math.inf:
            raise ValueError(f"`eta` must be finite and ≥ 0. Received: eta={eta!r}.")
        if norm not in (2, "2", math.inf, "inf"):
            raise ValueError(f"`norm` must be 2 or 'inf'. Received: norm={norm!r}.")
        if not callable(scaled) and (
            isinstance(scaled, str) or not all(isinstance(s, str) for s in scaled)
        ):
            raise ValueError(
                "`scaled` must be a list of names of variables, or a function from a "
                f"variable to a bool. Received: scaled={scaled!r}."
            )
        self.method = method
        self.eta = float(eta)
        self.norm = float(norm)
        self.scaled = scaled if callable(scaled) else tuple(scaled)
        # A variable, so that a schedule reaches a step that is compiled already.
        self.radius = keras.Variable(
            check_rho(rho), dtype="float32", trainable=False, name="rho"
        )

    @property
    def rho(self) -> float:
        """The size ρ of the neighborhood; set it to change it."""
        # The shortest number that float32 does not tell from the one given.
        return float(str(ops.convert_to_numpy(self.radius.value)))

    @rho.setter
    def rho(self, value: float) -> None:
        self.radius.assign(check_rho(value))

    def is_scaled(self, variable: Any) -> bool:
        """Whether the neighborhood of a variable is scaled with its weights."""
        if callable(self.scaled):
            return bool(self.scaled(variable))
        return any(fnmatch.fnmatchcase(variable.name, name) for name in self.scaled)

    def __call__(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        scaled: Sequence[bool] | None = None,
        rho: float | Tensor | None = None,
    ) -> list[Tensor | None]:
        """The perturbation of each tensor.

        Args:
            weights: List of float tensors.
            gradients: List of tensors of the same shapes, of the loss times any
                positive factor; None where a tensor plays no part.
            scaled: List of bools, one per tensor. Defaults to all of them.
            rho: Scalar tensor, in place of the `rho` of this object, or None.

        Returns:
            List of tensors of the shapes and dtypes of the weights, None where the
            gradient is None. All zeros where the gradient is, NaN where it is not
            finite.
        """
        rho = self.radius.value if rho is None else rho
        scaled = [True] * len(weights) if scaled is None else scaled
        scales = [
            self._scale(_wide(w)) if s and g is not None else None
            for w, g, s in zip(weights, gradients, scaled, strict=True)
        ]
        steeps = [
            None if g is None else _wide(g) if t is None else t * _wide(g)
            for t, g in zip(scales, gradients, strict=True)
        ]
        norm = ops.sqrt(sum(ops.sum(ops.square(s)) for s in steeps if s is not None))
        factor = ops.cast(rho, norm.dtype) / ops.where(norm > 0, norm, 1.0)
        factor = ops.where(ops.isfinite(norm), factor, math.nan)
        return [
            s if s is None else ops.cast((s if t is None else t * s) * factor, w.dtype)
            for w, t, s in zip(weights, scales, steeps, strict=True)
        ]

    def _scale(self, w):
        """T of a tensor that is scaled, or None for 1."""
        if self.method == "sam":
            return None
        scale = ops.abs(w) + self.eta
        if self.method == "asam":
            return scale
        if self.norm == 2:
            size = ops.sqrt(ops.sum(ops.square(w)))
        else:
            size = ops.max(ops.abs(w))
        return ops.where(size > 0, scale / ops.where(size > 0, size, 1.0), 0.0)

    def get_config(self) -> Config:
        norm = "inf" if math.isinf(self.norm) else int(self.norm)
        config = {"method": self.method, "rho": self.rho, "eta": self.eta, "norm": norm}
        if callable(self.scaled):
            scaled = keras.saving.serialize_keras_object(self.scaled)
        else:
            scaled = list(self.scaled)
        return {**config, "scaled": scaled}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        scaled = config["scaled"]
        if isinstance(scaled, dict):
            scaled = keras.saving.deserialize_keras_object(scaled)
        return cls(**{**config, "scaled": scaled})


def check_rho(rho):
    if not _is_number(rho) or not 0 < rho < math.inf:
        raise ValueError(
            f"`rho` must be positive and finite. Received: rho={rho!r}. Without a "
            "neighborhood to look at, train a plain keras.Model."
        )
    return float(rho)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _wide(x):
    """Half precision cannot hold sums of squares."""
    return ops.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
