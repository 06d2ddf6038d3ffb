"""unroll_convolutions: convolutions as one product of the whole input."""

import math

import keras
import numpy as np
from keras import layers, ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.layers.product_families import product_of

__all__ = ["unroll_convolutions"]

_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)


def unroll_convolutions(model: keras.Model, most_weights: int = 2**24) -> keras.Model:
    """A copy of a model whose convolutions multiply the whole input at once.

    "Unrolled linear": a convolution of an input of H × W × C becomes a dense layer on
    all of its H·W·C numbers, with a column for each number that comes out. Its matrix
    repeats the kernel and is zero elsewhere. On a crossbar one read does what takes a
    read for each output pixel otherwise ("unfold, repeat", what all other functions
    assume), at the price of the matrix's size, and of the noise of all of its zeros.

    Args:
        model: A built sequential or functional Keras model of Keras's own layers, not
            on hardware. It is not changed.
        most_weights: Integer ≥ 1, the most weights that one matrix may have. Defaults
            to 2²⁴.

    Returns:
        The copy, compiled as the model is. A convolution is in it a
        `keras.Sequential` of its name, of `Flatten`, `Dense` and `Reshape`.

    Raises:
        ValueError: If the model is on hardware or not built, or a matrix would have
            more weights than `most_weights`.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, name="conv")]
        ... )
        >>> unrolled = hwa_keras.unroll_convolutions(model)
        >>> tuple(unrolled.get_layer("conv").layers[1].kernel.shape)
        (16, 8)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 3.3.2.
    """
    check_count("unroll_convolutions", most_weights=most_weights)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`unroll_convolutions` takes a built Keras model. Received: {model!r}."
        )
    if hardware_kernels(model):
        raise ValueError(
            f"'{model.name}' is on hardware. Unroll the model first, and put what "
            "comes out on hardware."
        )
    made = {}

    def replaced(layer):
        if isinstance(layer, _CONVOLUTIONS):
            made[layer.name] = layer, _unrolled(layer, most_weights)
            return made[layer.name][1]
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=replaced)
    for layer in model.layers:
        if layer.name in made:
            _set_weights(*made[layer.name])
        elif layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    if model.compiled:
        copy.compile_from_config(model.get_compile_config())
    return copy


def _unrolled(layer, most_weights):
    """The layers that stand for a convolution, not yet with its weights."""
    inputs = tuple(layer.get_build_config()["input_shape"])[1:]
    outputs = tuple(layer.compute_output_shape((1, *inputs)))[1:]
    if None in inputs:
        raise ValueError(
            f"The convolution '{layer.name}' has inputs of an open size, {inputs}: "
            "unrolled it needs a row for each of them."
        )
    count = math.prod(inputs) * math.prod(outputs)
    if count > most_weights:
        raise ValueError(
            f"Unrolled, the convolution '{layer.name}' has {math.prod(inputs):,} rows "
            f"and {math.prod(outputs):,} columns, {count:,} weights ({4 * count:,} "
            f"bytes): more than most_weights={most_weights:,}. Leave it as it is, or "
            "take smaller inputs."
        )
    dense = layers.Dense(
        math.prod(outputs),
        activation=layer.activation,
        use_bias=layer.use_bias,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    parts = [keras.Input(inputs), layers.Flatten(), dense, layers.Reshape(outputs)]
    return keras.Sequential(parts, name=layer.name)


def _set_weights(layer, unrolled):
    """The matrix of a convolution: what it makes of every input alone."""
    inputs = tuple(unrolled.input_shape[1:])
    rows = math.prod(inputs)
    [product] = product_of(layer)
    basis = ops.reshape(ops.eye(rows), (rows, *inputs))
    kernel = ops.convert_to_tensor(getattr(layer, product.attribute).value)
    matrix = ops.reshape(product.apply(layer, basis, kernel), (rows, -1))
    dense = unrolled.layers[1]
    dense.kernel.assign(matrix)
    if layer.use_bias:
        outputs = unrolled.output_shape[1:]
        bias = ops.convert_to_numpy(layer.bias)
        if layer.data_format == "channels_first":
            bias = bias.reshape(-1, *(1,) * (len(outputs) - 1))
        dense.bias.assign(np.broadcast_to(bias, outputs).reshape(-1))
