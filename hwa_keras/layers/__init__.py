"""Keras layers that compute op(x, n(q(W))), with DAC, ADC and output noise."""

from hwa_keras.layers.attention import HWAMultiHeadAttention
from hwa_keras.layers.base import HardwareLayer
from hwa_keras.layers.feedforward import (
    HWAConv1D,
    HWAConv2D,
    HWAConv2DTranspose,
    HWAConv3D,
    HWADense,
    HWADepthwiseConv1D,
    HWADepthwiseConv2D,
    HWAEinsumDense,
    HWASeparableConv2D,
)
from hwa_keras.layers.recurrent import HWAGRU, HWALSTM, HWAGRUCell, HWALSTMCell

__all__ = [
    "HWAConv1D",
    "HWAConv2D",
    "HWAConv2DTranspose",
    "HWAConv3D",
    "HWADense",
    "HWADepthwiseConv1D",
    "HWADepthwiseConv2D",
    "HWAEinsumDense",
    "HWAGRU",
    "HWAGRUCell",
    "HWALSTM",
    "HWALSTMCell",
    "HWAMultiHeadAttention",
    "HWASeparableConv2D",
    "HardwareLayer",
]
