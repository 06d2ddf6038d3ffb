"""Rules: what each kind of layer does to means and covariances."""

import math

import keras
from keras import layers, ops

from hwa_keras.analysis.moments.covariance import Covariance
from hwa_keras.analysis.moments.noise import product_noise
from hwa_keras.layers.base import kernels_inside
from hwa_keras.layers.product_families import product_of

__all__ = ["apply_rule"]


def _classes(names):
    return tuple(getattr(layers, name) for name in names.split())


_IDENTITIES = _classes(
    "Identity Dropout AlphaDropout SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "GaussianNoise GaussianDropout ActivityRegularization InputLayer"
)
_RESHAPES = _classes("Flatten Reshape")
_AFFINE = _classes("BatchNormalization Rescaling Normalization")
_BY_CHANNEL = _classes(
    "AveragePooling1D AveragePooling2D AveragePooling3D GlobalAveragePooling1D "
    "GlobalAveragePooling2D GlobalAveragePooling3D ZeroPadding1D ZeroPadding2D "
    "ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D "
    "UpSampling3D"
)
_SIGNS = {"Add": (1, None), "Subtract": (1, -1)}


def apply_rule(joint, step, weights, terms):
    """Compute the moments of what a step gives.

    Args:
        joint: A `Joint` that holds the inputs of the step; the output is put there.
        step: A `Step`.
        weights: Dictionary from the ids of `HardwareKernel`s to pairs of tensors of
            their kernel's shape: the means and the variances of the weights.
        terms: How many terms of the series of a ReLU; see `rectified_covariance`.

    Raises:
        ValueError: If no rule for the operation is known.
    """
    layer, inputs, y = step.operation, step.inputs, step.output
    noisy = _is_layer(layer) and any(id(k) in weights for k in kernels_inside(layer))
    _check_precision(layer)
    if isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False):
        raise ValueError(_unknown(layer, "the mask of "))
    signs = _signs(layer, len(inputs))
    if signs is not None:
        _check_shapes(layer, [joint.means[i] for i in inputs])
        joint.summed(inputs, signs, y)
    elif not noisy and _is_layer(layer) and all(map(joint.is_exact, inputs)):
        given = [joint.means[i] for i in inputs]
        joint.put(y, _called(layer, given[0] if len(given) == 1 else given))
    elif len(inputs) != 1 or not _of_one(joint, step, weights, terms):
        raise ValueError(_unknown(layer))


def _of_one(joint, step, weights, terms):
    """Apply the rule of an operation of one tensor; whether there is one."""
    layer, [x], y = step.operation, step.inputs, step.output
    mean = joint.means[x]
    last = getattr(layer, "data_format", None) != "channels_first"
    if _is_a(layer, _IDENTITIES):
        joint.moved(x, y, mean)
    elif _is_a(layer, _RESHAPES) and last:
        joint.moved(x, y, _called(layer, mean))
    elif _is_a(layer, _AFFINE):
        joint.scaled(x, y, _called(layer, mean), _slope(layer, mean))
    elif _is_a(layer, _BY_CHANNEL):
        joint.linear(x, y, _called(layer, mean), lambda v: _called(layer, v), last)
    elif _is_a(layer, (layers.Permute, *_RESHAPES)):
        joint.linear(x, y, _called(layer, mean), lambda v: _called(layer, v))
    elif product_of(layer) is not None:
        _multiply(joint, layer, x, y, weights)
        _activate(joint, layer, layer.activation, y, y, terms)
    elif _is_a(layer, (layers.Activation,)):
        _activate(joint, layer, layer.activation, x, y, terms)
    elif _is_relu(layer):
        joint.rectified(x, y, terms)
    else:
        return False
    return True


def _is_layer(layer):
    return isinstance(layer, keras.Layer)


def _is_a(layer, classes):
    """Whether a layer computes as one of some classes."""
    return any(isinstance(layer, c) and type(layer).call is c.call for c in classes)


def _is_op(layer, name):
    is_own = type(layer).__module__.startswith("keras.src.ops.")
    return is_own and type(layer).__name__ == name


def _signs(layer, count):
    """The signs of what an operation adds, or None for another operation."""
    for name, (first, rest) in _SIGNS.items():
        if type(layer) is getattr(layers, name) or _is_op(layer, name):
            return (first, *(rest or first for _ in range(count - 1)))
    return None


def _is_relu(layer):
    if _is_op(layer, "Relu"):
        return True
    plain = _is_a(layer, (layers.ReLU,))
    return (
        plain
        and layer.max_value is None
        and not (layer.negative_slope or layer.threshold)
    )


def _activate(joint, layer, activation, x, y, terms):
    if activation in (None, keras.activations.linear):
        if x != y:
            joint.moved(x, y, joint.means[x])
    elif activation is keras.activations.relu:
        joint.rectified(x, y, terms)
    else:
        name = getattr(activation, "__name__", repr(activation))
        raise ValueError(_unknown(layer, f"the activation '{name}' of "))


def _called(layer, x):
    return ops.cast(layer(x), "float32")


def _slope(layer, mean):
    """What an affine layer multiplies each element with, `[1, n]`."""
    ones = ops.ones((1, *mean.shape[1:]))
    slope = _called(layer, ones) - _called(layer, ops.zeros_like(ones))
    return ops.reshape(slope, (1, -1))


def _multiply(joint, layer, x, y, weights):
    """The products of a layer, with its bias and without its activation."""
    kernels = {kernel.keys: kernel for kernel in getattr(layer, "hardware_kernels", ())}
    if getattr(layer, "lora_enabled", False):
        raise ValueError(_unknown(layer, "the low-rank adaptation of "))
    for product in product_of(layer):
        kernel = kernels.get((product.attribute,))
        if id(kernel) in weights:
            mean, variance = weights[id(kernel)]
        else:
            mean, variance = _exact_kernel(layer, kernel, product), None
        noise = None
        if variance is not None:
            noise = product_noise(joint, layer, product, x, variance)

        def apply(v, product=product, kernel=mean):
            return product.apply(layer, v, kernel)

        joint.linear(x, y, apply(joint.means[x]), apply)
        if noise is not None:
            joint.perturbed(y, noise)
        x = y
    _add_bias(joint, layer, y, weights.get(id(kernels.get(("bias",)))))


def _exact_kernel(layer, kernel, product):
    if kernel is not None:
        return ops.cast(kernel.quantized(), "float32")
    return ops.cast(ops.convert_to_tensor(getattr(layer, product.attribute)), "float32")


def _add_bias(joint, layer, y, moments):
    if layer.bias is None:
        return
    bias = layer.bias if moments is None else moments[0]
    shape = joint.means[y].shape
    joint.means[y] = joint.means[y] + ops.cast(bias, "float32")
    if moments is not None:
        channels = int(shape[-1])
        positions = math.prod(int(n) for n in shape[1:-1])
        size = (int(shape[0]), positions, positions, channels)
        shared = ops.broadcast_to(moments[1], size)
        joint.perturbed(y, Covariance(shared, joint.budget))


def _check_precision(layer):
    dtype = getattr(layer, "compute_dtype", "float32")
    if dtype in ("float16", "bfloat16"):
        raise ValueError(
            f"'{layer.name}' computes in {dtype}, whose rounding errors are larger "
            "than what moments are to tell. Build the model with the dtype policy "
            "'float32', or use method='delta'."
        )


def _check_shapes(layer, tensors):
    shapes = [tuple(t.shape[1:]) for t in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(_unknown(layer, f"tensors of the shapes {shapes} at "))


def _unknown(layer, what=""):
    name = getattr(layer, "name", type(layer).__name__)
    return (
        f"No rule for the moments is known for {what}layer '{name}' "
        f"({type(layer).__name__}). Use method='delta', which takes any architecture."
    )
