"""Multi-head attention on hardware."""

from typing import Any

from keras import layers

from hwa_keras import constraints
from hwa_keras.core.types import Config, Shape
from hwa_keras.layers.base import (
    hardware_config,
    put_layer_on,
    register,
    split_arguments,
)
from hwa_keras.layers.feedforward import HWAEinsumDense

_INNER = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")


@register("hwa_multi_head_attention")
class HWAMultiHeadAttention(layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` on hardware.

    The projections of query, key, value and output are products on hardware, each with
    its own converters; the products of activations with activations stay digital.

    Args:
        *args: Positional arguments of `keras.layers.MultiHeadAttention`.
        hardware, kernel_quantizer, kernel_noise, input_quantizer, output_quantizer,
            output_noise, noise_seed: As in `HardwareLayer`, for each projection.
        **kwargs: Keyword arguments of `keras.layers.MultiHeadAttention`.

    Example:
        >>> layer = hwa_keras.layers.HWAMultiHeadAttention(
        ...     num_heads=2, key_dim=4, kernel_noise="programming_noise"
        ... )
        >>> x = np.ones((2, 5, 8))
        >>> layer(x, x, training=True).shape == (2, 5, 8)
        True
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, hardware, noise_seed = split_arguments(type(self), kwargs)
        super().__init__(*args, **constraints.resolve(kwargs))
        self.hardware, self.noise_seed = hardware, noise_seed

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        super().build(query_shape, value_shape, key_shape)
        for i, name in enumerate(_INNER):
            seed = None if self.noise_seed is None else self.noise_seed + i
            put_layer_on(getattr(self, name), HWAEinsumDense, self.hardware, seed)

    def get_config(self) -> Config:
        config = hardware_config(self.hardware)
        return {**super().get_config(), **config, "noise_seed": self.noise_seed}
