"""Delta: the variance of a network's outputs over chips, to first order in the errors.

Var(y_o) ≈ Σ_w Var(w̃)·(∂y_o/∂w)², with one gradient per example and output.
"""

import functools

import keras
import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.core.modes import hardware_mode

__all__ = ["output_delta", "squared_gradients"]


def output_delta(model, weights, inputs):
    """The mean and variance of the output of a model whose weights are random.

    The gradients are taken at the mean of the weights, which may lie beside what was
    programmed: E(y) ≈ y(E w̃), to first order y(w) + Σ (E w̃ − w)·∂y/∂w.

    Args:
        model: A built Keras model of any kind, with one output.
        weights: List of triples (`HardwareKernel`, mean, variance), the latter tensors
            of the kernel's shape.
        inputs: Nested structure of arrays `[examples, ...]`, as the model takes them.

    Returns:
        Two NumPy arrays of the shape of the outputs.
    """
    kernels = [kernel for kernel, _, _ in weights]
    means = [mean for _, mean, _ in weights]
    variances = [variance for _, _, variance in weights]
    call = functools.partial(_output, model, kernels)
    outputs, gradient = backend.traced(call), backend.traced(_variance(call))
    found = []
    for i in range(len(keras.tree.flatten(inputs)[0])):
        # Twice the same: with an odd batch, TensorFlow 2.21 corrupts memory on a CPU
        # in the gradient of a strided 1 × 1 convolution.
        example = keras.tree.map_structure(lambda x, i=i: x[[i, i]], inputs)
        y = ops.convert_to_numpy(outputs(means, example))[:1]
        directions = np.eye(y.size, dtype="float32").reshape(-1, *y.shape)
        variance = [gradient(means, variances, example, d) for d in directions]
        variance = np.stack([ops.convert_to_numpy(v) for v in variance])
        found.append((y, variance.reshape(y.shape)))
    outputs, variances = (np.concatenate(p) for p in zip(*found, strict=True))
    return outputs, variances


def _output(model, kernels, values, inputs):
    """What a model gives with tensors in place of its kernels."""
    drawn = {id(kernel): w for kernel, w in zip(kernels, values, strict=True)}
    with hardware_mode(drawn=drawn):
        [output] = keras.tree.flatten(model(inputs, training=False))
    return ops.cast(output, "float32")


def _variance(call):
    """The function of the means, the variances, an example and an output's one-hot."""

    def variance(means, variances, example, direction):
        def chosen(values):
            return ops.sum(call(values, example)[:1] * direction), 0.0

        _, gradients = backend.value_and_gradient(chosen, means)
        terms = [
            ops.sum(v * ops.square(g))
            for v, g in zip(variances, gradients, strict=True)
            if g is not None
        ]
        return sum(terms, ops.zeros(()))

    return variance


def squared_gradients(model, weights, inputs):
    """Σ_o (∂y_o/∂w)² of each weight, the mean over examples.

    Multiplied with the variances of the weights and summed it is what each kernel adds
    to the variance of the outputs, to first order.

    Args:
        model: A built Keras model of any kind, with one output.
        weights: List of triples (`HardwareKernel`, mean, variance), as in
            `output_delta`; the variances are not used.
        inputs: Nested structure of arrays `[examples, ...]`, as the model takes them.

    Returns:
        A list of NumPy arrays of the shapes of the kernels, in float64, and the number
        of outputs.
    """
    kernels = [kernel for kernel, _, _ in weights]
    means = [mean for _, mean, _ in weights]
    call = functools.partial(_output, model, kernels)
    squares = backend.traced(_squares(call))
    totals = [np.zeros(tuple(mean.shape)) for mean in means]
    count = len(keras.tree.flatten(inputs)[0])
    for i in range(count):
        example = keras.tree.map_structure(lambda x, i=i: x[[i, i]], inputs)
        shape = tuple(call(means, example).shape)[1:]
        for direction in np.eye(int(np.prod(shape)), dtype="float32"):
            found = squares(means, example, direction.reshape(1, *shape))
            for total, square in zip(totals, found, strict=True):
                total += ops.convert_to_numpy(square)
    return [total / count for total in totals], int(np.prod(shape))


def _squares(call):
    """The function of the means, an example and an output's one-hot."""

    def squares(means, example, direction):
        def chosen(values):
            return ops.sum(call(values, example)[:1] * direction), 0.0

        _, gradients = backend.value_and_gradient(chosen, means)
        return [
            ops.zeros_like(mean) if g is None else ops.square(g)
            for mean, g in zip(means, gradients, strict=True)
        ]

    return squares
