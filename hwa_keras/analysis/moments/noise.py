"""The noise that one product adds: one draw of the kernel, shared by all positions."""

import math

import numpy as np
from keras import ops

from hwa_keras.analysis.moments.covariance import Covariance

__all__ = ["Places", "product_noise"]


def product_noise(joint, layer, product, x, variance):
    """The covariance of y[p, c] = Σ_r (W̃ − E W̃)[r, c]·x[p, r], of independent W̃.

    Positions p share the weights and columns c do not:
    Cov(y[p, c], y[q, c]) = Σ_r Var(W̃[r, c])·E(x[p, r]·x[q, r]).

    Args:
        joint: The `Joint` that holds the inputs.
        layer: A built Keras layer.
        product: One of its `Product`s.
        x: Number of the inputs.
        variance: Tensor of the shape of the kernel.

    Returns:
        A `Covariance` by columns.
    """
    shape = tuple(int(n) for n in joint.means[x].shape[1:])
    places = joint.places(layer, product, shape)
    count, positions = places.shape
    rows, columns = product.view(layer).matrix_shape
    groups = product.groups(layer)
    size = rows // count
    weights = ops.reshape(
        product.view(layer).to_matrix(variance), (count, size, groups, -1)
    )
    weights = ops.transpose(weights, (0, 2, 1, 3))
    joint.budget.check(positions, positions, columns)
    if groups == 1 and joint.is_exact(x):
        return Covariance(
            _of_exact(layer, product, joint.means[x], variance), joint.budget
        )
    moments = _second_moments(joint, x, bool(np.any(places < 0)))
    total = 0.0
    for k in range(count):
        pairs = _at(moments, places[k])
        total = total + _summed(pairs, weights[k], groups, columns)
    return Covariance(total, joint.budget)


def _of_exact(layer, product, x, variance):
    """The same for exact inputs: Σ_r x[p, r]·Var(W̃[r, c])·x[q, r]."""
    rows, columns = product.view(layer).matrix_shape
    x = ops.reshape(product.unfold(layer, x), (int(x.shape[0]), 1, -1, rows))
    by_column = ops.transpose(product.view(layer).to_matrix(variance))
    weighted = x * ops.reshape(by_column, (1, columns, 1, rows))
    sums = ops.matmul(weighted, ops.swapaxes(x, -1, -2))
    return ops.transpose(sums, (0, 2, 3, 1))


def _summed(pairs, weights, groups, columns):
    """Σ_j pairs[b, p, q, (g, j)]·weights[g, j, c], as `[b, p, q, (g, c)]`."""
    if groups == 1:
        return ops.matmul(pairs, weights[0])
    outer = tuple(pairs.shape[:3])
    pairs = ops.reshape(pairs, (*outer, groups, -1))
    parts = ops.einsum("bpqgj,gjc->bpqgc", pairs, weights)
    return ops.reshape(parts, (*outer, columns))


def _second_moments(joint, x, padded):
    """E(x[s, i]·x[t, i]) of channels i: `[examples, S, S, channels]`, or with a zero
    position behind the last."""
    mean = joint.means[x]
    examples, channels = int(mean.shape[0]), int(mean.shape[-1])
    positions = math.prod(int(n) for n in mean.shape[1:-1])
    joint.budget.check(positions, positions, channels)
    mean = ops.reshape(mean, (examples, positions, channels))
    moments = ops.expand_dims(mean, 1) * ops.expand_dims(mean, 2)
    own = joint.covariance(x, x)
    if own is not None:
        moments = moments + own.among(channels)
    if padded:
        moments = ops.pad(moments, [(0, 0), (0, 1), (0, 1), (0, 0)])
    return moments


def _at(moments, place):
    """Second moments between the positions of a list, −1 for a zero."""
    if np.array_equal(place, np.arange(moments.shape[1])):
        return moments
    place = np.where(place < 0, moments.shape[1] - 1, place)
    return ops.take(ops.take(moments, place, axis=1), place, axis=2)


class Places:
    """Where on its inputs the kernel of a product looks: found once for each shape.

    Call arguments:
        layer: A built Keras layer.
        product: One of its `Product`s.
        shape: Tuple, the shape of an example of the inputs.

    Returns:
        Integer array `[kernel positions, output positions]`: the position of the inputs
        that each part of the kernel sees at each output position, −1 for a zero.

    Raises:
        ValueError: If rows are no channels of one position after the other.
    """

    def __init__(self):
        self._found = {}

    def __call__(self, layer, product, shape):
        key = id(layer), product.attribute, shape
        if key not in self._found:
            self._found[key] = _places(layer, product, shape)
        return self._found[key]


def _places(layer, product, shape):
    numbers = np.arange(1, math.prod(shape) + 1, dtype="int32").reshape(1, *shape)
    seen = ops.convert_to_numpy(product.unfold(layer, ops.convert_to_tensor(numbers)))
    groups, rows = seen.shape[-2:]
    channels = shape[-1]
    size = channels // groups
    if size * groups == channels and rows % size == 0:
        seen = seen.reshape(-1, groups, rows // size, size)
        exists, seen = seen > 0, seen - 1
        expected = np.arange(channels).reshape(1, groups, 1, size)
        place = np.where(exists, seen // channels, -1)
        alike = np.all(place == place[:, :1, :, :1])
        if alike and np.all(~exists | (seen % channels == expected)):
            columns = np.arange(product.view(layer).matrix_shape[1])[None]
            kept = product.from_columns(layer, ops.convert_to_tensor(columns))
            if np.array_equal(np.ravel(ops.convert_to_numpy(kept)), columns[0]):
                return place[:, 0, :, 0].T
    raise ValueError(
        f"No rule for the moments is known for the layout of '{layer.name}' "
        f"({type(layer).__name__}), such as channels first. Use method='delta', which "
        "takes any architecture."
    )
