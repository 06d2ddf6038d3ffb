"""Which products a layer computes: the families of Keras, and those of one's own."""

import keras

from hwa_keras.layers.products import (
    ConvProduct,
    ConvTransposeProduct,
    DenseProduct,
    DepthwiseConvProduct,
    EinsumProduct,
    PointwiseConvProduct,
    Product,
)

__all__ = ["is_registered", "product_of", "register_products"]

# Classes of a family that share their functions today may not tomorrow: all are listed.
_KERAS = {
    getattr(keras.layers, name): products
    for names, *products in (
        ("Dense", DenseProduct("_kernel")),
        ("EinsumDense", EinsumProduct("_kernel")),
        ("Conv1D Conv2D Conv3D", ConvProduct("_kernel")),
        ("DepthwiseConv1D DepthwiseConv2D", DepthwiseConvProduct("kernel")),
        ("Conv1DTranspose Conv2DTranspose", ConvTransposeProduct("kernel")),
        ("Conv3DTranspose", ConvTransposeProduct("kernel")),
        (
            "SeparableConv1D SeparableConv2D",
            DepthwiseConvProduct("depthwise_kernel"),
            PointwiseConvProduct("pointwise_kernel"),
        ),
    )
    for name in names.split()
}
_registered: dict = {}


def product_of(layer):
    """The products of a layer of a known family.

    A family is told by the functions that compute (`call`, and the `kernel` and
    `convolution_op` that it uses), wherever the layer's class has them from. Classes
    that set `hardware_mixin = True` are looked through: they compute the same.

    Args:
        layer: A Keras layer. It need not be built, but the methods of a product do.

    Returns:
        A list of `Product`s in the order in which the layer computes them: one, or two
        for separable convolutions. None for a layer of no known family: another layer,
        a subclass that computes in its own way, or one quantized by Keras.

    Example:
        >>> from hwa_keras.layers.product_families import product_of
        >>> product_of(keras.layers.SeparableConv2D(8, 3))
        [DepthwiseConvProduct('depthwise_kernel'),
         PointwiseConvProduct('pointwise_kernel')]
        >>> product_of(keras.layers.Flatten()) is None
        True
    """
    if getattr(layer, "quantization_mode", None) is not None:
        return None
    for family, products in {**_KERAS, **_registered}.items():
        names = ("call", "kernel", "convolution_op")
        if all(_found(type(layer), n) is _found(family, n) for n in names):
            return list(products)
    return None


def register_products(layer_class: type, *products: Product) -> None:
    """Make the products of a class of layers known.

    `to_hwa` then has layers of the class, and of subclasses with the same `call`, go
    through converters and tiles like those of Keras, and energies count them. The
    `call` of the class must compute `activation(product + bias)`, with attributes of
    these names; the class gets them as None where it has neither. Several products
    follow one another. Register a class before the first of its layers is converted.

    Args:
        layer_class: A subclass of `keras.layers.Layer` with a `call` of its own.
        *products: One `Product` for each kernel, in the order of the computation.

    Raises:
        TypeError: If the class is not one of layers, or a product not a `Product`.
        ValueError: If the class has its `call` from a base, or is one of Keras whose
            products are known.

    Example:
        >>> from hwa_keras.layers import DenseProduct, register_products
        >>> class Projection(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        ...
        ...     def call(self, x):
        ...         return ops.matmul(x, self.kernel)
        >>> register_products(Projection, DenseProduct("kernel"))
        >>> model = keras.Sequential([keras.Input((8,)), Projection()])
        >>> array = hwa_keras.Hardware(tile=(4, 4))
        >>> hwa_keras.to_hwa(model, hardware=array, verbose=0) is model
        True
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            "Products are those of a class of Keras layers. Received: "
            f"layer_class={layer_class!r}."
        )
    name = layer_class.__name__
    if not products or not all(isinstance(p, Product) for p in products):
        raise TypeError(
            f"Give the products of {name}, one Product for each kernel: "
            f"register_products({name}, DenseProduct('kernel')). Received: "
            f"products={products!r}."
        )
    if layer_class in _KERAS:
        raise ValueError(
            f"The products of keras.layers.{name} are known. Register a subclass of it "
            "with a `call` of its own."
        )
    if "call" not in vars(layer_class):
        raise ValueError(
            f"{name} has its `call` from a base, and computes what that one does. "
            "Register the class that defines `call`."
        )
    for part in ("bias", "activation"):
        if not hasattr(layer_class, part):
            setattr(layer_class, part, None)
    _registered[layer_class] = products


def is_registered(layer_class):
    """Whether the products of a class were made known with `register_products`."""
    return layer_class in _registered


def _found(cls, name):
    """A class's attribute as the first class that is no hardware mix-in has it."""
    for base in cls.__mro__:
        own = vars(base)
        if own.get("hardware_mixin") is not True and name in own:
            return own[name]
    return None
