"""Dense, convolution and einsum layers on hardware.

Each is the Keras layer of the same name with the arguments of `HardwareLayer` added:
`kernel_quantizer`, `kernel_noise`, `input_quantizer`, `output_quantizer`,
`output_noise` and `noise_seed`. With none of them given, it is that layer to the bit.
"""

from keras import layers

from hwa_keras.layers.base import HardwareLayer, register


@register("hwa_dense")
class HWADense(HardwareLayer, layers.Dense):
    """`keras.layers.Dense` on hardware: y = ADC(DAC(x)·n(q(W)) + b + noise).

    Takes the arguments of `keras.layers.Dense` and of `HardwareLayer`.

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
class HWAEinsumDense(HardwareLayer, layers.EinsumDense):
    """`keras.layers.EinsumDense` on hardware."""


@register("hwa_conv1d")
class HWAConv1D(HardwareLayer, layers.Conv1D):
    """`keras.layers.Conv1D` on hardware."""


@register("hwa_conv2d")
class HWAConv2D(HardwareLayer, layers.Conv2D):
    """`keras.layers.Conv2D` on hardware."""


@register("hwa_conv3d")
class HWAConv3D(HardwareLayer, layers.Conv3D):
    """`keras.layers.Conv3D` on hardware."""


@register("hwa_depthwise_conv1d")
class HWADepthwiseConv1D(HardwareLayer, layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` on hardware."""


@register("hwa_depthwise_conv2d")
class HWADepthwiseConv2D(HardwareLayer, layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` on hardware."""


@register("hwa_separable_conv2d")
class HWASeparableConv2D(HardwareLayer, layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` on hardware: both of its kernels."""


@register("hwa_conv2d_transpose")
class HWAConv2DTranspose(HardwareLayer, layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` on hardware."""
