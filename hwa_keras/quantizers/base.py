"""What all quantizers share: the family, the base class, pseudo-gradients."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras.core.checks import is_number
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.metrics import FlipRatio
from hwa_keras.quantizers.code import Code

family = Family("quantizer", takes_callables=True)


def in_float32(x):
    """Half-precision numbers cannot hold the codes of a fine grid."""
    return x if x.dtype == "float64" else ops.cast(x, "float32")


def fans(shape):
    """Inputs and outputs of a kernel of that shape, as Keras counts but of einsums."""
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


def with_pseudo_gradient(
    x: Tensor,
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """forward(x), computed backward as backward(x, upstream).

    Args:
        x: Tensor. Half precision is computed in `float32`.
        forward: Callable from a tensor to one of the same shape.
        backward: Callable from x and the gradient of the result to that of x.

    Returns:
        A tensor of the shape and dtype of `x`.
    """

    @ops.custom_gradient
    def quantize(x):
        def gradient(*args, upstream=None):
            return backward(x, args[0] if upstream is None else upstream)

        return forward(x), gradient

    x = ops.convert_to_tensor(x)
    return ops.cast(quantize(in_float32(x)), x.dtype)


def passed_within(low: float, high: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of a straight-through estimator: 1 for low ≤ x ≤ high, else 0."""

    def backward(x, upstream):
        inside = ops.logical_and(x >= low, x <= high)
        return ops.where(inside, upstream, ops.zeros_like(upstream))

    return backward


def clipped_identity(clip_value):
    """1 for |x| ≤ clip_value, else 0; 1 everywhere for None."""
    if clip_value is None:
        return lambda x, upstream: upstream
    return passed_within(-clip_value, clip_value)


def check_clip_value(clip_value):
    if clip_value is not None and not (is_number(clip_value) and clip_value > 0):
        raise ValueError(
            "`clip_value` must be a positive number, or None to pass every "
            f"gradient. Received: clip_value={clip_value!r}."
        )
    return clip_value


class Quantizer(keras.layers.Layer):
    """Base class of the quantizers: a layer from a tensor to one of the same shape.

    Subclasses set `precision`, the number of bits of a code, and write
    `quantized(inputs)`. Inputs are quantized in the dtype in which they come, whatever
    the dtype policy. `quantizers.register` gives a class of one's own a name.

    Args:
        metrics: List of names of metrics to follow in training, or None. There is
            `"flip_ratio"`: see `hwa_keras.metrics.FlipRatio`. It appears in the logs
            as `flip_ratio/` and the path of what is quantized; not on JAX, where a
            warning says so.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    precision = 32
    built: bool

    def __init__(self, metrics: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        unknown = [name for name in metrics or () if name != "flip_ratio"]
        if unknown or isinstance(metrics, str):
            raise ValueError(
                "`metrics` must be None or a list of names of metrics; there is "
                f"'flip_ratio'. Received: metrics={metrics!r}."
            )
        if metrics and keras.backend.backend() == "jax":
            # Its trainer hands layers no variables of metrics.
            warnings.warn(
                "Keras's JAX trainer has no metrics inside of layers: the flip ratio "
                "will not be in the logs. A callback can update a "
                "hwa_keras.metrics.FlipRatio with the kernels.",
                stacklevel=3,
            )
        self._metric_names = list(metrics or ())
        self.flip_ratio: FlipRatio | None = None

    def bind(self, kernel: Any) -> None:
        """Belong to one kernel: its name, its columns, where a learned scale starts.

        Args:
            kernel: What has a `variable`, a `path` and a `view`, such as a
                `HardwareKernel`.
        """
        if not self.built:
            self._track_flips(kernel.variable.shape, kernel.path)
            self.build(kernel.variable.shape)

    def build(self, input_shape: Shape) -> None:
        self._track_flips(input_shape, self.name)
        self.built = True

    def _track_flips(self, shape, name):
        wanted = self._metric_names and keras.backend.backend() != "jax"
        if wanted and self.flip_ratio is None:
            self.flip_ratio = FlipRatio(name=f"flip_ratio/{name}")
            self.flip_ratio.build(shape)

    def quantized(self, inputs: Tensor) -> Tensor:
        """Return the quantized tensor."""
        raise NotImplementedError

    def code(self) -> Code | None:
        """The `Code` in which a memory stores what this quantizes; None if unknown."""
        return None

    def code_step(self) -> Tensor | None:
        """The step of the code as a tensor, where a variable has it, else None."""
        return None

    def call(self, inputs: Tensor) -> Tensor:
        outputs = self.quantized(inputs)
        if self.flip_ratio is not None:
            self.flip_ratio.update_state(outputs)
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        metrics = {"metrics": self._metric_names} if self._metric_names else {}
        return {**super().get_config(), **metrics}


def apply(quantizer: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """Quantize a tensor with a quantizer, any callable or None.

    Raises:
        ValueError: If what comes out has another shape than what went in.
    """
    if quantizer is None:
        return x
    quantized = quantizer(x)
    if len(quantized.shape) != len(x.shape) or any(
        None not in (a, b) and a != b
        for a, b in zip(quantized.shape, x.shape, strict=True)
    ):
        raise ValueError(
            f"The quantizer {quantizer!r} must keep the shape of its input. It made "
            f"{tuple(quantized.shape)} of {tuple(x.shape)}."
        )
    return quantized
