"""Uniform: the grid of levels that a programmable device can hold."""

import math
from typing import Any

import keras
from keras import ops

from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.quantizers.base import Quantizer, family, in_float32, is_number
from hwa_keras.quantizers.code import Code, largest_magnitude, reduced_axes

__all__ = ["Uniform", "uniform"]

_NAMED = ("max", "learned", "caws")


def uniform(
    x: Tensor,
    levels: int = 256,
    scale: float | Tensor = 1.0,
    scale_gradient: float = 1.0,
) -> Tensor:
    """Quantize to a uniform, symmetric grid.

    q(x) = α·clip(round(x/α·n)/n, −1, 1) with n = levels − 1 and α = `scale`. The
    gradient with respect to x is 1 for |x| ≤ α and 0 elsewhere. The gradient with
    respect to α is that of learned step size quantization, in terms of α instead of the
    step α/n: round(v·n)/n − v for v = x/α inside the range, and ±1 outside.

    Args:
        x: Tensor of any shape.
        levels: Integer ≥ 2. Levels of each polarity, zero included: what one
            device of a differential pair can hold.
        scale: Positive float, or tensor that broadcasts with `x`.
        scale_gradient: Float. Factor on the gradient of α.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> x = np.array([-2.0, 0.3, 0.8], "float32")
        >>> [float(v) for v in hwa_keras.quantizers.uniform(x, levels=3, scale=2.0)]
        [-2.0, 0.0, 1.0]

    Reference:
        - Esser et al., "Learned step size quantization", ICLR 2020,
          arXiv:1902.08153.
    """
    n = float(levels - 1)

    @ops.custom_gradient
    def quantize(x, scale):
        unit = x / scale
        rounded = ops.clip(ops.round(unit * n) / n, -1.0, 1.0)
        inside = ops.abs(unit) <= 1.0

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            to_x = ops.where(inside, upstream, ops.zeros_like(upstream))
            slope = ops.where(inside, rounded - unit, ops.sign(unit))
            to_scale = _sum_to_shape(upstream * slope, scale.shape)
            return to_x, to_scale * scale_gradient

        return rounded * scale, gradient

    x = ops.convert_to_tensor(x)
    value = in_float32(x)
    scale = ops.cast(ops.convert_to_tensor(scale), value.dtype)
    return ops.cast(quantize(value, scale), x.dtype)


def _sum_to_shape(x, shape):
    """Sum over the axes along which `shape` was broadcast to the shape of `x`."""
    padded = (1,) * (len(x.shape) - len(shape)) + tuple(shape)
    axes = [i for i, size in enumerate(padded) if size == 1]
    return ops.reshape(ops.sum(x, axis=axes, keepdims=True), shape)


@family.register("uniform")
class Uniform(Quantizer):
    r"""Quantizes to a uniform, symmetric grid: the levels of a programmable device.

    W_q = α·clip(round(W/α·(L−1))/(L−1), −1, 1), where L = `levels` is the number of
    levels of each polarity, zero included, as a differential pair of devices with L
    conductance levels each would hold. dW_q/dW = 1 for |W| ≤ α, else 0.

    A learned α (`scale="learned"`) is trained as learned step size quantization (LSQ)
    trains the step Δ = α/Q, Q = L − 1: by Δ ← Δ − lr·g·dL/dΔ with g = 1/√(N·Q), where N
    counts the weights, or the features of one example, that share an α. As
    dL/dΔ = Q·dL/dα, the same step in terms of α is α ← α − lr·Q²·g·dL/dα. So α gets
    Q²·g·dL/dα as its gradient, and plain SGD (with momentum, too) moves Δ as LSQ does,
    at one learning rate for weights and steps: g is there to make their relative
    updates alike (section 2.2 of the paper). This is not the derivative of the loss:
    whatever sums up squares of gradients, as clipping by a global norm does, counts it
    with its factor. Adam divides the factor out: α moves by about the learning rate a
    step, which is a Q times smaller part of it than it would be of Δ.

    Crossbar-aware weight scaling (`scale="caws"`) is α = √(3/fan_in), with fan_in the
    rows of the kernel's matrix, which is the number of inputs of one output: weights
    uniform in [−α, α] have the variance α²/3 = 1/fan_in. Keras draws them so with the
    initializer `"lecun_uniform"` where it counts the same fan_in, which it does not in
    transposed and depthwise convolutions and in einsums with several input or output
    axes. Other initializers and training may take weights beyond α, where they are
    clipped and get no gradient.

    Args:
        levels: Integer ≥ 2. Defaults to `256`.
        scale: What α is. A positive float: fixed at that value. `"max"`: the largest
            magnitude of the tensor, anew at each call. `"learned"`: a variable,
            trained with the gradient of learned step size quantization (LSQ), which
            starts at the kernel's largest magnitude, or at 1 where the quantizer
            serves activations. `"caws"`: a variable that starts at √(3/fan_in) of
            the kernel and is not trained; `training.WeightRemap` sets it anew.
            Defaults to `1.0`.
        axis: `None` for one α per tensor, or the axis (or tuple of axes) that keep
            an α each. Of a kernel `-1` stands for all of its output axes, wherever they
            are: one α per column of its matrix. Of anything else, and in a tuple, it is
            the last axis. Only for `"max"` and `"learned"`. Defaults to `None`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Attributes:
        alpha: The variable of α where `"learned"` or `"caws"` makes one, else None.

    Raises:
        ValueError: If an argument is out of its range; when it is built, if a quantizer
            with `scale="caws"` is to serve activations.

    Example:
        >>> quantizer = hwa_keras.quantizers.Uniform(levels=3, scale="max")
        >>> [float(v) for v in quantizer(np.array([-2.0, 0.3, 0.8]))]
        [-2.0, 0.0, 1.0]

    Reference:
        - Esser et al., "Learned step size quantization", ICLR 2020,
          arXiv:1902.08153 (equation 3 and section 2.2: the gradient of a step and its
          factor g).
        - Rasch et al., 2023, arXiv:2302.08469 (`"caws"`).
    """

    def __init__(
        self,
        levels: int = 256,
        scale: float | str = 1.0,
        axis: int | list[int] | tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not (is_number(levels) and levels >= 2 and levels % 1 == 0):
            raise ValueError(
                "`levels` must be an integer of at least 2. Received: "
                f"levels={levels!r}."
            )
        fixed = is_number(scale)
        if not (is_number(scale) and 0 < scale < math.inf) and scale not in _NAMED:
            raise ValueError(
                "`scale` must be a positive number, 'max', 'learned' or 'caws'. "
                f"Received: scale={scale!r}."
            )
        if scale not in ("max", "learned") and axis is not None:
            raise ValueError(
                "`axis` goes with scale='max' and scale='learned'; any other scale is "
                f"one number. Received: axis={axis}, scale={scale!r}."
            )
        self.levels = int(levels)
        self.scale = float(scale) if fixed else scale
        self.axis = axis
        self._kept_axes = tuple(axis) if isinstance(axis, list) else axis
        self.alpha = None
        self._scale_gradient = 1.0

    @property
    def precision(self) -> int:
        """Bits of a signed code: sign and magnitude."""
        return 1 + math.ceil(math.log2(self.levels))

    def bind(self, kernel: Any) -> None:
        """Build for a kernel: its output axes, and where its α starts.

        Args:
            kernel: The hardware's kernel, with `variable`, `path` and `view`.
        """
        if self.alpha is None and self.axis == -1:
            self._kept_axes = kernel.view.columns
        if self.built:
            return
        variable = kernel.variable
        self._track_flips(variable.shape, kernel.path)
        if self.scale == "learned":
            self._add_scale(
                variable.shape,
                lambda shape, dtype: ops.cast(
                    largest_magnitude(variable.value, self._kept_axes), dtype
                ),
            )
        elif self.scale == "caws":
            alpha = math.sqrt(3.0 / kernel.view.matrix_shape[0])
            self._add_scale(variable.shape, keras.initializers.Constant(alpha))
        self.built = True

    def build(self, input_shape: Shape) -> None:
        if self.scale == "caws":
            raise ValueError(
                "scale='caws' is crossbar-aware weight scaling, which is for kernels: "
                "activations have no fan-in. Take a number, 'max' or 'learned' where "
                "the quantizer serves activations. Received a quantizer, "
                f"'{self.name}', that is bound to no kernel."
            )
        if self.scale == "learned":
            self._add_scale(input_shape, "ones", batched=True)
        super().build(input_shape)

    def _add_scale(self, input_shape, initializer, batched=False):
        reduced = reduced_axes(self._kept_axes, len(input_shape))
        shape: tuple = ()
        if self._kept_axes is not None:
            shape = tuple(1 if i in reduced else n for i, n in enumerate(input_shape))
        # Of activations LSQ counts the features of one example, not the batch.
        counted = [i for i in reduced if not (batched and i == 0)]
        count = math.prod(input_shape[i] or 1 for i in counted)
        largest = self.levels - 1
        self._scale_gradient = largest**2 / math.sqrt(count * largest)
        # Not cast in mixed precision: half a digit of it is a level of a fine grid.
        self.alpha = self.add_weight(
            shape=shape,
            initializer=initializer,
            trainable=self.scale == "learned",
            autocast=False,
            name="alpha",
        )

    def quantized(self, inputs: Tensor) -> Tensor:
        inputs = ops.convert_to_tensor(inputs)
        scale = self.scale
        if scale == "max":
            scale = ops.stop_gradient(largest_magnitude(inputs, self._kept_axes))
        elif scale == "learned":
            scale = self._magnitude()
        elif scale == "caws":
            scale = ops.stop_gradient(self._magnitude())
        return uniform(inputs, self.levels, scale, self._scale_gradient)

    def _magnitude(self):
        # A step across zero must not end the learning: α is a magnitude.
        return ops.maximum(ops.abs(self.alpha), keras.config.epsilon())

    def code(self) -> Code | None:
        largest = self.levels - 1
        if is_number(self.scale):
            return Code(self.precision, step=self.scale / largest)
        return Code(self.precision, step=None, largest=largest, axis=self._kept_axes)

    def code_step(self) -> Tensor | None:
        if self.alpha is None:
            return None
        return ops.stop_gradient(self._magnitude() / (self.levels - 1))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "levels": self.levels,
            "scale": self.scale,
            "axis": self.axis,
        }
