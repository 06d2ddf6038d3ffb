"""The bits of a memory: error rates, codes of kernels, which bits are read wrong."""

import numbers
from dataclasses import replace

from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checks import check_not_negative
from hwa_keras.quantizers.code import check_encoding

__all__ = [
    "check_bit_factors",
    "check_encoding",
    "check_error_rate",
    "code_of",
    "flips",
    "matrix_code",
    "matrix_step",
]


def check_error_rate(owner, **rates):
    """Raise `ValueError` for a probability of error that is not in [0, ½]."""
    for name, rate in rates.items():
        if not (isinstance(rate, numbers.Real) and 0 <= float(rate) <= 0.5):
            raise ValueError(
                f"`{name}` of {owner} is the probability that a bit is read wrong, "
                "from 0 to 0.5: at 0.5 nothing is left of what was stored. Received: "
                f"{name}={rate!r}."
            )


def check_bit_factors(owner, factors, code=None):
    """Check the factors on p of each bit, and return them as a tuple or None."""
    if factors is None:
        return None
    if not isinstance(factors, (list, tuple)):
        raise ValueError(
            f"`bit_factors` of {owner} must be a list of factors on p, one per bit and "
            f"the highest bit first, or None. Received: bit_factors={factors!r}."
        )
    for factor in factors:
        check_not_negative(owner, bit_factors=factor)
    if code is not None and len(factors) != code.bits:
        raise ValueError(
            f"`bit_factors` of {owner} has {len(factors)} factors, and the code of the "
            f"quantizer has {code.bits} bits. Give one per bit, the highest bit first."
        )
    return tuple(float(factor) for factor in factors)


def code_of(owner, quantizer, path):
    """The code of a kernel's quantizer, or a `ValueError` that says what is missing."""
    found = getattr(quantizer, "code", lambda: None)()
    if found is None:
        has = "no quantizer" if quantizer is None else f"{quantizer!r}, of unknown code"
        raise ValueError(
            f"{owner} flips the bits of quantized weights, and '{path}' has {has}. "
            "Give the kernel a quantizer: kernel_quantizer='ste_sign' or "
            "BinaryConnect() for 1 bit, DoReFa(k_bit=4, mode='weights') or "
            "Uniform(levels=8, scale='max') for 4 bits."
        )
    if found.bits > 24:
        raise ValueError(
            f"{owner} flips the bits of codes of up to 24 bits, which is what float32 "
            f"holds, and {quantizer!r} of '{path}' has {found.bits}. Give it fewer "
            "levels."
        )
    return found


def matrix_code(code, view):
    """The code of a kernel that is seen as a matrix.

    Args:
        code: A `Code`, whose axes are those of the kernel.
        view: The `MatrixView` of the kernel, or None for weights of no kernel.
    """
    if view is None or code.axis is None or code.step is not None:
        return code
    rank = len(view.shape)
    axes = code.axis if isinstance(code.axis, (tuple, list)) else (code.axis,)
    axes = tuple(sorted(axis % rank for axis in axes))
    if axes == view.columns:
        return replace(code, axis=-1)
    if axes == view.rows:
        return replace(code, axis=0)
    raise ValueError(
        "A memory holds codes of one scale per tensor, per output column or per input "
        f"row. The quantizer has one along the axes {axes} of a kernel of shape "
        f"{view.shape}, whose columns are the axes {view.columns}."
    )


def matrix_step(step, view):
    """The step of a code as a tensor that broadcasts with the matrix of a kernel."""
    if step is None or view is None or len(step.shape) == 0:
        return step
    return view.to_matrix(ops.broadcast_to(step, view.shape))


def flips(shape, seed, p, bits, factors=None):
    """Draw which bits are read wrong: the binary symmetric channel.

    Args:
        shape: Tuple of integers.
        seed: `uint32` tensor of shape `(2,)`.
        p: Scalar from 0 to ½, the probability of each bit.
        bits: Integer, bits of a code.
        factors: Sequence of factors on p, one per bit, the highest bit first; None
            for the same p everywhere. No product exceeds ½.

    Returns:
        An `int32` tensor, a bit that is read wrong being 1.

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.28.
    """
    factors = reversed(factors or (1.0,) * bits)
    rates = [ops.minimum(p * factor, 0.5) for factor in factors]
    return random.bernoulli_bits(shape, seed, rates)
