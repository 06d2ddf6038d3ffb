import pytest
from keras import layers

from hwa_keras.layers.products import product_of


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
