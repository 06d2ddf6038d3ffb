"""The head of a language model that lies in its embedding layer, on hardware."""

import functools
from typing import Any

import keras
from keras import ops

from hwa_keras.core.keras_private import ReversibleEmbedding
from hwa_keras.core.substitution import substitute
from hwa_keras.core.types import Tensor
from hwa_keras.layers.array import multiply
from hwa_keras.layers.base import HardwareLayer, register
from hwa_keras.layers.products import Product

__all__ = ["HWAReversibleEmbedding", "head_of"]


class HeadProduct(Product):
    """The product of `keras.layers.ReversibleEmbedding`, called in reverse.

    Args:
        attribute: `"_embeddings"`, the table of tied weights `[vocabulary, dim]`, whose
            columns on a crossbar are the vocabulary; or `"reverse_embeddings"`, a
            matrix `[dim, vocabulary]` of the head's own.
    """

    def __init__(self, attribute):
        super().__init__(attribute)
        self._is_tied = attribute == "_embeddings"
        self.columns = (0,) if self._is_tied else (1,)

    def dtype(self, layer):
        # Keras casts neither hidden states nor weights of such a layer.
        dtypes = layer.compute_dtype, layer.variable_dtype
        return layer.reverse_dtype or keras.backend.result_type(*dtypes)

    def apply(self, layer, x, kernel):
        kernel = ops.cast(kernel, x.dtype)
        return ops.matmul(x, ops.transpose(kernel) if self._is_tied else kernel)

    def unfold(self, layer, x):
        return ops.expand_dims(x, -2)


def head_of(layer):
    """The `HeadProduct` of a layer, or None for a layer that is no such embedding.

    Example:
        >>> from hwa_keras.layers.head import head_of
        >>> layer = keras.layers.ReversibleEmbedding(100, 16)
        >>> layer.build()
        >>> head_of(layer).view(layer).matrix_shape
        (16, 100)
    """
    if not isinstance(layer, ReversibleEmbedding):
        return None
    if layer.quantization_mode is not None:
        return None
    own = (c for c in type(layer).__mro__ if not vars(c).get("hardware_mixin"))
    computes = next(vars(c)["call"] for c in own if "call" in vars(c))
    if computes is not ReversibleEmbedding.call:
        return None
    return HeadProduct("_embeddings" if layer.tie_weights else "reverse_embeddings")


@register("hwa_reversible_embedding")
class HWAReversibleEmbedding(HardwareLayer, ReversibleEmbedding):
    """`keras.layers.ReversibleEmbedding` with its head on hardware.

    Called in reverse, it multiplies with the head on hardware. Looking up embeddings
    stays digital: tied weights are held twice, in a table and on a crossbar, and are
    trained together. With a quantizer both hold quantized weights.

    Takes the arguments of `keras.layers.ReversibleEmbedding` and of `HardwareLayer`.

    Example:
        >>> layer = hwa_keras.layers.HWAReversibleEmbedding(
        ...     100, 16, kernel_noise="programming_noise"
        ... )
        >>> x = layer(np.array([[1, 2, 3]]))
        >>> tuple(layer(x, reverse=True, training=True).shape)
        (1, 3, 100)
    """

    hardware_mixin = True
    bias = None

    def _kernel_views(self):
        product = head_of(self)
        return {(product.attribute,): product.view(self)}

    def _converted_shapes(self, input_shape):
        sums = self.hardware_kernels[0].tiling.sums_shape((1, self.input_dim))
        return [((None, self.output_dim), (None, *sums[1:]))]

    def call(
        self, inputs: Tensor, reverse: bool = False, training: bool | None = None
    ) -> Tensor:
        if all(kernel.is_ideal for kernel in self.hardware_kernels):
            return super().call(inputs, reverse=reverse)
        if not reverse:
            return self._looked_up(inputs)
        product = head_of(self)
        x = ops.cast(inputs, product.dtype(self))
        logits = multiply(self.hardware_kernels[0], product, self, x, training)
        if self.tie_weights and self.lora_enabled:
            low_rank = ops.matmul(self.lora_embeddings_a, self.lora_embeddings_b)
            scaled = (self.lora_alpha / self.lora_rank) * low_rank
            logits = logits + product.apply(self, x, scaled)
        cap = self.logit_soft_cap
        return logits if cap is None else ops.tanh(logits / cap) * cap

    def _looked_up(self, inputs):
        """Embeddings from the table, whatever the devices hold."""
        [kernel] = self.hardware_kernels
        look_up = functools.partial(super().call, inputs)
        if not self.tie_weights or (kernel.tile is None and kernel.quantizer is None):
            return look_up()
        table = kernel.quantized() if kernel.tile is None else kernel.tile.written()
        return substitute(self, [(kernel.variable, table)], look_up)

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False, training: bool | None = None
    ) -> Any:
        return super().compute_output_spec(inputs, reverse=reverse)
