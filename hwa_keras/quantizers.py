"""Quantizers: W → W_q, with straight-through gradients.

Names, arguments, forward values and pseudo-gradients are Larq's where Larq has the
quantizer. A quantizer is a Keras layer that maps a tensor to a tensor of the same
shape, so it works as `kernel_quantizer=`, as `input_quantizer=`, as
`activation=` of a Keras layer and on its own. Anything callable is accepted wherever
a quantizer is.
"""

import math
import numbers

import keras
from keras import ops

from hwa_keras.registry import Family

__all__ = [
    "DoReFa",
    "Quantizer",
    "SteSign",
    "Uniform",
    "deserialize",
    "dorefa",
    "get",
    "serialize",
    "ste_sign",
    "uniform",
]

_family = Family("quantizer", takes_callables=True)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _in_float32(x):
    """Half-precision numbers cannot hold the codes of a fine grid."""
    return x if x.dtype == "float64" else ops.cast(x, "float32")


def ste_sign(x, clip_value=1.0):
    """Binarize to -1 and 1, with the gradient of a clipped identity.

    q(x) = -1 for x < 0, and 1 for x ≥ 0; dq/dx = 1 for |x| ≤ clip_value, and 0
    elsewhere.

    Args:
        x: Tensor of any shape.
        clip_value: Float > 0, or None to pass every gradient.

    Returns:
        A tensor of the shape and dtype of `x`.
    """

    @ops.custom_gradient
    def quantize(x):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            if clip_value is None:
                return upstream
            inside = ops.abs(x) <= clip_value
            return ops.where(inside, upstream, ops.zeros_like(upstream))

        return ops.where(x < 0, -ops.ones_like(x), ops.ones_like(x)), gradient

    return quantize(ops.convert_to_tensor(x))


def _round_straight_through(x, codes):
    """round(x·codes) / codes, with the gradient of x."""

    @ops.custom_gradient
    def quantize(x):
        def gradient(*args, upstream=None):
            return args[0] if upstream is None else upstream

        return ops.round(x * codes) / codes, gradient

    return quantize(x)


@ops.custom_gradient
def _clip_to_unit(x):
    """clip(x, 0, 1) with a gradient of 1 at the ends too, on every backend."""

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        inside = ops.logical_and(x >= 0, x <= 1)
        return ops.where(inside, upstream, ops.zeros_like(upstream))

    return ops.clip(x, 0.0, 1.0), gradient


def dorefa(x, k_bit=2, mode="activations"):
    """Quantize to `k_bit` bits as DoReFa-Net does.

    With n = 2^k_bit − 1 and round(·) passing its gradient through:
    for activations q(x) = round(n·clip(x, 0, 1)) / n;
    for weights q(w) = 2·round(n·(tanh(w) / (2·max|tanh(w)|) + 1/2)) / n − 1, where
    the maximum counts as a constant in the gradient.

    Args:
        x: Tensor of any shape.
        k_bit: Integer from 1 to 16.
        mode: `"activations"` or `"weights"`.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    x = ops.convert_to_tensor(x)
    codes = 2**k_bit - 1
    value = _in_float32(x)
    if mode == "activations":
        quantized = _round_straight_through(_clip_to_unit(value), codes)
        return ops.cast(quantized, x.dtype)
    limited = ops.tanh(value)
    largest = ops.stop_gradient(ops.max(ops.abs(limited)))
    unit = ops.divide_no_nan(limited, 2.0 * largest) + 0.5
    quantized = 2.0 * _round_straight_through(unit, codes) - 1.0
    return ops.cast(quantized, x.dtype)


def uniform(x, levels=256, scale=1.0, scale_gradient=1.0):
    """Quantize to a uniform, symmetric grid.

    q(x) = α·clip(round(x/α·n)/n, −1, 1) with n = levels − 1 and α = `scale`. The
    gradient with respect to x is 1 for |x| ≤ α and 0 elsewhere. The gradient with
    respect to α is that of learned step size quantization: round(v·n)/n − v for
    v = x/α inside the range, and ±1 outside.

    Args:
        x: Tensor of any shape.
        levels: Integer ≥ 2. Levels of each polarity, zero included: what one
            device of a differential pair can hold.
        scale: Positive float, or tensor that broadcasts with `x`.
        scale_gradient: Float. Factor on the gradient of α.

    Returns:
        A tensor of the shape and dtype of `x`.

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
    value = _in_float32(x)
    scale = ops.cast(ops.convert_to_tensor(scale), value.dtype)
    return ops.cast(quantize(value, scale), x.dtype)


def _sum_to_shape(x, shape):
    """Sum over the axes along which `shape` was broadcast to the shape of `x`."""
    padded = (1,) * (len(x.shape) - len(shape)) + tuple(shape)
    axes = [i for i, size in enumerate(padded) if size == 1]
    return ops.reshape(ops.sum(x, axis=axes, keepdims=True), shape)


class Quantizer(keras.layers.Layer):
    """Base class of the quantizers: a layer from a tensor to one of the same shape.

    Subclasses set `precision`, the number of bits of a code, and write `call`.
    Inputs are quantized in the dtype in which they come, whatever the dtype policy.
    """

    precision = 32
    built: bool

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def attach(self, variable):
        """Build for a variable, so that a learned scale can start from its values."""
        if not self.built:
            self.build(variable.shape)

    def compute_output_shape(self, input_shape):
        return input_shape


@_family.register("ste_sign")
class SteSign(Quantizer):
    r"""Binarizes to -1 and 1, with a clipped straight-through gradient.

    q(x) = −1 if x < 0, else 1;  dq/dx = 1 if |x| ≤ clip_value, else 0.

    Args:
        clip_value: Float > 0, or None to pass every gradient. Defaults to `1.0`.

    Example:
        >>> quantizer = hwa_keras.quantizers.SteSign()
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.0, 2.0]))]
        [-1.0, 1.0, 1.0]

    Reference:
        - Courbariaux et al., "Binarized neural networks", 2016, arXiv:1602.02830.
    """

    precision = 1

    def __init__(self, clip_value=1.0, **kwargs):
        super().__init__(**kwargs)
        if clip_value is not None and not (_is_number(clip_value) and clip_value > 0):
            raise ValueError(
                "`clip_value` must be a positive number, or None to pass every "
                f"gradient. Received: clip_value={clip_value!r}."
            )
        self.clip_value = clip_value

    def call(self, inputs):
        return ste_sign(inputs, self.clip_value)

    def get_config(self):
        return {**super().get_config(), "clip_value": self.clip_value}


@_family.register("dorefa", "dorefa_quantizer")
class DoReFa(Quantizer):
    r"""Quantizes to `k_bit` bits as DoReFa-Net does.

    With n = 2^k_bit − 1: for activations q(x) = round(n·clip(x, 0, 1))/n with
    dq/dx = 1 for 0 ≤ x ≤ 1, else 0; for weights
    q(w) = 2·round(n·(tanh(w)/(2·max|tanh(w)|) + ½))/n − 1 with the gradient of the
    formula without the rounding, the maximum taken as constant.

    Args:
        k_bit: Integer from 1 to 16. Defaults to `2`.
        mode: `"activations"` (range 0 to 1) or `"weights"` (range -1 to 1).
            Defaults to `"activations"`.

    Example:
        >>> quantizer = hwa_keras.quantizers.DoReFa(k_bit=2)
        >>> [round(float(v), 3) for v in quantizer(np.array([-1.0, 0.3, 0.6, 2.0]))]
        [0.0, 0.333, 0.667, 1.0]

    Reference:
        - Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160.
    """

    def __init__(self, k_bit=2, mode="activations", **kwargs):
        super().__init__(**kwargs)
        if isinstance(k_bit, bool) or k_bit not in range(1, 17):
            raise ValueError(
                f"`k_bit` must be an integer from 1 to 16. Received: k_bit={k_bit}."
            )
        if mode not in ("activations", "weights"):
            raise ValueError(
                f"`mode` must be 'activations' or 'weights'. Received: mode={mode!r}."
            )
        self.k_bit = int(k_bit)
        self.mode = mode

    @property
    def precision(self):
        return self.k_bit

    def call(self, inputs):
        return dorefa(inputs, self.k_bit, self.mode)

    def get_config(self):
        return {**super().get_config(), "k_bit": self.k_bit, "mode": self.mode}


@_family.register("uniform")
class Uniform(Quantizer):
    r"""Quantizes to a uniform, symmetric grid: the levels of a programmable device.

    W_q = α·clip(round(W/α·(L−1))/(L−1), −1, 1), where L = `levels` is the number of
    levels of each polarity, zero included, as a differential pair of devices with L
    conductance levels each would hold. dW_q/dW = 1 for |W| ≤ α, else 0.

    Args:
        levels: Integer ≥ 2. Defaults to `256`.
        scale: What α is. A positive float: fixed at that value. `"max"`: the largest
            magnitude of the tensor, anew at each call. `"learned"`: a variable,
            trained with the gradient of learned step size quantization (LSQ), which
            starts at the kernel's largest magnitude, or at 1 where the quantizer
            serves activations. Defaults to `1.0`.
        axis: `None` for one α per tensor, or the axis (or tuple of axes) that keep
            an α each: `-1` gives one per output channel. Only for `"max"` and
            `"learned"`. Defaults to `None`.

    Example:
        >>> quantizer = hwa_keras.quantizers.Uniform(levels=3, scale="max")
        >>> [float(v) for v in quantizer(np.array([-2.0, 0.3, 0.8]))]
        [-2.0, 0.0, 1.0]

    Reference:
        - Esser et al., "Learned step size quantization", ICLR 2020,
          arXiv:1902.08153 (the gradient of α and its factor 1/√(N·(L−1)), where N
          counts the weights, or the features of one example, that share an α).
    """

    def __init__(self, levels=256, scale=1.0, axis=None, **kwargs):
        super().__init__(**kwargs)
        if not (_is_number(levels) and levels >= 2 and levels % 1 == 0):
            raise ValueError(
                "`levels` must be an integer of at least 2. Received: "
                f"levels={levels!r}."
            )
        fixed = _is_number(scale)
        if not (fixed and 0 < scale < math.inf) and scale not in ("max", "learned"):
            raise ValueError(
                "`scale` must be a positive number, 'max' or 'learned'. Received: "
                f"scale={scale!r}."
            )
        if fixed and axis is not None:
            raise ValueError(
                "`axis` goes with scale='max' and scale='learned'; a fixed scale is "
                f"one number. Received: axis={axis}, scale={scale}."
            )
        self.levels = int(levels)
        self.scale = float(scale) if fixed else scale
        self.axis = axis
        self.learned_scale = None
        self._scale_gradient = 1.0

    @property
    def precision(self):
        """Bits of a signed code: sign and magnitude."""
        return 1 + math.ceil(math.log2(self.levels))

    def _reduced_axes(self, rank):
        if self.axis is None:
            return tuple(range(rank))
        kept = self.axis if isinstance(self.axis, (tuple, list)) else (self.axis,)
        if not all(-rank <= i < rank for i in kept):
            raise ValueError(
                f"`axis` {self.axis} does not exist in a tensor of rank {rank}."
            )
        return tuple(i for i in range(rank) if i not in {j % rank for j in kept})

    def _largest_magnitude(self, x):
        axes = self._reduced_axes(len(x.shape))
        largest = ops.max(ops.abs(x), axis=axes, keepdims=self.axis is not None)
        return ops.where(largest > 0, largest, ops.ones_like(largest))

    def attach(self, variable):
        if self.built:
            return
        if self.scale == "learned":
            self._add_scale(
                variable.shape,
                lambda shape, dtype: ops.cast(
                    self._largest_magnitude(variable.value), dtype
                ),
            )
        self.built = True

    def build(self, input_shape):
        if self.scale == "learned":
            self._add_scale(input_shape, "ones", batched=True)
        self.built = True

    def _add_scale(self, input_shape, initializer, batched=False):
        reduced = self._reduced_axes(len(input_shape))
        shape: tuple = ()
        if self.axis is not None:
            shape = tuple(1 if i in reduced else n for i, n in enumerate(input_shape))
        # Of activations LSQ counts the features of one example, not the batch.
        counted = [i for i in reduced if not (batched and i == 0)]
        count = math.prod(input_shape[i] or 1 for i in counted)
        self._scale_gradient = 1.0 / math.sqrt(count * (self.levels - 1))
        self.learned_scale = self.add_weight(
            shape=shape, initializer=initializer, name="scale"
        )

    def call(self, inputs):
        inputs = ops.convert_to_tensor(inputs)
        if self.scale == "max":
            scale = ops.stop_gradient(self._largest_magnitude(inputs))
            return uniform(inputs, self.levels, scale)
        if self.scale == "learned":
            # A step across zero must not end the learning: α is a magnitude.
            scale = ops.maximum(ops.abs(self.learned_scale), keras.config.epsilon())
            return uniform(inputs, self.levels, scale, self._scale_gradient)
        return uniform(inputs, self.levels, self.scale)

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "scale": self.scale,
            "axis": self.axis,
        }
