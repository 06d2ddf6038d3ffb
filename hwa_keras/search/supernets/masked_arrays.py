"""Networks of a supernet whose products are those of memristors."""

import copy

from keras import ops

from hwa_keras.core import random
from hwa_keras.search.supernets.masked import Masked, apply_kernel

__all__ = ["DrivenArrays", "NoisyArrays", "with_tensors"]


class _Arrays:
    """The products of a masked network, each on the devices of its layer.

    Args:
        objective: The `CrossbarAccuracyPower`.
        genes: Integer tensor.
        g_u: Tensor, the range of each layer.
    """

    def __init__(self, objective, genes, g_u):
        self.objective = objective
        self.masked = Masked(objective.supernet, genes, product=self.product)
        names = objective.space.layers
        self.places = {name: i for i, name in enumerate(names)}
        self.g_u = g_u
        self.largest = self._largest_of_network()

    def product(self, masked, kernel, x):
        layer, normalization = self.objective.supernet.layers_of(kernel.name)
        weights, mask, shift = self._weights(kernel)
        z = self.on_devices(kernel, layer, x, weights, mask)
        if shift is not None:
            return z + shift
        if normalization is not None:
            return normalization(z, training=False)
        return z + layer.bias

    def on_devices(self, kernel, layer, x, weights, mask):
        """What a layer's arrays compute of inputs."""
        raise NotImplementedError

    def _weights(self, kernel):
        """The weights that are there, their mask or 1, and what is added behind."""
        layer, normalization = self.objective.supernet.layers_of(kernel.name)
        weights, shift = ops.convert_to_tensor(layer.kernel), None
        if normalization is not None and self.objective.batchnorm == "folded":
            variance = normalization.moving_variance + normalization.epsilon
            scale = normalization.gamma * ops.rsqrt(variance)
            shift = normalization.beta - normalization.moving_mean * scale
            is_depthwise = kernel.kind == "depthwise"
            weights = weights * (scale[:, None] if is_depthwise else scale)
        mask = self.masked.weights_mask(kernel)
        if mask is None:
            return weights, 1.0, shift
        return weights * mask, mask, shift

    def _largest_of_network(self):
        """The largest weight of all layers, where devices are mapped by it."""
        device = self.objective.device
        if device.per != "network" or device.largest_weight is not None:
            return {}
        largest = ops.zeros(())
        for kernel in self.objective.space.kernels:
            own = ops.max(ops.abs(self._weights(kernel)[0]))
            is_there = self.masked.is_active(kernel)
            largest = ops.maximum(largest, ops.where(is_there, own, 0.0))
        return {"largest_weight": largest}

    def ranges(self, kernel):
        """What the devices of a layer have of their own, tensors by attribute."""
        return {**self.largest, "g_u": self.g_u[self.places[kernel.name]]}


class NoisyArrays(_Arrays):
    """Arrays whose devices were written once, with noise.

    Args:
        seed: Seed tensor.
    """

    def __init__(self, objective, genes, g_u, seed):
        super().__init__(objective, genes, g_u)
        self.seed = seed

    def on_devices(self, kernel, layer, x, weights, mask):
        seed = random.fold_in(self.seed, self.places[kernel.name])
        matrix = _matrix(kernel, weights)
        noisy = self.objective.written(matrix, seed, self.ranges(kernel))
        return apply_kernel(layer, x, ops.reshape(noisy, weights.shape) * mask)


class DrivenArrays(_Arrays):
    """Arrays without noise, and the power that inputs take in them."""

    def __init__(self, objective, genes, g_u):
        super().__init__(objective, genes, g_u)
        self.power = ops.zeros(())

    def on_devices(self, kernel, layer, x, weights, mask):
        device = with_tensors(self.objective.device, self.ranges(kernel))
        conductances, _ = device.targets(_matrix(kernel, weights))
        power, total = ops.zeros(()), 0.0
        for d in range(conductances.shape[0]):
            g = ops.reshape(conductances[d], weights.shape) * mask
            total = total + g
            power = power + ops.sum(ops.square(apply_kernel(layer, x, g)))
        power = power + ops.sum(apply_kernel(layer, ops.square(x), total))
        is_there = self.masked.is_active(kernel)
        self.power = self.power + ops.where(is_there, power, 0.0)
        return apply_kernel(layer, x, weights)


def with_tensors(device, attributes):
    """A copy of a device some of whose attributes are tensors, which no check sees."""
    device = copy.copy(device)
    for name, value in attributes.items():
        object.__setattr__(device, name, value)
    return device


def _matrix(kernel, weights):
    """Weights `[rows, columns]`: of a depthwise layer a column for each channel."""
    *_, inputs, outputs = weights.shape
    columns = inputs if kernel.kind == "depthwise" else outputs
    return ops.reshape(weights, (-1, columns))
