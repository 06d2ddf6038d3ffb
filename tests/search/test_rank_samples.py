"""How many mini-batches rank networks, against the known case of Gaussian values."""

import numpy as np
import pytest
from scipy import stats

from hwa_keras.search import rank_samples

TOTAL, SIGMA = 1500, 1.0


def two_networks(gap, rng):
    """Values of two networks, whose means over all mini-batches differ by a gap."""
    values = rng.normal(0, SIGMA, (2, TOTAL))
    values -= values.mean(axis=1, keepdims=True)
    values *= SIGMA / values.std(axis=1, keepdims=True)
    return values + np.array([[0.0], [gap]])


@pytest.mark.parametrize("gap, epsilon", [(0.5, 0.05), (0.3, 0.05), (0.5, 0.2)])
def test_two_gaussian_networks_need_what_the_normal_distribution_says(gap, epsilon):
    # The mean difference over n of N: Gaussian, of variance 2σ²/n·(1 − n/N).
    quantile = stats.norm.ppf(1 - epsilon)
    exact = 1 / (gap**2 / (2 * SIGMA**2 * quantile**2) + 1 / TOTAL)
    orders = 2000
    found = rank_samples(
        two_networks(gap, np.random.default_rng(0)),
        deltas=[0.5],
        epsilon=epsilon,
        orders=orders,
    )
    # Orders tell the probability up to a standard error, and so n, by its slope.
    error = np.sqrt(epsilon * (1 - epsilon) / orders)
    slope = stats.norm.pdf(quantile) * quantile / (2 * exact)
    assert abs(found.needed[0] - exact) < 1 + 5 * error / slope


def test_fewer_are_needed_for_larger_differences():
    rng = np.random.default_rng(1)
    values = rng.normal(np.linspace(0, 1, 30)[:, None], 0.3, (30, 60))
    found = rank_samples(values, orders=50)
    deltas, counts = found.front()
    assert (np.diff(deltas) > 0).all() and (np.diff(counts) < 0).all()
    several = [found.at(d) for d in np.linspace(deltas[0], 0.5, 40)]
    assert (np.diff(several) <= 0).all() and several[0] == counts[0]
    assert found.at(0.9) == counts[-1]
    assert rank_samples(values, orders=50) == found


def test_values_without_noise_need_one_mini_batch():
    values = np.repeat(np.arange(5.0)[:, None], 20, axis=1)
    found = rank_samples(values, deltas=[0.0, 0.1, 0.99, 1.0])
    assert found.needed == (1, 1, 1, None) and found.at(0.05) == 1


def test_the_plot_is_the_front(tmp_path):
    values = np.random.default_rng(2).normal(np.arange(6)[:, None], 3.0, (6, 40))
    found = rank_samples(values, orders=20, name="accuracy")
    axes = found.plot(tmp_path / "samples.png")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), found.front()[1])


def test_bad_values_are_refused():
    good = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="of two networks or more"):
        rank_samples(good[:1])
    with pytest.raises(ValueError, match="not finite"):
        rank_samples(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="`epsilon` of rank_samples"):
        rank_samples(good, epsilon=1.0)
    with pytest.raises(ValueError, match="All networks are equal"):
        rank_samples(np.ones((2, 3)))
    with pytest.raises(ValueError, match="`deltas` of rank_samples"):
        rank_samples(good, deltas=[-0.1])
    with pytest.raises(ValueError, match="smallest difference with an answer is 0.1"):
        rank_samples(good, deltas=[0.1, 0.2]).at(0.05)
