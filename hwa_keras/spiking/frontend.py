"""Frontend: a synapse for each channel."""

from typing import Any

import keras
from keras import ops

from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.layers.base import register
from hwa_keras.layers.feedforward import HWAEinsumDense

__all__ = ["Frontend"]

# Of the arguments of `EinsumDense`, those that are no arguments here.
_FIXED = (
    "equation",
    "output_shape",
    "bias_axes",
    "bias_initializer",
    "bias_regularizer",
    "bias_constraint",
)


@register("frontend")
class Frontend(HWAEinsumDense):
    """Multiplies each channel by a weight of its own: y = x·n(q(w)).

    The diagonal synapse between a filter bank and as many neurons. On hardware its
    kernel `[channels]` is an array of one row, of which each column has an input of its
    own, and takes quantizers, noise and converters as any other kernel. Mismatch is
    better left off it, as the tutorial advises: weights are small here.

    Args:
        kernel_initializer: Initializer of the weights. Defaults to a normal
            distribution about 0.1 with a standard deviation of 0.01.
        **kwargs: `kernel_regularizer`, `kernel_constraint`, arguments of
            `hwa_keras.layers.HardwareLayer` and of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor `[..., channels]`.

    Returns:
        Tensor `[..., channels]`.

    Example:
        >>> frontend = hwa_keras.spiking.Frontend(
        ...     kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale=0.9)
        ... )
        >>> frontend(np.ones((2, 125, 13), "float32")).shape == (2, 125, 13)
        True
        >>> frontend.kernel.shape == (13,)
        True
    """

    hardware_mixin = True  # What it computes is what EinsumDense does.
    digital_class = keras.layers.EinsumDense

    def __init__(self, kernel_initializer: Any = None, **kwargs: Any) -> None:
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(0.1, 0.01)
        super().__init__(
            "...c,c->...c",
            output_shape=1,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )

    def build(self, input_shape: Shape) -> None:
        self.partial_output_shape = (input_shape[-1],)
        super().build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not all(kernel.is_ideal for kernel in self.hardware_kernels):
            return super().call(inputs, training=training)
        outputs = ops.multiply(inputs, self.kernel)
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> Config:
        config = super().get_config()
        for name in _FIXED:
            config.pop(name, None)
        return config
