"""Quantizers: W → W_q, with straight-through gradients.

Names, arguments, forward values and pseudo-gradients are Larq's where Larq has the
quantizer. A quantizer is a Keras layer that maps a tensor to a tensor of the same
shape, so it works as `kernel_quantizer=`, as `input_quantizer=`, as
`activation=` of a Keras layer and on its own. Anything callable is accepted wherever
a quantizer is.
"""

from hwa_keras.quantizers.base import (
    Quantizer,
    apply,
    family,
    passed_within,
    with_pseudo_gradient,
)
from hwa_keras.quantizers.binary import (
    ApproxSign,
    BinaryConnect,
    MagnitudeAwareSign,
    SteHeaviside,
    SteSign,
    SwishSign,
    approx_sign,
    binary_connect,
    magnitude_aware_sign,
    ste_heaviside,
    ste_sign,
    swish_sign,
)
from hwa_keras.quantizers.multibit import DoReFa, NoOp, SteTern, dorefa, ste_tern
from hwa_keras.quantizers.uniform import Uniform, uniform

get = family.get
serialize = family.serialize
deserialize = family.deserialize
register = family.register

__all__ = [
    "ApproxSign",
    "BinaryConnect",
    "DoReFa",
    "MagnitudeAwareSign",
    "NoOp",
    "Quantizer",
    "SteHeaviside",
    "SteSign",
    "SteTern",
    "SwishSign",
    "Uniform",
    "apply",
    "approx_sign",
    "binary_connect",
    "deserialize",
    "dorefa",
    "get",
    "magnitude_aware_sign",
    "passed_within",
    "register",
    "serialize",
    "ste_heaviside",
    "ste_sign",
    "ste_tern",
    "swish_sign",
    "uniform",
    "with_pseudo_gradient",
]
