"""Which layers a model calls, on which shapes, and how often each uses its weights."""

import math

import keras
from keras import layers

from hwa_keras.model import HWAModel
from hwa_keras.quantizers import Quantizer

__all__ = ["calls_of", "uses_per_weight"]

_AT_EACH_OUTPUT = tuple(
    getattr(layers, name)
    for name in (
        "Dense",
        "Conv1D",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
        "SeparableConv1D",
        "SeparableConv2D",
    )
)
_AT_EACH_INPUT = tuple(
    getattr(layers, name)
    for name in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
)
_NO_PRODUCTS = (
    layers.BatchNormalization,
    layers.CategoryEncoding,
    layers.Embedding,
    layers.GroupNormalization,
    layers.Identity,
    layers.LayerNormalization,
    layers.Masking,
    layers.Normalization,
    layers.Rescaling,
    layers.UnitNormalization,
    Quantizer,
)
# Of these families of Keras all have none, but the one that is a product.
_NO_PRODUCTS_MODULES = tuple(
    f"keras.src.layers.{family}."
    for family in ("activations", "merging", "pooling", "regularization", "reshaping")
)
_PRODUCTS = (
    "Conv",
    "ConvTranspose",
    "Convolve",
    "DepthwiseConv",
    "Dot",
    "DotProductAttention",
    "Einsum",
    "Inner",
    "Matmul",
    "SeparableConv",
    "Tensordot",
    "Vdot",
)


def calls_of(model):
    """The layers and products that a model calls, and with which shapes.

    Args:
        model: A built Keras model. A layer of a model that is not functional is taken
            to be called once, on the shape that it was built for.

    Returns:
        A list of pairs: a layer, model or operation (such as that of
        `keras.ops.matmul`); and a list of pairs (input shape, output shape), one per
        call, None where a shape is not known.
    """
    if isinstance(model, HWAModel):
        return calls_of(model.model)
    graph = getattr(model, "_functional", None) or model
    if not getattr(graph, "_nodes_by_depth", None):
        return [(layer, [_built_shapes(layer)]) for layer in model.layers]
    found = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.input_tensors and _is_listed(node.operation):
                shapes = (node.input_tensors[0].shape, node.outputs[0].shape)
                found.setdefault(node.operation, []).append(shapes)
    return list(found.items())


def _is_listed(operation):
    return (
        isinstance(operation, keras.layers.Layer)
        or type(operation).__name__ in _PRODUCTS
    )


def _built_shapes(layer):
    shape = (layer.get_build_config() or {}).get("input_shape")
    try:
        return shape, layer.compute_output_shape(shape)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return shape, None


def uses_per_weight(layer, input_shape, output_shape):
    """How often a layer multiplies with each of its weights, for one example.

    Args:
        layer: A layer or operation.
        input_shape: The shape of its (first) input, or None.
        output_shape: The shape of its (first) output, or None.

    Returns:
        An integer, 0 for layers that do not multiply with kernels, or None if it
        cannot be told.
    """
    if isinstance(layer, layers.EinsumDense):
        return _size(_free_axes(layer.equation, input_shape, output_shape))
    if isinstance(layer, _AT_EACH_OUTPUT):
        return _size(_positions(layer, output_shape))
    if isinstance(layer, _AT_EACH_INPUT):
        return _size(_positions(layer, input_shape))
    known = type(layer).__module__.startswith(_NO_PRODUCTS_MODULES)
    if isinstance(layer, _NO_PRODUCTS) or (known and not isinstance(layer, layers.Dot)):
        return 0
    return None


def _positions(layer, shape):
    """The axes of a shape that are neither the batch nor the channels."""
    if shape is None:
        return None
    first = getattr(layer, "data_format", None) == "channels_first"
    return shape[2:] if first else shape[1:-1]


def _size(axes):
    if axes is None or None in axes:
        return None
    return math.prod(axes)


def _free_axes(equation, input_shape, output_shape):
    """The sizes of the output's axes that neither kernel nor batch have."""
    if input_shape is None or output_shape is None:
        return None
    terms, _, result = equation.replace(" ", "").partition("->")
    inputs, kernel = terms.split(",")
    inputs = _labels(inputs, len(input_shape))
    result = _labels(result, len(output_shape))
    batch = inputs[0]
    summed_alone = set(inputs) - set(result) - set(kernel)
    if summed_alone or batch in kernel or batch not in result:
        return None
    sizes = dict(zip(inputs, input_shape, strict=True))
    for label, size in zip(result, output_shape, strict=True):
        sizes[label] = sizes.get(label) or size
    return [sizes[x] for x in result if x not in kernel and x != batch]


def _labels(term, rank):
    """One label per axis; those that `...` stands for are numbered."""
    before, dots, after = term.partition("...")
    count = rank - len(before) - len(after) if dots else 0
    return [*before, *map(str, range(count)), *after]
