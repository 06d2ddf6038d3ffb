"""hwa_keras.statistics against SciPy, by other ways."""

import numpy as np
import pytest
import scipy.stats

from hwa_keras.statistics import estimate, proportion


def test_estimate_is_the_interval_of_a_t_test():
    samples = np.random.default_rng(0).normal(3.0, 0.5, size=12)
    found = estimate(samples)
    ends = scipy.stats.ttest_1samp(samples, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.std == pytest.approx(np.std(samples, ddof=1))


def test_weights_are_numbers_of_samples_that_agree():
    found = estimate([1.0, 2.0, 4.0], weights=[2, 2, 2])
    assert found == estimate([1.0, 2.0, 4.0])
    found = estimate([1.0, 2.0, 4.0], weights=[10, 10, 1])
    assert found.mean == pytest.approx(34 / 21)
    assert found.count == 3


def test_weighted_intervals_hold():
    # Means of 16, 16, ... and a rest of 4 examples: variances 1/16 and 1/4.
    rng = np.random.default_rng(0)
    sizes = np.array([16] * 7 + [4])
    inside = 0
    for _ in range(2000):
        found = estimate(rng.normal(size=8) / np.sqrt(sizes), weights=sizes)
        inside += found.low < 0 < found.high
    assert abs(inside / 2000 - 0.95) < 0.02


def test_proportion_solves_the_score_equation():
    p, n = 0.9, 200
    found = proportion(p, n)
    z = scipy.stats.norm.ppf(0.975)
    for end in (found.low, found.high):
        assert abs(p - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n))
    assert found.low < p < found.high and found.count == n


def test_one_interval_is_above_another_or_not():
    good, fair, poor = (proportion(p, 1000) for p in (0.95, 0.945, 0.8))
    assert good.is_above(poor) and not poor.is_above(good)
    assert not good.is_above(fair) and not good.is_above(good)


@pytest.mark.parametrize(("share", "count"), [(1.1, 10), (-0.1, 10), (0.5, 0)])
def test_bad_proportions_are_errors(share, count):
    with pytest.raises(ValueError, match="A proportion needs a share"):
        proportion(share, count)
