"""The supernet's computation: every layer as large as it can be, with masks."""

import functools

from keras import ops

from hwa_keras.layers.product_families import product_of

__all__ = ["Masked", "apply_kernel"]


def _value_at(size, genes, places):
    """A `Size` for genes that are a tensor.

    Args:
        size: A `Size`.
        genes: Integer tensor, the index of each choice's option.
        places: Dictionary from the names of choices to their places in `genes`.

    Returns:
        An integer scalar tensor.
    """
    table = ops.convert_to_tensor(size.table.reshape(-1), "int32")
    index = ops.zeros((), "int32")
    for name, stride in size.strides().items():
        index = index + stride * genes[places[name]]
    return ops.take(table, index)


def apply_kernel(layer, x, kernel):
    """The product of a layer's inputs and another kernel, without the bias."""
    [product] = product_of(layer)
    return product.apply(layer, x, kernel)


class Masked:
    """A builder that computes a network of a supernet.

    Channels are masked after normalization and activation: masks before would leave the
    β of a channel that is not there. A smaller kernel is the middle of the larger one,
    and a block that is not there hands on its input.

    Args:
        supernet: A `Supernet`.
        genes: Integer tensor, the index of each choice's option.
        training: Bool.
        product: Function `(masked, kernel, x)` in place of a layer's product and
            normalization; or None.
    """

    def __init__(self, supernet, genes, training=False, product=None):
        self.supernet = supernet
        self.genes = genes
        self.training = training
        self.product = product or Masked.normalized_product

    def value(self, size):
        """A `Size` as an integer scalar tensor."""
        return _value_at(size, self.genes, self.supernet.places)

    def is_active(self, kernel):
        """Whether a layer is there: True, or a boolean scalar tensor."""
        if kernel.gate is None or kernel.gate[0].is_fixed:
            return True
        depth, place = kernel.gate
        return self.value(depth) > place

    def channels(self, size):
        """1 for channels that are there and 0 for others, or None if all are."""
        if size.is_fixed:
            return None
        there = ops.arange(size.largest) < self.value(size)
        return ops.cast(there, self.supernet.compute_dtype)

    def middle(self, kernel):
        """1 in the middle that is used of a kernel, `[k, k, 1, 1]`; None if all is."""
        if kernel.size.is_fixed:
            return None
        largest = kernel.size.largest
        from_middle = ops.abs(ops.arange(largest) - largest // 2)
        there = from_middle <= self.value(kernel.size) // 2
        there = ops.cast(there, self.supernet.compute_dtype)
        return ops.reshape(there[:, None] * there[None], (largest, largest, 1, 1))

    def weights_mask(self, kernel):
        """1 for the weights that are there, broadcasting with the kernel; or None."""
        inputs, outputs = self.channels(kernel.inputs), self.channels(kernel.outputs)
        if kernel.kind == "depthwise":
            outputs = None
        parts = [
            self.middle(kernel),
            None if inputs is None else inputs[:, None],
            outputs,
        ]
        parts = [part for part in parts if part is not None]
        return functools.reduce(lambda a, b: a * b, parts) if parts else None

    def normalized_product(self, kernel, x):
        """The product with the supernet's weights, and its normalization."""
        layer, normalization = self.supernet.layers_of(kernel.name)
        weights, middle = layer.kernel, self.middle(kernel)
        if middle is not None:
            weights = weights * middle
        z = apply_kernel(layer, x, weights)
        if normalization is None:
            return z + layer.bias
        return normalization(z, training=self.training)

    def conv(self, kernel, x, activate=True):
        y = self.product(self, kernel, x)
        if activate:
            y = ops.relu(y)
        mask = self.channels(kernel.outputs)
        return y if mask is None else y * mask

    def add(self, y, x, activate):
        return ops.relu(y + x) if activate else y + x

    def pool(self, x):
        return ops.max_pool(x, 3, 2, padding="same", data_format="channels_last")

    def optional(self, gate, function, x):
        depth, place = gate
        return ops.where(self.value(depth) > place, function(x), x)

    def classify(self, kernel, x):
        return self.product(self, kernel, ops.mean(x, axis=(1, 2)))
