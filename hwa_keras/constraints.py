"""Constraints on the weights that are trained behind quantized or noisy ones."""

import math
from typing import Any

import keras
from keras import ops

from hwa_keras.core.checks import check_choice
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.sign_groups import check_group, grouped, ungrouped
from hwa_keras.core.types import Config, Tensor

__all__ = ["AggressiveClip", "HistogramClip", "SignGroups", "WeightClip"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightClip(keras.constraints.Constraint):
    """Clips weights to [−clip_value, clip_value] after each update.

    Beyond the clip value of a straight-through quantizer a weight gets no gradient
    any more; clipped, it stays within reach.

    Args:
        clip_value: Float > 0. Defaults to `1`.

    Example:
        >>> constraint = hwa_keras.constraints.WeightClip()
        >>> [float(w) for w in constraint(np.array([-3.0, 0.5, 2.0]))]
        [-1.0, 0.5, 1.0]
        >>> layer = hwa_keras.layers.HWADense(3, kernel_constraint="weight_clip")
    """

    def __init__(self, clip_value: float = 1) -> None:
        _check_positive("clip_value", clip_value)
        self.clip_value = clip_value

    def __call__(self, w: Tensor) -> Tensor:
        w = ops.convert_to_tensor(w)
        return ops.clip(w, -self.clip_value, self.clip_value)

    def get_config(self) -> Config:
        return {"clip_value": self.clip_value}


@keras.saving.register_keras_serializable(package=PACKAGE)
class AggressiveClip(WeightClip):
    """Clips weights to [−c, c], a small range, after each update.

    Noise on hardware is relative to the largest weight of a layer. In a small range
    many weights are as large as the largest, and small next to none.

    Args:
        c: Float > 0, in the units of the weights. Defaults to `0.2`.

    Raises:
        ValueError: If `c` is not positive and finite.

    Example:
        >>> constraint = hwa_keras.constraints.AggressiveClip(c=0.25)
        >>> [float(w) for w in constraint(np.array([-3.0, 0.125, 2.0]))]
        [-0.25, 0.125, 0.25]
        >>> layer = keras.layers.Dense(3, kernel_constraint=constraint)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024.
    """

    def __init__(self, c: float = 0.2) -> None:
        _check_positive("c", c)
        super().__init__(c)

    @property
    def c(self) -> float:
        """The largest magnitude."""
        return self.clip_value

    def get_config(self) -> Config:
        return {"c": self.c}


@keras.saving.register_keras_serializable(package=PACKAGE)
class HistogramClip(keras.constraints.Constraint):
    """Clips weights to [−α·σ_W, α·σ_W] after each update.

    σ_W is the standard deviation of the weights of the tensor, or of each of its
    columns, taken anew at each update. Noise and quantization steps on hardware are
    relative to the largest weight of a layer or a column: without outliers they are
    smaller for all others.

    Args:
        alpha: Float > 0, in standard deviations. Defaults to `2.0`.
        per: `"layer"`, or `"column"` for a limit of each column of the crossbar: the
            last axis of a kernel, or what `training.ConstrainKernels` knows it to be.
            Defaults to `"layer"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> constraint = hwa_keras.constraints.HistogramClip(alpha=1.0)
        >>> [float(w) for w in constraint(np.array([-3.0, -1.0, 1.0, 3.0]) * 2)]
        [-4.472..., -2.0, 2.0, 4.472...]
        >>> layer = keras.layers.Dense(3, kernel_constraint=constraint)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.18 and
          algorithm 2; Joshi et al., 2020, arXiv:1906.03138. By columns: Büchel et
          al., 2025, arXiv:2505.09663.
    """

    def __init__(self, alpha: float = 2.0, per: str = "layer") -> None:
        _check_positive("alpha", alpha)
        check_choice("HistogramClip", ("layer", "column"), per=per)
        self.alpha = alpha
        self.per = per
        self._rows = None  # The axes over which σ is taken.

    def for_kernel(self, kernel: Any) -> "HistogramClip":
        """This constraint for one kernel, whose `view` knows rows and columns."""
        if self.per == "layer":
            return self
        own = HistogramClip(self.alpha, self.per)
        own._rows = kernel.view.rows
        return own

    def __call__(self, w: Tensor) -> Tensor:
        w = ops.convert_to_tensor(w)
        rows = self._rows
        if rows is None:
            rows = tuple(range(len(w.shape) - (self.per == "column")))
        limit = self.alpha * ops.std(w, axis=rows, keepdims=True)
        return ops.clip(w, -limit, limit)

    def get_config(self) -> Config:
        return {"alpha": self.alpha, "per": self.per}


@keras.saving.register_keras_serializable(package=PACKAGE)
class SignGroups(keras.constraints.Constraint):
    """Gives the synapses of each group of contiguous inputs one sign.

    The projection onto the kernels that a chip with one sign per group can hold, those
    at the smallest Euclidean distance: of each group of a column the positive weights
    are set to zero if the sum of their squares is below that of the negative ones, and
    the negative ones otherwise. As a constraint it is applied after each update;
    before deployment, `kernel.assign(constraint(kernel))` does it once. A
    regularizer, `hwa_keras.spiking.SignTopology`, brings most groups near it before.

    Args:
        group: Integer ≥ 1, synapses in a group. Defaults to `5`.
        partial: Bool. Whether the last group of a column may be smaller, where the
            fan-in is no multiple of the group. Defaults to `False`.

    Raises:
        ValueError: If `group` is out of its range; when it is applied, if `group` does
            not divide the fan-in of the kernel (all axes but the last).

    Example:
        >>> constraint = hwa_keras.constraints.SignGroups(group=2)
        >>> w = np.array([[0.5], [-0.25], [-0.5], [-0.125]], "float32")
        >>> ops.convert_to_numpy(constraint(w))[:, 0].tolist()
        [0.5, 0.0, -0.5, -0.125]
    """

    def __init__(self, group: int = 5, partial: bool = False) -> None:
        self.group = check_group("SignGroups", group)
        self.partial = bool(partial)

    def __call__(self, w: Tensor) -> Tensor:
        w = ops.convert_to_tensor(w)
        groups = grouped("SignGroups", w, self.group, self.partial)
        positive = ops.maximum(groups, 0.0)
        negative = ops.minimum(groups, 0.0)
        is_positive = ops.greater_equal(
            ops.sum(ops.square(positive), axis=1, keepdims=True),
            ops.sum(ops.square(negative), axis=1, keepdims=True),
        )
        return ungrouped(ops.where(is_positive, positive, negative), w)

    def get_config(self) -> Config:
        return {"group": self.group, "partial": self.partial}


_NAMED = {
    "weight_clip": WeightClip,
    "aggressive_clip": AggressiveClip,
    "histogram_clip": HistogramClip,
    "sign_groups": SignGroups,
}


def resolve(kwargs):
    """Keras does not know these names, which hardware layers take."""
    return {
        key: _NAMED[value]() if isinstance(value, str) and value in _NAMED else value
        for key, value in kwargs.items()
    }


def _check_positive(name, value):
    if not 0 < value < math.inf:
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value!r}."
        )
