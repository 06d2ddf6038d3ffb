"""Dense, einsum and convolution layers on hardware.

Each is the Keras layer of the same name with the arguments of `HardwareLayer` added:
`hardware`, or its short forms `kernel_quantizer`, `kernel_noise`, `input_quantizer`,
`output_quantizer` and `output_noise`; and `noise_seed`. With none of them given, it is
that layer to the bit.
"""

from typing import Any

import keras
from keras import layers, ops

from hwa_keras.core.types import Tensor
from hwa_keras.core.views import MatrixView
from hwa_keras.layers.array import multiply
from hwa_keras.layers.base import HardwareLayer, register
from hwa_keras.layers.product_families import product_of

_LORA = ("lora_kernel_a", "lora_kernel_b")


class ProductLayer(HardwareLayer):
    """Mixin of the layers that are a product, a bias and an activation.

    y = activation(ADC(DAC(x)·n(q(W)) + noise) + b): the bias is added after the ADC.
    Keras's low-rank adaptation stays digital: x·A·B is added to what the array gives.
    """

    hardware_mixin = True

    def _kernel_views(self):
        views = {(p.attribute,): p.view(self) for p in product_of(self)}
        if self.hardware.bias == "analog" and self.bias is not None:
            self._check_analog_bias()
            shape = tuple(self.bias.shape)
            views["bias",] = MatrixView(shape, tuple(range(len(shape))))
        return views

    def _converted_shapes(self, input_shape):
        inputs, shapes = [n or 1 for n in input_shape], []
        last = self.compute_output_shape(tuple(inputs))
        channels = 1 if getattr(self, "data_format", "") == "channels_first" else -1
        products = product_of(self)
        for kernel, product in zip(self.hardware_kernels, products, strict=False):
            outputs = list(last)
            if product is not products[-1]:
                outputs[channels] = kernel.tiling.columns
            z = product.to_columns(self, keras.KerasTensor(outputs))
            sums = kernel.tiling.sums_shape(z.shape)
            shapes.append(((None, *inputs[1:]), (None, *sums[1:])))
            inputs = outputs
        return shapes

    def _check_analog_bias(self):
        if len(self.bias.shape) != 1:
            raise ValueError(
                f"'{self.name}' has a bias of shape {tuple(self.bias.shape)}, which is "
                "no row of an array with one column per output. Give it "
                "bias='digital'."
            )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if all(kernel.is_ideal for kernel in self.hardware_kernels):
            return super().call(inputs)
        products = product_of(self)
        row = None
        if len(self.hardware_kernels) > len(products):
            row = self.hardware_kernels[-1].value(training)
        outputs = inputs
        for kernel, product in zip(self.hardware_kernels, products, strict=False):
            own = row if product is products[-1] else None
            outputs = multiply(kernel, product, self, outputs, training, own)
        if getattr(self, "lora_enabled", False):
            outputs = outputs + product.apply(self, inputs, self._lora_kernel())
        if self.bias is not None and row is None:
            outputs = ops.add(outputs, self._broadcast_bias())
        return outputs if self.activation is None else self.activation(outputs)

    def _lora_kernel(self):
        low_rank = ops.matmul(self.lora_kernel_a, self.lora_kernel_b)
        scaled = (self.lora_alpha / self.lora_rank) * low_rank
        return ops.cast(scaled, self.compute_dtype)

    def _broadcast_bias(self):
        if getattr(self, "data_format", None) == "channels_first":
            return ops.reshape(self.bias, (1, -1, *(1,) * self.rank))
        return self.bias

    def save_own_variables(self, store: Any) -> None:
        # Keras adds low-rank adaptation to the kernel, which is not what is quantized.
        adapted = getattr(self, "lora_enabled", False)
        if adapted:
            self.lora_enabled = False
        try:
            super().save_own_variables(store)
        finally:
            if adapted:
                self.lora_enabled = True
        for name in _LORA if adapted else ():
            store[name] = getattr(self, name).numpy()

    def load_own_variables(self, store: Any) -> None:
        kept = {name: store[name] for name in _LORA if name in store.keys()}
        super().load_own_variables(
            {key: store[key] for key in store.keys() if key not in _LORA}
        )
        for name, value in kept.items():
            getattr(self, name).assign(value)


@register("hwa_dense")
class HWADense(ProductLayer, layers.Dense):
    """`keras.layers.Dense` on hardware.

    y = activation(ADC(DAC(x)·n(q(W)) + noise) + b). Takes the arguments of
    `keras.layers.Dense` and of `HardwareLayer`.

    Example:
        >>> layer = hwa_keras.layers.HWADense(
        ...     3,
        ...     kernel_quantizer="ste_sign",
        ...     kernel_noise=hwa_keras.noise.MultiplicativeGaussian(0.1),
        ... )
        >>> layer(np.ones((2, 4)), training=True).shape == (2, 3)
        True
    """


@register("hwa_einsum_dense")
class HWAEinsumDense(ProductLayer, layers.EinsumDense):
    """`keras.layers.EinsumDense` on hardware."""


@register("hwa_conv1d")
class HWAConv1D(ProductLayer, layers.Conv1D):
    """`keras.layers.Conv1D` on hardware."""


@register("hwa_conv2d")
class HWAConv2D(ProductLayer, layers.Conv2D):
    """`keras.layers.Conv2D` on hardware."""


@register("hwa_conv3d")
class HWAConv3D(ProductLayer, layers.Conv3D):
    """`keras.layers.Conv3D` on hardware."""


@register("hwa_depthwise_conv1d")
class HWADepthwiseConv1D(ProductLayer, layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` on hardware."""


@register("hwa_depthwise_conv2d")
class HWADepthwiseConv2D(ProductLayer, layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` on hardware."""


@register("hwa_separable_conv1d")
class HWASeparableConv1D(ProductLayer, layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` on hardware: both of its kernels."""


@register("hwa_separable_conv2d")
class HWASeparableConv2D(ProductLayer, layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` on hardware: both of its kernels."""


@register("hwa_conv1d_transpose")
class HWAConv1DTranspose(ProductLayer, layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` on hardware."""


@register("hwa_conv2d_transpose")
class HWAConv2DTranspose(ProductLayer, layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` on hardware."""


@register("hwa_conv3d_transpose")
class HWAConv3DTranspose(ProductLayer, layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` on hardware."""
