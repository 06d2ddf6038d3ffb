"""Binary quantizers: two levels, and the many ways to pretend a gradient."""

import math
from typing import Any

from keras import ops

from hwa_keras.core.types import Config, Tensor
from hwa_keras.quantizers.base import (
    Quantizer,
    check_clip_value,
    clipped_identity,
    family,
    fans,
    in_float32,
    is_number,
    with_pseudo_gradient,
)
from hwa_keras.quantizers.code import Code

__all__ = [
    "ApproxSign",
    "BinaryConnect",
    "MagnitudeAwareSign",
    "SteHeaviside",
    "SteSign",
    "SwishSign",
    "approx_sign",
    "binary_connect",
    "magnitude_aware_sign",
    "ste_heaviside",
    "ste_sign",
    "swish_sign",
]


def _sign(x):
    """-1 for x < 0, 1 for x ≥ 0, NaN for NaN."""
    return ops.sign(ops.sign(x) + 0.1)


def ste_sign(x: Tensor, clip_value: float | None = 1.0) -> Tensor:
    """Binarize to -1 and 1, with the gradient of a clipped identity: see `SteSign`.

    Args:
        x: Tensor of any shape.
        clip_value: Float > 0, or None to pass every gradient.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    return with_pseudo_gradient(
        x, _sign, clipped_identity(check_clip_value(clip_value))
    )


def approx_sign(x: Tensor) -> Tensor:
    """Binarize to -1 and 1, with the gradient of a parabola: see `ApproxSign`."""

    def backward(x, upstream):
        magnitude = ops.abs(x)
        slope = (1 - magnitude) * 2
        return ops.where(magnitude <= 1, slope * upstream, ops.zeros_like(upstream))

    return with_pseudo_gradient(x, _sign, backward)


def swish_sign(x: Tensor, beta: float = 5.0) -> Tensor:
    """Binarize to -1 and 1, with the gradient of SignSwish: see `SwishSign`."""

    def backward(x, upstream):
        # Beyond ±80 the slope is below 1e-32, and cosh would overflow in a while.
        u = ops.clip(beta * x, -80.0, 80.0)
        return upstream * beta * (2 - u * ops.tanh(u * 0.5)) / (1 + ops.cosh(u))

    return with_pseudo_gradient(x, _sign, backward)


def ste_heaviside(x: Tensor, clip_value: float | None = 1.0) -> Tensor:
    """Binarize to 0 and 1, with a clipped gradient: see `SteHeaviside`."""
    check_clip_value(clip_value)
    return with_pseudo_gradient(
        x,
        lambda x: ops.sign(ops.relu(x)),
        clipped_identity(clip_value),
    )


def magnitude_aware_sign(x: Tensor, clip_value: float | None = 1.0) -> Tensor:
    """Binarize to ± the mean magnitude of a channel: see `MagnitudeAwareSign`."""
    x = ops.convert_to_tensor(x)
    value = in_float32(x)
    magnitude = ops.stop_gradient(_mean_magnitude_per_channel(value))
    return ops.cast(magnitude * ste_sign(value, clip_value), x.dtype)


def _mean_magnitude_per_channel(x):
    return ops.mean(ops.abs(x), axis=list(range(len(x.shape) - 1)), keepdims=True)


def binary_connect(w: Tensor, scale: str | float = "he") -> Tensor:
    """Binarize to ± a constant, passing every gradient: see `BinaryConnect`."""
    w = ops.convert_to_tensor(w)
    value = in_float32(w)
    if scale == "xnor":
        factor = ops.stop_gradient(_mean_magnitude_per_channel(value))
    else:
        factor = _initial_std(w.shape, scale)
    return ops.cast(factor * ste_sign(value, clip_value=None), w.dtype)


def _initial_std(shape, scale):
    """The standard deviation with which Keras would initialize a kernel."""
    if scale not in _FANS:
        return float(scale)
    return math.sqrt(_FANS[scale](*fans(shape)))


_FANS = {
    "he": lambda fan_in, fan_out: 2.0 / fan_in,
    "glorot": lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
}


class _Signed(Quantizer):
    """Base of the quantizers to ± one magnitude: one bit, the sign."""

    precision = 1

    def code(self) -> Code | None:
        return Code(bits=1, offset=0.5)


class _Clipped(_Signed):
    """Base of those with one argument, where their gradient ends."""

    def __init__(self, clip_value: float | None = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clip_value = check_clip_value(clip_value)

    def get_config(self) -> Config:
        return {**super().get_config(), "clip_value": self.clip_value}


@family.register("ste_sign")
class SteSign(_Clipped):
    r"""Binarizes to -1 and 1, with a clipped straight-through gradient.

    q(x) = −1 if x < 0, else 1;  dq/dx = 1 if |x| ≤ clip_value, else 0.

    Args:
        clip_value: Float > 0, or None to pass every gradient. Defaults to `1.0`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.SteSign()
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [-1.0, 1.0, 1.0]

    Reference:
        - Courbariaux et al., "Binarized neural networks", 2016, arXiv:1602.02830.
    """

    def quantized(self, inputs: Tensor) -> Tensor:
        return ste_sign(inputs, self.clip_value)


@family.register("ste_heaviside")
class SteHeaviside(_Clipped):
    r"""Binarizes to 0 and 1, with a clipped straight-through gradient.

    q(x) = 1 if x > 0, else 0;  dq/dx = 1 if |x| ≤ clip_value, else 0.

    Args:
        clip_value: Float > 0, or None to pass every gradient. Defaults to `1.0`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.SteHeaviside()
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [0.0, 0.0, 1.0]

    Reference:
        - Courbariaux et al., "Binarized neural networks", 2016, arXiv:1602.02830, for
          the gradient.
    """

    def quantized(self, inputs: Tensor) -> Tensor:
        return ste_heaviside(inputs, self.clip_value)

    def code(self) -> Code | None:
        return Code(bits=1, offset=1.0)


@family.register("magnitude_aware_sign")
class MagnitudeAwareSign(_Clipped):
    r"""Binarizes to plus and minus the mean magnitude of each output channel.

    q(w) = s·sign(w) with sign(0) = 1 and s the mean of |w| over all axes but the
    last;  dq/dw = s if |w| ≤ clip_value, else 0, with s taken as constant.

    Args:
        clip_value: Float > 0, or None to pass every gradient. Defaults to `1.0`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.MagnitudeAwareSign()
        >>> np.array(quantizer(np.array([[-0.5, 1.0], [1.5, 3.0]]))).tolist()
        [[-1.0, 2.0], [1.0, 2.0]]

    Reference:
        - Liu et al., "Bi-Real Net", 2018, arXiv:1808.00278, section 3.3.
    """

    def quantized(self, inputs: Tensor) -> Tensor:
        return magnitude_aware_sign(inputs, self.clip_value)


@family.register("approx_sign")
class ApproxSign(_Signed):
    r"""Binarizes to -1 and 1, with the gradient of a piecewise parabola.

    q(x) = −1 if x < 0, else 1;  dq/dx = 2 − 2|x| if |x| ≤ 1, else 0.

    Args:
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.ApproxSign()
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [-1.0, 1.0, 1.0]

    Reference:
        - Liu et al., "Bi-Real Net", 2018, arXiv:1808.00278.
    """

    def quantized(self, inputs: Tensor) -> Tensor:
        return approx_sign(inputs)


@family.register("swish_sign")
class SwishSign(_Signed):
    r"""Binarizes to -1 and 1, with the gradient of SignSwish.

    q(x) = −1 if x < 0, else 1;
    dq/dx = β·(2 − βx·tanh(βx/2)) / (1 + cosh(βx)).

    Args:
        beta: Float > 0: the larger, the nearer the gradient is to that of the sign.
            Defaults to `5.0`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.SwishSign(beta=10.0)
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [-1.0, 1.0, 1.0]

    Reference:
        - Darabi et al., "BNN+", 2018, arXiv:1812.11800.
    """

    def __init__(self, beta: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (is_number(beta) and 0 < beta < math.inf):
            raise ValueError(
                f"`beta` must be a positive number. Received: beta={beta!r}."
            )
        self.beta = beta

    def quantized(self, inputs: Tensor) -> Tensor:
        return swish_sign(inputs, self.beta)

    def get_config(self) -> Config:
        return {**super().get_config(), "beta": self.beta}


@family.register("binary_connect")
class BinaryConnect(_Signed):
    r"""Binarizes to plus and minus a constant, and passes every gradient.

    W_b = sign(W) with sign(0) = 1 and dW_b/dW = 1; the layer's product with W_b is
    scaled by α, which is the same as q(W) = α·W_b. Weights are meant to be kept in
    [−1, 1] after each update, by `hwa_keras.constraints.WeightClip`.

    Args:
        scale: What α is. `"he"` or `"glorot"`: the standard deviation with which that
            initializer would draw the kernel, √(2/fan_in) or √(2/(fan_in + fan_out)).
            `"xnor"`: the mean |W| of each output channel, as in XNOR-Net, taken as
            constant in the gradient. A positive float: fixed. Defaults to `"he"`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.BinaryConnect(scale=0.5)
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [-0.5, 0.5, 0.5]

    Reference:
        - Courbariaux et al., "BinaryConnect", 2015, arXiv:1511.00363; Rastegari et
          al., "XNOR-Net", 2016, arXiv:1603.05279, for `"xnor"`.
    """

    def __init__(self, scale: str | float = "he", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        fixed = is_number(scale) and 0 < scale < math.inf
        if not fixed and scale not in ("xnor", *_FANS):
            raise ValueError(
                "`scale` must be 'he', 'glorot', 'xnor' or a positive number. "
                f"Received: scale={scale!r}."
            )
        self.scale = float(scale) if fixed else scale

    def quantized(self, inputs: Tensor) -> Tensor:
        return binary_connect(inputs, self.scale)

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale}
