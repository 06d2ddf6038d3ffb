"""What Keras's layers compute before their bias, in NumPy, by loops, in float64."""

import itertools

import numpy as np
from keras import layers


def paddings(sizes, kernel, strides, dilations, padding):
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (k - 1) * d
        if padding == "same":
            total = max((int(np.ceil(n / s)) - 1) * s + reach + 1 - n, 0)
            yield total // 2, total - total // 2
        else:
            yield (reach if padding == "causal" else 0), 0


def conv(x, kernel, strides, dilations, padding, groups):
    """A convolution of channels-last inputs, one output position at a time."""
    x, kernel = np.asarray(x, "float64"), np.asarray(kernel, "float64")
    size = kernel.shape[:-2]
    widths = paddings(x.shape[1:-1], size, strides, dilations, padding)
    x = np.pad(x, [(0, 0), *widths, (0, 0)])
    counts = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:-1], size, strides, dilations, strict=True)
    ]
    filters = kernel.shape[-1] // groups
    channels = kernel.shape[-2]
    y = np.zeros((x.shape[0], *counts, kernel.shape[-1]))
    for o, k, g in itertools.product(
        np.ndindex(*counts), np.ndindex(*size), range(groups)
    ):
        at = tuple(np.multiply(o, strides) + np.multiply(k, dilations))
        seen = x[(slice(None), *at)][:, g * channels : (g + 1) * channels]
        block = slice(g * filters, (g + 1) * filters)
        y[(slice(None), *o, block)] += seen @ kernel[k][:, block]
    return y


def depthwise(x, kernel, strides, dilations, padding):
    """Each input channel a convolution by itself."""
    outputs = [
        conv(x[..., [c]], kernel[..., [c], :], strides, dilations, padding, 1)
        for c in range(x.shape[-1])
    ]
    return np.concatenate(outputs, axis=-1)


def conv_transpose(x, kernel, strides, dilations, padding, extra):
    """Every input adds its kernel to the outputs: the gradient of a convolution.

    The outputs are those inputs of a convolution of which `x` are the outputs.
    """
    x, kernel = np.asarray(x, "float64"), np.asarray(kernel, "float64")
    sizes, reached = (
        x.shape[1:-1],
        np.multiply(np.array(kernel.shape[:-2]) - 1, dilations),
    )
    whole = (np.array(sizes) - 1) * strides + reached + 1
    y = np.zeros((x.shape[0], *(whole + 20), kernel.shape[-2]))
    for i, k in itertools.product(np.ndindex(*sizes), np.ndindex(*kernel.shape[:-2])):
        at = tuple(np.multiply(i, strides) + np.multiply(k, dilations))
        y[(slice(None), *at)] += x[(slice(None), *i)] @ kernel[k].T
    for axis, n in enumerate(sizes):
        s, reach = strides[axis], reached[axis]
        more = None if extra is None else extra[axis]
        first = 0
        if padding == "valid":
            count = (n - 1) * s + (
                max(reach + 1, s) if more is None else reach + 1 + more
            )
        else:
            odd = (reach + 1) % 2
            count = n * s if more is None else (n - 1) * s + odd + more
            first = max((n - 1) * s + reach + 1 - count, 0) // 2
        y = np.take(y, range(first, first + count), axis=axis + 1)
    return y


def expected(layer, x):
    """What a layer computes before its bias, by NumPy, in its data format."""
    first = getattr(layer, "data_format", None) == "channels_first"
    x = np.moveaxis(x, 1, -1) if first else x
    y = REFERENCES[type(layer)](layer, x)
    return np.moveaxis(y, -1, 1) if first else y


def options(layer):
    return layer.strides, layer.dilation_rate, layer.padding


def conv_of(layer, x):
    return conv(x, layer.kernel, *options(layer), layer.groups)


def depthwise_of(layer, x):
    return depthwise(x, np.asarray(layer.kernel), *options(layer))


def transposed_of(layer, x):
    return conv_transpose(x, layer.kernel, *options(layer), layer.output_padding)


def separable_of(layer, x):
    y = depthwise(x, np.asarray(layer.depthwise_kernel), *options(layer))
    one = (1,) * layer.rank
    return conv(y, layer.pointwise_kernel, one, one, "valid", 1)


REFERENCES = {
    layers.Dense: lambda layer, x: x.astype("float64") @ np.asarray(layer.kernel),
    layers.EinsumDense: lambda layer, x: np.einsum(
        layer.equation, x.astype("float64"), np.asarray(layer.kernel)
    ),
    layers.Conv1D: conv_of,
    layers.Conv2D: conv_of,
    layers.Conv3D: conv_of,
    layers.DepthwiseConv1D: depthwise_of,
    layers.DepthwiseConv2D: depthwise_of,
    layers.Conv1DTranspose: transposed_of,
    layers.Conv2DTranspose: transposed_of,
    layers.Conv3DTranspose: transposed_of,
    layers.SeparableConv1D: separable_of,
    layers.SeparableConv2D: separable_of,
}
