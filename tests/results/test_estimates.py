"""hwa_keras.results.estimates against SciPy, by other ways."""

import numpy as np
import pytest
import scipy.stats

from hwa_keras.results import estimate, proportion
from hwa_keras.results.estimates import is_precise


def test_estimate_is_the_interval_of_a_t_test():
    samples = np.random.default_rng(0).normal(3.0, 0.5, size=12)
    found = estimate(samples)
    ends = scipy.stats.ttest_1samp(samples, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.std == pytest.approx(np.std(samples, ddof=1))


def test_estimate_of_five_and_of_one():
    # t(0.975, 4) = 2.7764451
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == found.median == 3.0 and found.count == 5
    assert found.std == pytest.approx(np.sqrt(2.5))
    assert found.half_width == pytest.approx(2.7764451 * np.sqrt(2.5 / 5))
    assert (found.q05, found.q95) == pytest.approx((1.2, 4.8))
    assert np.isnan(estimate([1.0]).low) and estimate([1.0]).median == 1.0
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_and_warns_of_nothing(worst):
    found = estimate([0.5, 0.6, worst, worst] * 3)
    assert str(found.mean) == str(worst)
    assert np.isnan([found.std, found.low, found.high]).all()
    opposite = estimate([np.inf, -np.inf, 0.0])
    assert np.isnan(opposite.mean) and opposite.median == 0.0


def of_chips(rng, count):
    """Accuracies of chips of which one in ten is dead; their true mean is 0.865."""
    dead = rng.random(count) < 0.1
    return np.where(dead, 0.1, rng.normal(0.95, 0.005, count))


def test_intervals_of_skewed_samples_hold_where_student_s_does_not():
    rng, student, found = np.random.default_rng(0), 0, 0
    for _ in range(400):
        samples = of_chips(rng, 50)
        ends = scipy.stats.ttest_1samp(samples, 0.0).confidence_interval(0.95)
        student += ends.low < 0.865 < ends.high
        ends = estimate(samples)
        found += ends.low < 0.865 < ends.high
    assert student / 400 < 0.91
    assert found / 400 > 0.95


def test_intervals_of_normal_samples_are_not_widened_much():
    rng, inside, wider = np.random.default_rng(0), 0, []
    for _ in range(600):
        samples = rng.normal(size=30)
        found = estimate(samples)
        inside += found.low < 0 < found.high
        half = scipy.stats.t.ppf(0.975, 29) * samples.std(ddof=1) / np.sqrt(30)
        wider.append(found.half_width / half)
    assert 0.93 < inside / 600 < 0.98
    assert np.mean(wider) < 1.01


def test_runs_that_stop_early_have_intervals_that_hold():
    rng, inside, counts = np.random.default_rng(0), 0, []
    for _ in range(200):
        samples = of_chips(rng, 120)
        count = next(
            (n for n in range(30, 120) if is_precise(samples[:n], 0.1, fewest=30)), 120
        )
        found = estimate(samples[:count])
        inside += found.low < 0.865 < found.high
        counts.append(count)
    assert min(counts) == 30 < np.median(counts) < 120
    assert inside / 200 > 0.92  # Of 30 chips none is dead in 4 % of the cases.


def test_the_exact_interval_of_a_share_is_that_of_clopper_and_pearson():
    found = proportion(1.0, 10, method="exact")
    assert found.low == pytest.approx(0.025 ** (1 / 10)) and found.high == 1.0
    found = proportion(0.9, 10, method="exact")
    tails = (
        scipy.stats.binom(10, found.low).sf(8),
        scipy.stats.binom(10, found.high).cdf(9),
    )
    assert tails == pytest.approx((0.025, 0.025))


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
