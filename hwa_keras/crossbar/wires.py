"""Wires of a crossbar: the voltage that they drop, and the power that they take.

The input voltage v_i drives the left end of row i; column j is read at its lower end,
which is held at 0 V. Each segment between two devices, and that between the ends and
the first or last device, has the resistance of its direction. With s = g in S, the
current through device (i, j) is I = s·(v_i − (A·I) − (B·I)), with

    (A·I)_ij = r_row·Σ_l (min(j, l) + 1)·I_il,     the drop along the row,
    (B·I)_ij = r_column·Σ_l (m − max(i, l))·I_lj,  the drop along the column.

It is linear in v: the crossbar computes with one matrix G_eff in place of G, whatever
the inputs. Conductances are in µS, resistances in Ω, m rows and n columns.
"""

import math

import numpy as np
from keras import ops

from hwa_keras.core.types import Tensor

__all__ = ["closed_form", "condition", "currents", "drop", "exact", "power"]

_SIEMENS = 1e-6  # of a µS
_TOLERANCE = 1e-7  # of what the iterations leave
_MOST_CONDITION = 1e4
_MOST_ELEMENTS = 2**22  # of the currents that are held at once


def closed_form(g: Tensor, r_row: float, r_column: float) -> Tensor:
    """Effective conductances to first order: G_eff ≈ G/(1 + α + β).

    α_ij = r_row·Σ_l (min(j, l) + 1)·g_il and β_ij = r_column·Σ_l (m − max(i, l))·g_lj:
    the drops as if all devices saw the voltage that (i, j) does.

    Args:
        g: Tensor `[..., m, n]`, conductances, µS.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.

    Returns:
        Tensor of the shape of `g`, µS.

    Example:
        >>> from hwa_keras.crossbar import wires
        >>> g = ops.convert_to_tensor([[1e6]])  # 1 S behind 1 Ω and 2 Ω
        >>> float(wires.closed_form(g, 1.0, 2.0)[0, 0])
        250000.0
    """
    return g / (1.0 + drop(g, r_row, r_column))


def drop(g: Tensor, r_row: float, r_column: float, degree: int | None = None) -> Tensor:
    """α + β of the closed form: what the wires drop over what the devices see.

    From device to device α grows by the current that is left in the row, r_row·Σ_{l ≥
    j} g_il, and β likewise: along a wire they are smooth, and along one with equal
    devices parabolas.

    Args:
        g: Tensor `[..., m, n]`, conductances, µS.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.
        degree: Integer ≥ 2, or None. With a number, α and β are the nearest polynomials
            in the place along the wire, by least squares, which takes a fraction of the
            time. With 4, they are right to 0.6 % of the drop at the end of a wire full
            of the largest devices. None computes them as they are.

    Returns:
        Tensor of the shape of `g`.

    Example:
        >>> from hwa_keras.crossbar import wires
        >>> g = ops.full((64, 64), 20.0)
        >>> exact, nearly = (wires.drop(g, 1.0, 1.0, degree) for degree in (None, 4))
        >>> np.allclose(exact, nearly, rtol=1e-5)
        True
    """
    m, n = (np.arange(size) for size in g.shape[-2:])
    along_row = np.minimum(n[:, None], n) + 1.0
    along_column = len(m) - np.maximum(m[:, None], m)
    # As products: on tiles a CPU takes a quarter of the time of cumulative sums.
    if degree is None:
        alpha = ops.matmul(g, ops.cast(r_row * _SIEMENS * along_row, g.dtype))
        beta = ops.matmul(ops.cast(r_column * _SIEMENS * along_column, g.dtype), g)
        return alpha + beta
    return _smooth_drop(
        g, r_row * _SIEMENS * along_row, r_column * _SIEMENS * along_column, degree
    )


def _smooth_drop(g, along_row, along_column, degree):
    """α + β as polynomials along the wires, Σ_k p_k(j)·Σ_l P_kl·g_il and its like.

    Both outer sums are one product, so that nothing of the size of g is held between.
    """
    *tiles, m, n = g.shape
    across, down = _polynomials(n, degree), _polynomials(m, degree)
    count = across.shape[1]
    to_row = np.pad(along_row @ across, ((0, 0), (0, -count % 8)))  # XLA's stride.
    rows = ops.matmul(ops.reshape(g, (-1, n)), ops.cast(to_row, g.dtype))
    rows = ops.reshape(rows, (*tiles, m, -1))[..., :count]
    # Each tile a product of its own: a shared factor would have XLA turn the tiles.
    columns = ops.matmul(_of_each(tiles, (along_column @ down).T, g), g)
    left = ops.concatenate([rows, _of_each(tiles, down, g)], axis=-1)
    right = ops.concatenate([_of_each(tiles, across.T, g), columns], axis=-2)
    return ops.matmul(left, right)


def _of_each(tiles, matrix, g):
    """The same matrix for each tile."""
    return ops.broadcast_to(ops.cast(matrix, g.dtype), (*tiles, *matrix.shape))


def _polynomials(size, degree):
    """Orthonormal polynomials of up to a degree on so many places, as columns."""
    places = np.linspace(-1.0, 1.0, size)
    powers = np.polynomial.legendre.legvander(places, min(degree, size - 1))
    return np.linalg.qr(powers)[0]


def exact(g: Tensor, r_row: float, r_column: float, g_max: float = 100.0) -> Tensor:
    """Effective conductances: the currents at the ends of the columns per volt.

    Each row is driven alone, and the currents found by conjugate gradients. With
    S = √s and I = S·y the equations are (1 + S·(A + B)·S)·y = S·v: symmetric and
    positive, so that a number of steps that the sizes tell is enough, and no damping is
    needed. Where there are fewer columns than rows, the columns are driven instead: the
    network is reciprocal.

    Args:
        g: Tensor `[..., m, n]`, conductances, µS.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.
        g_max: Float, about the largest conductance, µS: it sets the number of steps.
            Defaults to `100.0`.

    Returns:
        Tensor of the shape of `g`, µS.

    Example:
        >>> from hwa_keras.crossbar import wires
        >>> g = ops.convert_to_tensor([[1e6]])  # 1 S behind 1 Ω and 2 Ω
        >>> round(float(wires.exact(g, 1.0, 2.0)[0, 0]))
        250000
    """
    m, n = g.shape[-2:]
    if n < m:
        turned = exact(_turned(g), r_column, r_row, g_max)
        return _turned(turned)
    shape = ops.shape(g)
    roots = ops.sqrt(ops.reshape(g, (-1, 1, m, n)) * _SIEMENS)
    steps = _steps(condition(g.shape[-2:], r_row, r_column, g_max))
    count = max(1, min(m, _MOST_ELEMENTS // math.prod(roots.shape)))
    chunks = -(-m // count)

    def driven(start):
        rows = start + ops.arange(count)
        v = ops.cast(ops.expand_dims(rows, -1) == ops.arange(m), g.dtype)
        y = _solve(roots, roots * ops.expand_dims(v, -1), r_row, r_column, steps)
        return ops.sum(roots * y, axis=-2)

    found = ops.map(driven, ops.arange(chunks) * count)  # [chunk, tile, row, column]
    found = ops.reshape(ops.transpose(found, (1, 0, 2, 3)), (-1, chunks * count, n))
    return ops.reshape(found[:, :m], shape) / _SIEMENS


def currents(
    g: Tensor, v: Tensor, r_row: float, r_column: float, g_max: float = 100.0
) -> Tensor:
    """The currents through the devices.

    Args:
        g: Tensor `[..., m, n]`, conductances, µS.
        v: Tensor `[..., m]`, voltages at the left ends of the rows, V.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.
        g_max: Float, about the largest conductance, µS: it sets the number of steps.
            Defaults to `100.0`.

    Returns:
        Tensor `[..., m, n]`, A. Summed over the rows: what the columns give.
    """
    roots = ops.sqrt(g * _SIEMENS)
    steps = _steps(condition(g.shape[-2:], r_row, r_column, g_max))
    b = roots * ops.expand_dims(v, -1)
    return roots * _solve(roots, b, r_row, r_column, steps)


def power(
    g: Tensor, v: Tensor, r_row: float, r_column: float, g_max: float = 100.0
) -> tuple[Tensor, Tensor]:
    """The power that devices and wires take, whose sum is Σ_i v_i·I_i.

    Args:
        g: Tensor `[..., m, n]`, conductances, µS.
        v: Tensor `[..., m]`, voltages at the left ends of the rows, V.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.
        g_max: Float, about the largest conductance, µS: it sets the number of steps.
            Defaults to `100.0`.

    Returns:
        A pair of tensors `[...]`, W: Σ I²/g, and Σ r·I² over the segments.
    """
    i = currents(g, v, r_row, r_column, g_max)
    s = g * _SIEMENS
    devices = ops.sum(ops.divide_no_nan(ops.square(i), s), axis=(-2, -1))
    rows = r_row * ops.sum(ops.square(_from_right(i)), axis=(-2, -1))
    columns = r_column * ops.sum(ops.square(ops.cumsum(i, axis=-2)), axis=(-2, -1))
    return devices, rows + columns


def condition(
    shape: tuple[int, int], r_row: float, r_column: float, g_max: float
) -> float:
    """A bound on the condition number of the equations: 1 + ‖S·(A + B)·S‖.

    Args:
        shape: Pair (m, n), rows and columns.
        r_row: Float ≥ 0, resistance of a segment of a row, Ω.
        r_column: Float ≥ 0, of a segment of a column, Ω.
        g_max: Float, the largest conductance, µS.

    Returns:
        A float. The largest eigenvalue of min(j, l) + 1 on n places is below
        (2n + 1)²/π².
    """
    m, n = shape
    drops = r_row * (2 * n + 1) ** 2 + r_column * (2 * m + 1) ** 2
    return 1.0 + g_max * _SIEMENS * drops / math.pi**2


def _steps(condition):
    """Steps of conjugate gradients after which 1e-7 of the error is left."""
    if condition > _MOST_CONDITION:
        raise ValueError(
            "The wires of this tile drop nearly all of the voltage (a condition number "
            f"of {condition:.2g}, at most {_MOST_CONDITION:.0g} is solved). Take a "
            "smaller tile or a lower wire resistance."
        )
    return math.ceil(0.5 * math.sqrt(condition) * math.log(2.0 / _TOLERANCE))


def _solve(roots, b, r_row, r_column, steps):
    """y of (1 + S·(A + B)·S)·y = b by conjugate gradients, one system per matrix."""

    def product(y):
        return y + roots * _drops(roots * y, r_row, r_column)

    def dot(x, y):
        return ops.sum(x * y, axis=(-2, -1), keepdims=True)

    def step(_, state):
        y, residual, direction, size = state
        image = product(direction)
        length = ops.divide_no_nan(size, dot(direction, image))
        y = y + length * direction
        residual = residual - length * image
        following = dot(residual, residual)
        direction = residual + ops.divide_no_nan(following, size) * direction
        return y, residual, direction, following

    start = (ops.zeros_like(b), b, b, dot(b, b))
    return ops.fori_loop(0, steps, step, start)[0]


def _drops(i, r_row, r_column):
    """The voltage drops (A + B)·I, as cumulative sums."""
    along_row = ops.cumsum(_from_right(i), axis=-1)
    down = ops.cumsum(i, axis=-2)
    along_column = ops.sum(down, axis=-2, keepdims=True) - ops.cumsum(down, axis=-2)
    return r_row * along_row + r_column * (along_column + down)


def _from_right(i):
    """Σ_{l ≥ j} I_il: the currents in the segments of the rows."""
    return ops.sum(i, axis=-1, keepdims=True) - ops.cumsum(i, axis=-1) + i


def _turned(g):
    """The crossbar with rows and columns exchanged, seen from the other ends."""
    return ops.flip(ops.swapaxes(g, -2, -1), axis=(-2, -1))
