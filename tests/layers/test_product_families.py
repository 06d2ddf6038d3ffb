import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.layers import DenseProduct, register_products
from hwa_keras.layers.product_families import product_of


class Mixin:
    hardware_mixin = True

    def call(self, inputs):
        return super().call(inputs)

    @property
    def kernel(self):
        return super().kernel


class OnHardware(Mixin, layers.Dense):
    pass


class Renamed(OnHardware):
    """A subclass that changes nothing of what is computed."""


class OwnCall(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class OwnCallOnHardware(Mixin, OwnCall):
    pass


class BelowHardware(OnHardware):
    def call(self, inputs):
        return 2 * super().call(inputs)


class OwnKernel(layers.Conv2D):
    @property
    def kernel(self):
        return 2 * super().kernel


class OwnConvolution(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return 2 * super().convolution_op(inputs, kernel)


FAMILIES = [
    (layers.Dense, ["DenseProduct('_kernel')"]),
    (layers.EinsumDense, ["EinsumProduct('_kernel')"]),
    (layers.Conv1D, ["ConvProduct('_kernel')"]),
    (layers.Conv2D, ["ConvProduct('_kernel')"]),
    (layers.Conv3D, ["ConvProduct('_kernel')"]),
    (layers.DepthwiseConv1D, ["DepthwiseConvProduct('kernel')"]),
    (layers.DepthwiseConv2D, ["DepthwiseConvProduct('kernel')"]),
    (layers.Conv1DTranspose, ["ConvTransposeProduct('kernel')"]),
    (layers.Conv2DTranspose, ["ConvTransposeProduct('kernel')"]),
    (layers.Conv3DTranspose, ["ConvTransposeProduct('kernel')"]),
    *(
        (
            cls,
            [
                "DepthwiseConvProduct('depthwise_kernel')",
                "PointwiseConvProduct('pointwise_kernel')",
            ],
        )
        for cls in (layers.SeparableConv1D, layers.SeparableConv2D)
    ),
]
ARGUMENTS = {layers.Dense: (3,), layers.EinsumDense: ("ab,bc->ac", 3)}


@pytest.mark.parametrize("cls, products", FAMILIES)
def test_products_of_each_family_and_of_its_hardware_layers(cls, products):
    hardware = type("Hardware", (Mixin, cls), {})
    args = (3,) if "Depthwise" in cls.__name__ else ARGUMENTS.get(cls, (3, 2))
    for layer in (cls(*args), hardware(*args)):
        assert [repr(product) for product in product_of(layer)] == products


@pytest.mark.parametrize("cls", [layers.Dense, OnHardware, Renamed])
def test_classes_that_compute_as_keras_does_have_its_products(cls):
    [product] = product_of(cls(3))
    assert repr(product) == "DenseProduct('_kernel')"


@pytest.mark.parametrize(
    "layer",
    [
        OwnCall(3),
        OwnCallOnHardware(3),
        BelowHardware(3),
        OwnKernel(3, 3),
        OwnConvolution(3, 3),
        layers.Flatten(),
        layers.LSTM(3),
        layers.Dense(3, dtype="int8_from_float32"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_compute_otherwise_are_of_no_known_family(layer):
    assert product_of(layer) is None


class Doubling(keras.layers.Layer):
    """A layer of a user's own with a product, a bias and an activation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.relu

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.bias = self.add_weight(shape=(3,), initializer="ones", name="bias")

    def call(self, x):
        return self.activation(ops.matmul(x, self.kernel) + self.bias)


def test_a_registered_class_goes_through_converters_before_bias_and_activation():
    register_products(Doubling, DenseProduct("kernel"))
    layer = Doubling()
    model = keras.Sequential([keras.Input((4,)), layer])
    hwa_keras.to_hwa(model, hardware=hwa_keras.Hardware(adc=ops.round), verbose=0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    kernel = ops.convert_to_numpy(layer.kernel)
    expected = np.maximum(np.round(x @ kernel) + 1.0, 0.0)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)
    hwa_keras.to_digital(model)
    assert type(layer) is Doubling
    np.testing.assert_allclose(model(x), np.maximum(x @ kernel + 1.0, 0.0), rtol=1e-5)


def test_a_registered_class_without_bias_and_activation_gets_none():
    class Bare(keras.layers.Layer):
        def call(self, x):
            return x

    register_products(Bare, DenseProduct("kernel"))
    assert Bare.bias is None and Bare.activation is None
    assert [repr(p) for p in product_of(Bare())] == ["DenseProduct('kernel')"]


def test_what_has_no_products_to_register_is_refused():
    class Inherits(layers.Dense):
        pass

    product = DenseProduct("kernel")
    with pytest.raises(TypeError, match="class of Keras layers. Received"):
        register_products(layers.Dense(3), product)
    with pytest.raises(TypeError, match=r"Product for each kernel.*products=\(\)"):
        register_products(Doubling)
    with pytest.raises(TypeError, match="products=.*DenseProduct"):
        register_products(Doubling, DenseProduct)
    with pytest.raises(ValueError, match="products of keras.layers.Dense are known"):
        register_products(layers.Dense, product)
    with pytest.raises(ValueError, match="Inherits has its `call` from a base"):
        register_products(Inherits, product)
