"""Which layers a model calls, on which shapes, and how often each uses its weights."""

import math

import keras
from keras import layers

from hwa_keras.core.hardware_kernel import HardwareKernel
from hwa_keras.layers.einsum_labels import EinsumLabels
from hwa_keras.layers.product_families import product_of
from hwa_keras.layers.products import ConvTransposeProduct, EinsumProduct
from hwa_keras.quantizers import Quantizer
from hwa_keras.spiking.encoders import DeltaEncoder, LatencyEncoder, RateEncoder
from hwa_keras.spiking.neurons import Neurons
from hwa_keras.spiking.readouts import FirstSpike, MembraneReadout, SpikeCount

__all__ = ["calls_of", "uses_per_weight"]

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
    Neurons,
    DeltaEncoder,
    LatencyEncoder,
    RateEncoder,
    FirstSpike,
    MembraneReadout,
    SpikeCount,
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
    graph = getattr(model, "_functional", None) or model
    if not getattr(graph, "_nodes_by_depth", None):
        listed = [x for x in model.layers if not isinstance(x, HardwareKernel)]
        return [(layer, [_built_shapes(layer)]) for layer in listed]
    found: dict = {}
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
    products = product_of(layer)
    if products is not None:
        return _size(_positions(products[0], layer, input_shape, output_shape))
    known = type(layer).__module__.startswith(_NO_PRODUCTS_MODULES)
    if isinstance(layer, _NO_PRODUCTS) or (known and not isinstance(layer, layers.Dot)):
        return 0
    return None


def _positions(product, layer, input_shape, output_shape):
    """The axes at which a layer multiplies, the batch apart; None if not known."""
    if isinstance(product, EinsumProduct):
        return _outer_axes(layer.equation, input_shape, output_shape)
    transposed = isinstance(product, ConvTransposeProduct)
    shape = input_shape if transposed else output_shape
    if shape is None:
        return None
    first = getattr(layer, "data_format", None) == "channels_first"
    return shape[2:] if first else shape[1:-1]


def _size(axes):
    if axes is None or None in axes:
        return None
    return math.prod(axes)


def _outer_axes(equation, input_shape, output_shape):
    """The sizes of the output's axes that neither kernel nor batch have."""
    if input_shape is None or output_shape is None:
        return None
    labels = EinsumLabels(equation)
    labels = EinsumLabels(equation, len(input_shape) - len(labels.inputs))
    batch = labels.inputs[0]
    summed_alone = set(labels.inputs) - set(labels.output) - set(labels.kernel)
    if summed_alone or batch in labels.kernel or batch not in labels.output:
        return None
    sizes = dict(zip(labels.inputs, input_shape, strict=True))
    for label, size in zip(labels.output, output_shape, strict=True):
        sizes[label] = sizes.get(label) or size
    return [sizes[label] for label in labels.outer if label != batch]
