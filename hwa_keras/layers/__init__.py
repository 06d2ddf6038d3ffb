"""Keras layers that compute their products on hardware."""

from hwa_keras.layers.attention import HWAMultiHeadAttention
from hwa_keras.layers.base import HardwareLayer
from hwa_keras.layers.conversion import convert_layer, revert_layer
from hwa_keras.layers.feedforward import (
    HWAConv1D,
    HWAConv1DTranspose,
    HWAConv2D,
    HWAConv2DTranspose,
    HWAConv3D,
    HWAConv3DTranspose,
    HWADense,
    HWADepthwiseConv1D,
    HWADepthwiseConv2D,
    HWAEinsumDense,
    HWASeparableConv1D,
    HWASeparableConv2D,
)
from hwa_keras.layers.head import HWAReversibleEmbedding
from hwa_keras.layers.product_families import register_products
from hwa_keras.layers.products import DenseProduct, Product
from hwa_keras.layers.recurrent import (
    HWAGRU,
    HWALSTM,
    HWARNN,
    HWAGRUCell,
    HWALSTMCell,
    HWASimpleRNN,
    HWASimpleRNNCell,
    HWATimeDistributed,
)

__all__ = [
    "DenseProduct",
    "HWAConv1D",
    "HWAConv1DTranspose",
    "HWAConv2D",
    "HWAConv2DTranspose",
    "HWAConv3D",
    "HWAConv3DTranspose",
    "HWADense",
    "HWADepthwiseConv1D",
    "HWADepthwiseConv2D",
    "HWAEinsumDense",
    "HWAGRU",
    "HWAGRUCell",
    "HWALSTM",
    "HWALSTMCell",
    "HWAMultiHeadAttention",
    "HWARNN",
    "HWAReversibleEmbedding",
    "HWASeparableConv1D",
    "HWASeparableConv2D",
    "HWASimpleRNN",
    "HWASimpleRNNCell",
    "HWATimeDistributed",
    "HardwareLayer",
    "Product",
    "convert_layer",
    "register_products",
    "revert_layer",
]
