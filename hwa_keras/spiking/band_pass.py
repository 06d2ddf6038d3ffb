"""Band-pass filters: their design, and their form as blocks of samples.

All in NumPy's `float64`: the poles of a filter of 40 Hz at 16 kHz are within 0.002 of
the unit circle.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Blocks", "band_edges", "block_form", "sections"]


def band_edges(frequencies, q):
    """The edges f·(1 ± 1/2Q) of the pass bands, in Hz.

    Args:
        frequencies: Array of centre frequencies in Hz.
        q: Array, or number > ½: the quality factors, f over the bandwidth.

    Returns:
        A pair of arrays: lower and upper edges.
    """
    frequencies = np.asarray(frequencies, "float64")
    half = 0.5 / np.asarray(q, "float64")
    return frequencies * (1 - half), frequencies * (1 + half)


def sections(edges, order, sample_rate):
    """A Butterworth band-pass filter as second-order sections.

    Args:
        edges: Pair of floats, the edges of the pass band (−3 dB) in Hz.
        order: Integer, the order of the low-pass prototype: `2·order` poles.
        sample_rate: Float, in Hz.

    Returns:
        Array `[order, 6]`, as `scipy.signal.sosfilt` takes it.
    """
    import scipy.signal  # Slow to import, and of use here alone.

    return scipy.signal.butter(order, edges, "bandpass", fs=sample_rate, output="sos")


class Blocks(NamedTuple):
    """A bank of filters as what it does to blocks of L samples.

    With x the samples of a block, M the number of filters times poles of one half
    plane, and s the complex state [M] at the start of a block,

        y[c, j] = Σ_i response[c, j − i]·x[i] + Re Σ_m output[c, m, j]·s[m]
        s ← decay[m]·s[m] + Σ_i input[m, i]·x[i].

    The poles m of filter c are those from c·(M/C) to (c + 1)·(M/C).
    """

    response: np.ndarray
    """`[C, L]`, the first L samples of the impulse responses."""
    input: np.ndarray
    """Complex `[C, poles, L]`."""
    output: np.ndarray
    """Complex `[C, poles, L]`."""
    decay: np.ndarray
    """Complex `[C, poles]`, the L-th powers of the poles."""


def block_form(edges, order, sample_rate, length):
    """The `Blocks` of a bank of Butterworth filters.

    A filter is the sum of its modes: by partial fractions its impulse response is
    h[n] = k·δ[n] + 2·Re Σ r·pⁿ, with a sum over the poles p above the real axis.

    Args:
        edges: Pair of arrays `[C]`, the edges of the pass bands in Hz.
        order: Integer, as in `sections`.
        sample_rate: Float, in Hz.
        length: Integer L, samples in a block.
    """
    filters = [_modes(pair, order, sample_rate) for pair in zip(*edges, strict=True)]
    poles = np.stack([each[0] for each in filters])
    residues = np.stack([each[1] for each in filters])
    direct = np.array([each[2] for each in filters])
    n = np.arange(length)
    powers = poles[..., None] ** n
    response = 2 * np.einsum("cp,cpn->cn", residues, powers).real
    response[:, 0] += direct
    return Blocks(
        response=response,
        input=powers[..., ::-1],
        output=2 * (residues * poles)[..., None] * powers,
        decay=poles**length,
    )


def _modes(edges, order, sample_rate):
    """Poles above the real axis, their residues in powers of 1/z, and what is direct.

    H(z) = g·Π(1 − z_i/z)/Π(1 − p_i/z): distinct poles, as many as zeros. Residue i is
    g·Π_j(1 − z_j/p_i)/Π_{j≠i}(1 − p_j/p_i).
    """
    import scipy.signal

    zeros, poles, gain = scipy.signal.butter(
        order, edges, "bandpass", fs=sample_rate, output="zpk"
    )
    upper = poles[poles.imag > 0]
    if len(upper) != order:
        raise ValueError(
            f"A band from {edges[0]:.6g} to {edges[1]:.6g} Hz is too wide for a filter "
            f"of order {order}: it has poles on the real axis. Take a larger `q`."
        )
    others = [poles[poles != p] for p in upper]
    residues = [
        gain * np.prod(1 - zeros / p) / np.prod(1 - rest / p)
        for p, rest in zip(upper, others, strict=True)
    ]
    # At z → 0 the sum of all fractions vanishes but for the direct part.
    direct = gain * np.prod(zeros) / np.prod(poles)
    return upper, np.array(residues), direct.real
