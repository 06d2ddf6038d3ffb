"""Repair, crossover and mutation keep the invariants of the thesis, 6.2.3."""

import numpy as np
import pytest

from hwa_keras.search import DesignSpace, operators
from tests.search.small_space import SmallSpace

PAIRS = 100_000


@pytest.fixture(scope="module")
def space():
    return DesignSpace(SmallSpace(widths=(0.5, 1.0)))


def random_genes(space, count, rng):
    """Repaired genes of any architectures."""
    indices = rng.integers(0, space.sizes, (count, len(space.sizes)))
    ranges = rng.uniform(space.low, space.high, (count, space.ranges))
    return operators.repair(space, np.concatenate([indices, ranges], axis=1))


def by_hand(indices):
    """Which layers architectures of `SmallSpace` have."""
    depths = indices[:, [0, 4]] + 1
    block = np.tile(np.repeat(np.arange(3), 2), 2)
    return block < np.repeat(depths, 6, axis=1)


def assert_invariants(space, genes):
    """What holds of all candidates after repair."""
    indices, ranges = space.split(genes)
    assert (indices == np.rint(indices)).all()
    assert (indices >= 0).all() and (indices < space.sizes).all()
    mask = by_hand(indices)
    assert (ranges[~mask] == 0).all()
    assert (ranges[mask] >= space.low).all() and (ranges[mask] <= space.high).all()


def test_repair_follows_equation_6_4(space):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, space.sizes, (PAIRS, len(space.sizes)))
    ranges = rng.uniform(0.4, 1.6, (PAIRS, 12)) * (rng.random((PAIRS, 12)) < 0.7)
    genes = np.concatenate([indices + rng.uniform(-0.4, 0.4, indices.shape), ranges], 1)
    before = genes.copy()
    repaired = operators.repair(space, genes)
    np.testing.assert_array_equal(genes, before)
    assert_invariants(space, repaired)
    found, mask = space.split(repaired)[1], by_hand(indices)
    assert (found[mask & (ranges == 0)] == 1.0).all()
    inside = mask & (ranges >= 0.5) & (ranges <= 1.5)
    np.testing.assert_array_equal(found[inside], ranges[inside])
    np.testing.assert_array_equal(operators.repair(space, repaired), repaired)


def test_crossover_follows_the_table(space):
    rng = np.random.default_rng(1)
    parents = random_genes(space, 2 * PAIRS, rng).reshape(2, PAIRS, -1)
    children = operators.crossover(space, parents, rng)
    (i1, g1), (i2, g2) = space.split(parents[0]), space.split(parents[1])
    m1, m2 = by_hand(i1), by_hand(i2)
    for child in children:
        index, ranges = space.split(child)
        assert ((index == i1) | (index == i2)).all()
        mc = by_hand(index)
        assert (ranges[~m1 & ~m2] == 0).all()
        np.testing.assert_array_equal(ranges[m1 & ~m2], (g1 * mc)[m1 & ~m2])
        np.testing.assert_array_equal(ranges[~m1 & m2], (g2 * mc)[~m1 & m2])
        both = m1 & m2
        assert ((ranges == g1) | (ranges == g2))[both].all()
        share = (ranges == g1)[both].mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(both.sum())
        assert_invariants(space, operators.repair(space, child))
    # The second child takes what the first did not.
    np.testing.assert_array_equal(children[..., 0].sum(0), parents[..., 0].sum(0))


def test_mutation_keeps_the_invariants_and_its_rate(space):
    rng = np.random.default_rng(2)
    genes = random_genes(space, PAIRS, rng)
    mutated = operators.mutate(space, genes, rng)
    before, ranges = space.split(genes)[1], space.split(mutated)[1]
    assert ((ranges > 0) == (before > 0)).all()
    assert (ranges[ranges > 0] >= 0.5).all() and (ranges <= 1.5).all()
    used = np.count_nonzero(space.sizes > 1) + (before > 0).sum(1)
    changed = (mutated != genes).sum(1)
    # One gene on average, at most.
    error = 5 * changed.std() / np.sqrt(PAIRS)
    assert abs(changed.mean() - 1.0) < error and used.min() == 12
    repaired = operators.repair(space, mutated)
    assert_invariants(space, repaired)
    gained = by_hand(space.split(repaired)[0]) & (before == 0)
    assert gained.any() and (space.split(repaired)[1][gained] == 1.0).all()


def test_mutated_options_are_uniform_among_the_others():
    space = DesignSpace(SmallSpace(widths=(0.25, 0.5, 0.75, 1.0)), per=None)
    genes = np.zeros((PAIRS, 8))
    mutated = operators.mutate(space, genes, np.random.default_rng(3), rate=1.0)
    shares = np.bincount(mutated[:, 1].astype(int), minlength=4) / PAIRS
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.015)


def test_polynomial_mutation_has_the_moments_of_its_density():
    # From the middle of the bounds, δ has the density (η+1)/2·(1−|δ|)^η, but for the
    # ends: variance 2/((η+2)(η+3)).
    space = DesignSpace(SmallSpace())
    genes = np.concatenate([np.full((PAIRS, 8), 2.0), np.ones((PAIRS, 12))], axis=1)
    mutated = operators.mutate(space, genes, np.random.default_rng(4), rate=1.0)
    step = mutated[:, 8:].ravel() - 1.0
    assert abs(step.mean()) < 5 * step.std() / np.sqrt(step.size)
    assert step.var() == pytest.approx(2 / (22 * 23), rel=0.02)


@pytest.mark.parametrize("per", ["network", None])
def test_one_range_for_all_or_none_goes_through_all_operators(per):
    space = DesignSpace(SmallSpace(), per=per)
    rng = np.random.default_rng(5)
    parents = space.sample(200, rng).reshape(2, 100, -1)
    children = operators.crossover(space, parents, rng)
    genes = operators.repair(space, operators.mutate(space, children[0], rng))
    assert genes.shape == (100, 8 + (per == "network"))
    assert (genes[:, 8:] >= 0.5).all() and (genes[:, 8:] <= 1.5).all()
