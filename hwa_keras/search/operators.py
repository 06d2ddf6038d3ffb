"""Genetic operators on architectures with conductance ranges, on arrays of genes.

What crossover and mutation return still needs `repair`, which gives each layer that an
architecture has a range, and no range to any other.

Reference:
    - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 6.2.3.
"""

import numpy as np

__all__ = ["crossover", "mutate", "repair"]


def repair(space, genes):
    """Give each layer of an architecture a range, and none to other layers.

    A range within the bounds stays, one of a layer that the architecture has gained is
    the default, and that of a layer it does not have is 0. Indices become whole, and
    those that make no difference become the ones that the space decodes to.

    Args:
        space: A `DesignSpace`.
        genes: Array `[n, genes]`.

    Returns:
        An array of the same shape.

    Reference:
        - S. Henwood, 2024, equation 6.4.
    """
    indices, multipliers = space.split(np.asarray(genes, float))
    indices = space.canonical(np.clip(np.rint(indices), 0, space.sizes - 1))
    kept = np.clip(multipliers, space.low, space.high)
    ranges = np.where(multipliers > 0, kept, space.default)
    ranges = np.where(space.in_use(indices), ranges, 0.0)
    return np.concatenate([indices, ranges], axis=1)


def crossover(space, parents, rng):
    """Two children of each pair of parents.

    Each gene of the architecture is one parent's or the other's with probability ½;
    the second child takes what the first did not. A range that both parents have is
    taken likewise; one that a single parent has goes to a child with that layer.

    Args:
        space: A `DesignSpace`.
        parents: Array `[2, n, genes]`, repaired.
        rng: A `numpy.random.Generator`.

    Returns:
        Children, an array `[2, n, genes]`.

    Reference:
        - S. Henwood, 2024, equation 6.5 and the table below it.
    """
    first = rng.random(parents.shape[1:]) < 0.5
    children = np.where(np.stack([first, ~first]), parents[0], parents[1])
    indices, chosen = space.split(children)
    (_, ranges1), (_, ranges2) = space.split(parents[0]), space.split(parents[1])
    has1, has2 = ranges1 > 0, ranges2 > 0
    single = np.where(has1, ranges1, ranges2)  # 0 where neither has one.
    ranges = [
        np.where(has1 & has2, c, np.where(space.in_use(i), single, 0.0))
        for i, c in zip(indices, chosen, strict=True)
    ]
    return np.concatenate([indices, np.stack(ranges)], axis=-1)


def mutate(space, genes, rng, rate=None, eta=20.0):
    """Neighbors of candidates.

    A mutated index becomes another option's, a mutated range moves by polynomial
    mutation within the bounds.

    Args:
        space: A `DesignSpace`.
        genes: Array `[n, genes]`.
        rng: A `numpy.random.Generator`.
        rate: Float in [0, 1], the probability for each gene. Defaults to one gene in
            use of each candidate on average, at most ½.
        eta: Float > 0, the index of the polynomial: larger stays nearer. Defaults to
            `20.0`.

    Returns:
        An array `[n, genes]`.

    Reference:
        - K. Deb and D. Deb, "Analysing mutation schemes for real-parameter genetic
          algorithms", 2014.
    """
    indices, ranges = space.split(np.asarray(genes, float))
    if rate is None:
        used = np.count_nonzero(space.sizes > 1) + (ranges > 0).sum(1, keepdims=True)
        rate = np.minimum(0.5, 1.0 / np.maximum(used, 1))
    mutated = rng.random(genes.shape) < rate
    at_index, at_range = space.split(mutated)
    steps = rng.integers(1, np.maximum(space.sizes, 2), indices.shape)
    others = (indices + steps) % space.sizes
    moved = _polynomial(ranges, space.low, space.high, eta, rng)
    return np.concatenate(
        [
            np.where(at_index, others, indices),
            np.where(at_range & (ranges > 0), moved, ranges),
        ],
        axis=1,
    )


def _polynomial(values, low, high, eta, rng):
    """Values moved within bounds, all of them."""
    span = max(high - low, np.finfo(float).tiny)
    uniform = rng.random(values.shape)
    inside = np.clip(values, low, high)
    power = eta + 1.0
    below = ((high - inside) / span) ** power
    above = ((inside - low) / span) ** power
    down = (2 * uniform + (1 - 2 * uniform) * below) ** (1 / power) - 1
    up = 1 - (2 * (1 - uniform) + (2 * uniform - 1) * above) ** (1 / power)
    step = np.where(uniform <= 0.5, down, up)
    return np.clip(inside + step * span, low, high)
