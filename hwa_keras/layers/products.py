"""The matrix products of Keras's layers, as a crossbar computes them.

A layer of a known family multiplies its inputs with one kernel, or with two. A
`Product` tells how: which axes of the kernel are rows and columns, Keras's own
operation, and the inputs on the rows. It has no state: the Keras layer tells all.
"""

import math

import keras
from keras import ops

from hwa_keras.core.types import Tensor
from hwa_keras.core.views import MatrixView
from hwa_keras.layers import unfolding
from hwa_keras.layers.einsum_labels import EinsumLabels

__all__ = [
    "ConvProduct",
    "ConvTransposeProduct",
    "DenseProduct",
    "DepthwiseConvProduct",
    "EinsumProduct",
    "PointwiseConvProduct",
    "Product",
]


class Product:
    """One matrix product of a Keras layer, without bias and activation.

    For every product with `columns = view.matrix_shape[1]`, and
    `matrix = reshape(view.to_matrix(kernel), [rows, groups, columns / groups])`,

        z = einsum("...gr,rgc->...gc", unfold(layer, x), matrix)
        from_columns(layer, reshape(z, [..., columns]), x) == apply(layer, x, kernel)

    up to rounding: column `g * (columns / groups) + c` sees the inputs of group `g`.

    Args:
        attribute: Name of the layer's attribute that holds the kernel's variable.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.Conv2D(8, 3, groups=2)
        >>> layer.build((None, 6, 6, 4))
        >>> [product] = product_of(layer)
        >>> product.attribute, product.groups(layer)
        ('_kernel', 2)
        >>> product.view(layer).matrix_shape
        (18, 8)
        >>> tuple(product.unfold(layer, ops.ones((1, 6, 6, 4))).shape)
        (1, 4, 4, 2, 18)
    """

    columns: tuple[int, ...] = (-1,)  # The output axes of the kernel.

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def __repr__(self):
        return f"{type(self).__name__}({self.attribute!r})"

    def _kernel_shape(self, layer):
        return tuple(getattr(layer, self.attribute).shape)

    def view(self, layer: keras.Layer) -> MatrixView:
        """The `MatrixView` of the kernel of a built layer."""
        return MatrixView(self._kernel_shape(layer), self.columns)

    def dtype(self, layer: keras.Layer) -> str:
        """The dtype in which a layer multiplies."""
        return layer.compute_dtype

    def groups(self, layer: keras.Layer) -> int:
        """Number of blocks of columns that see different inputs (1 for most)."""
        return 1

    def apply(self, layer: keras.Layer, x: Tensor, kernel: Tensor) -> Tensor:
        """Keras's own operation: the outputs before bias and activation.

        Args:
            layer: The built Keras layer.
            x: Tensor, inputs of the product in Keras's layout.
            kernel: Tensor of the kernel's shape.
        """
        raise NotImplementedError

    def unfold(self, layer: keras.Layer, x: Tensor) -> Tensor:
        """The inputs on the rows of the crossbar, one vector for each product.

        Args:
            layer: The built Keras layer.
            x: Tensor, inputs of the product in Keras's layout, of any dtype.

        Returns:
            Tensor `[..., groups, rows]` of the same dtype, with the leading axes of
            `to_columns` and the rows in the order of the view.
        """
        raise NotImplementedError

    def to_columns(self, layer: keras.Layer, y: Tensor) -> Tensor:
        """Outputs `y` in Keras's layout, as `[..., columns]` in the view's order."""
        return y

    def from_columns(
        self, layer: keras.Layer, z: Tensor, x: Tensor | None = None
    ) -> Tensor:
        """Outputs `z` by column, `[..., columns]`, in Keras's layout.

        The inverse of `to_columns`. `x`, the inputs of the product, is there for
        products that need their shape; those of this module need none.
        """
        return z


class DenseProduct(Product):
    """The product of `keras.layers.Dense`: inputs `[..., rows]`, a kernel's own matrix.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.Dense(3)
        >>> layer.build((None, 5))
        >>> [product] = product_of(layer)
        >>> tuple(product.unfold(layer, ops.ones((2, 5))).shape)
        (2, 1, 5)
    """

    def apply(self, layer: keras.Layer, x: Tensor, kernel: Tensor) -> Tensor:
        return ops.matmul(x, kernel)

    def unfold(self, layer: keras.Layer, x: Tensor) -> Tensor:
        return ops.expand_dims(x, -2)


class EinsumProduct(Product):
    """The product of `keras.layers.EinsumDense`.

    Labels of the kernel that the output has too are columns, the others rows. Labels
    that the inputs have as well as kernel and output are groups. Labels of the inputs
    alone are summed before the product.

    Raises:
        NotImplementedError: By `unfold`, where a group's label follows another column's
            in the kernel, or where an operand has a label twice.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.EinsumDense("abcd,cde->abce", output_shape=(7, 3, 5))
        >>> layer.build((None, 7, 3, 4))
        >>> [product] = product_of(layer)
        >>> product.groups(layer), product.view(layer).matrix_shape
        (3, (4, 15))
        >>> tuple(product.unfold(layer, ops.ones((2, 7, 3, 4))).shape)
        (2, 7, 3, 4)
    """

    def view(self, layer):
        labels = EinsumLabels(layer.equation)
        columns = tuple(labels.kernel.index(label) for label in labels.columns)
        return MatrixView(self._kernel_shape(layer), columns)

    def groups(self, layer):
        labels, shape = EinsumLabels(layer.equation), self._kernel_shape(layer)
        return math.prod(shape[labels.kernel.index(label)] for label in labels.shared)

    def apply(self, layer, x, kernel):
        if EinsumLabels(layer.equation).is_elementwise:
            # Of such an einsum TFLite's converter makes a product of other shapes.
            return ops.multiply(x, kernel)
        return ops.einsum(layer.equation, x, kernel)

    def unfold(self, layer, x):
        elided = len(x.shape) - len(EinsumLabels(layer.equation).inputs)
        labels = EinsumLabels(layer.equation, elided)
        if not labels.fit_crossbar:
            raise NotImplementedError(
                f"The equation '{layer.equation}' of layer '{layer.name}' cannot be "
                "laid out on a crossbar. The labels that inputs, kernel and output "
                "share must come before the kernel's other output labels, and no "
                "operand may have a label twice. Reorder the kernel's labels, or "
                "leave this layer to Keras."
            )
        kept = labels.outer + labels.shared + labels.rows
        summed = [i for i, label in enumerate(labels.inputs) if label not in kept]
        x = ops.sum(x, axis=summed) if summed else x
        x = _transpose(x, [label for label in labels.inputs if label in kept], kept)
        last = (self.groups(layer), self.view(layer).matrix_shape[0])
        return ops.reshape(x, (*ops.shape(x)[: len(labels.outer)], *last))

    def to_columns(self, layer, y):
        elided = len(y.shape) - len(EinsumLabels(layer.equation).output)
        labels = EinsumLabels(layer.equation, elided)
        y = _transpose(y, labels.output, labels.outer + labels.columns)
        columns = self.view(layer).matrix_shape[1]
        return ops.reshape(y, (*ops.shape(y)[: len(labels.outer)], columns))

    def from_columns(self, layer, z, x=None):
        elided = len(z.shape) - 1 - len(EinsumLabels(layer.equation).outer)
        labels, view = EinsumLabels(layer.equation, elided), self.view(layer)
        sizes = [view.shape[axis] for axis in view.columns]
        z = ops.reshape(z, (*ops.shape(z)[:-1], *sizes))
        return _transpose(z, labels.outer + labels.columns, labels.output)


class _SpatialProduct(Product):
    """What the products of convolutions share: channels, and groups of them."""

    def to_columns(self, layer, y):
        return _channels_last(layer, y)

    def from_columns(self, layer, z, x=None):
        return ops.moveaxis(z, -1, 1) if layer.data_format == "channels_first" else z

    def _patches(self, layer, x):
        """Patches `[batch, *positions, *kernel size, channels]` of channels-last x."""
        return unfolding.windows(layer, x)

    def unfold(self, layer, x):
        patches = self._patches(layer, _channels_last(layer, x))
        groups = self.groups(layer)
        outer = ops.shape(patches)[: layer.rank + 1]
        positions = math.prod(patches.shape[layer.rank + 1 : -1])
        channels = patches.shape[-1] // groups
        if groups > 1:
            patches = ops.reshape(patches, (*outer, positions, groups, channels))
            patches = ops.swapaxes(patches, -3, -2)
        return ops.reshape(patches, (*outer, groups, positions * channels))


class ConvProduct(_SpatialProduct):
    """The product of `keras.layers.Conv1D`, `Conv2D` and `Conv3D`.

    A product for each output position; its rows are the positions of the kernel, then
    the channels of a group. The columns are the filters, group after group.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.Conv1D(6, 3, padding="causal")
        >>> layer.build((None, 10, 4))
        >>> [product] = product_of(layer)
        >>> tuple(product.unfold(layer, ops.ones((2, 10, 4))).shape)
        (2, 10, 1, 12)
    """

    def groups(self, layer):
        return layer.groups

    def apply(self, layer, x, kernel):
        padding = layer.padding
        if padding == "causal":
            before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
            axis = 1 if layer.data_format == "channels_last" else 2
            x, padding = unfolding.pad(x, axis, before), "valid"
        return ops.conv(x, kernel, padding=padding, **_options(layer))


class PointwiseConvProduct(_SpatialProduct):
    """The second product of `keras.layers.SeparableConv1D` and `SeparableConv2D`.

    Its inputs are the outputs of the first, depthwise product.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.SeparableConv2D(8, 3, depth_multiplier=2)
        >>> layer.build((None, 6, 6, 4))
        >>> product_of(layer)[1].view(layer).matrix_shape
        (8, 8)
    """

    def apply(self, layer, x, kernel):
        # Channels last, as TensorFlow knows no other order on a CPU.
        x = _channels_last(layer, x)
        y = ops.conv(x, kernel, padding="valid", data_format="channels_last")
        return self.from_columns(layer, y)

    def _patches(self, layer, x):
        return x


class DepthwiseConvProduct(_SpatialProduct):
    """The product of `keras.layers.DepthwiseConv1D` and `DepthwiseConv2D`.

    Also the first of the separable convolutions. Every input channel is a group, which
    sees its own patch; column `channel * depth_multiplier + m` is output `m` of it.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
        >>> layer.build((None, 6, 6, 4))
        >>> [product] = product_of(layer)
        >>> product.groups(layer), product.view(layer).matrix_shape
        (4, (9, 8))
    """

    columns = (-2, -1)

    def groups(self, layer):
        return self._kernel_shape(layer)[-2]

    def apply(self, layer, x, kernel):
        return ops.depthwise_conv(x, kernel, padding=layer.padding, **_options(layer))


class ConvTransposeProduct(_SpatialProduct):
    """The product of `keras.layers.Conv1DTranspose`, 2D and 3D.

    A product for each output position. It sees the inputs whose kernels reach there, in
    the kernel's order, and zeros where strides leave none.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> layer = keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same")
        >>> layer.build((None, 6, 6, 4))
        >>> [product] = product_of(layer)
        >>> product.view(layer).matrix_shape
        (36, 8)
        >>> tuple(product.unfold(layer, ops.ones((1, 6, 6, 4))).shape)
        (1, 12, 12, 1, 36)
    """

    columns = (-2,)

    def apply(self, layer, x, kernel):
        return ops.conv_transpose(
            x,
            kernel,
            padding=layer.padding,
            output_padding=layer.output_padding,
            **_options(layer),
        )

    def _patches(self, layer, x):
        return unfolding.transposed_windows(layer, x)


def _transpose(x, labels, wanted):
    return ops.transpose(x, [list(labels).index(label) for label in wanted])


def _channels_last(layer, x):
    return ops.moveaxis(x, 1, -1) if layer.data_format == "channels_first" else x


def _options(layer):
    return {n: getattr(layer, n) for n in ("strides", "dilation_rate", "data_format")}
