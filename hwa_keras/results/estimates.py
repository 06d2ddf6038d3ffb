"""Estimates from repeated measurements, with their intervals."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from hwa_keras.core.types import ArrayLike

__all__ = ["Estimate", "estimate", "is_precise", "proportion"]

_RESAMPLES = 2000
_FEWEST_FOR_SKEWNESS = 8  # What the test of skewness takes.


@dataclass(frozen=True)
class Estimate:
    """Mean of independent measurements with its confidence interval.

    Args:
        mean: The mean.
        std: Sample standard deviation; NaN for fewer than two measurements.
        low: Lower end of the interval of the mean.
        high: Upper end of the interval of the mean.
        count: Number of measurements.
        median: The median; NaN where single measurements are not known.
        q05: The 5 % quantile, NaN likewise.
        q95: The 95 % quantile, NaN likewise.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int
    median: float = math.nan
    q05: float = math.nan
    q95: float = math.nan

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the mean."""
        return (self.high - self.low) / 2

    def is_above(self, other: "Estimate") -> bool:
        """Whether this interval lies wholly above another."""
        return self.low > other.high


def estimate(
    samples: ArrayLike, level: float = 0.95, weights: ArrayLike | None = None
) -> Estimate:
    """Mean of independent measurements with its confidence interval.

    The interval is Student's, which holds for means of what is roughly normal. Samples
    that are skewed (a test of skewness gives p < 5 %), such as accuracies of chips of
    which some are dead, get the hull of it and of the bias-corrected and accelerated
    bootstrap interval (BCa). With one chip of ten dead it covers the true mean in 97 %
    of the cases with 30 chips, and in 92 % with 25, of which no one is dead one time in
    14: no interval knows of what was not seen.

    Args:
        samples: Sequence of floats, at least one. NaN and infinite values are taken as
            they are: the mean is what it is, and the interval is NaN.
        level: Confidence level. Defaults to `0.95`.
        weights: Sequence of floats > 0, what each sample counts for, such as the
            number of examples that it is the mean of. The interval is then Student's
            with Kish's effective number of samples, (Σw)²/Σw². None means that all
            count the same.

    Returns:
        An `Estimate`. With one sample, the standard deviation and the ends of the
        interval are NaN.

    Raises:
        ValueError: If there is no sample.

    Example:
        >>> from hwa_keras.results import estimate
        >>> round(estimate([0.97, 0.98, 0.99]).half_width, 4)
        0.0248
        >>> estimate([1.0, 5.0], weights=[3, 1]).mean
        2.0

    Reference:
        - B. Efron, "Better bootstrap confidence intervals", JASA 82, 1987.
        - L. Kish, "Survey sampling", 1965.
    """
    samples = np.asarray(samples, "float64")
    if samples.size == 0:
        raise ValueError("An estimate needs at least one measurement; none was given.")
    shares = np.ones(samples.size) if weights is None else np.asarray(weights, float)
    shares, count = shares / shares.sum(), int(samples.size)
    with np.errstate(invalid="ignore"):
        mean = float(np.sum(shares * samples))
    quantiles = _quantiles(samples)
    if count == 1 or not np.isfinite(samples).all():
        return Estimate(mean, math.nan, math.nan, math.nan, count, *quantiles)
    std, low, high = _student(samples, shares, mean, level)
    if weights is None and is_skewed(samples):
        ends = _bootstrap(samples, level)
        low, high = min(low, ends[0]), max(high, ends[1])
    return Estimate(mean, std, low, high, count, *quantiles)


def _quantiles(samples):
    """The median and the 5 and 95 % quantiles."""
    # Between two infinite values nothing can be interpolated.
    method: Any = "linear" if np.isfinite(samples).all() else "inverted_cdf"
    return np.quantile(samples, (0.5, 0.05, 0.95), method=method).tolist()


def _student(samples, shares, mean, level):
    """Standard deviation and the ends of Student's interval."""
    effective = 1 / float(shares @ shares)
    freedom = 1 - 1 / effective
    std = math.sqrt(float(shares @ np.square(samples - mean)) / freedom)
    t = float(scipy.stats.t.ppf((1 + level) / 2, effective - 1))
    half = t * std / math.sqrt(effective)
    return std, mean - half, mean + half


def is_skewed(samples):
    """Whether finite samples are skewed, by D'Agostino's test at 5 %.

    Example:
        >>> from hwa_keras.results.estimates import is_skewed
        >>> is_skewed([0.95, 0.94, 0.96, 0.95, 0.94, 0.96, 0.95, 0.94, 0.96, 0.1])
        True
    """
    samples = np.asarray(samples, "float64")
    if samples.size < _FEWEST_FOR_SKEWNESS or not np.ptp(samples) > 0:
        return False
    if np.ptp(samples) < 1e-9 * np.abs(samples).max():
        return False  # Equal but for rounding.
    return bool(scipy.stats.skewtest(samples).pvalue < 0.05)


def _bootstrap(samples, level):
    """The ends of the BCa interval of the mean; the same samples, the same ends."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(samples.size, size=(_RESAMPLES, samples.size))
    means, mean = samples[drawn].mean(axis=1), samples.mean()
    below = np.mean(means < mean) + np.mean(means == mean) / 2
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / _RESAMPLES, 1 - 1 / _RESAMPLES))
    off = samples - mean
    acceleration = np.sum(off**3) / (6 * np.sum(off**2) ** 1.5)
    z = bias + scipy.stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    ends = scipy.stats.norm.cdf(bias + z / (1 - acceleration * z))
    return np.quantile(means, ends).tolist()


def is_precise(samples, tolerance, fewest):
    """Whether the 95 % interval of the mean is within ± tolerance.

    Args:
        samples: Sequence of floats.
        tolerance: Float > 0.
        fewest: Integer, how many samples it takes to trust an interval.

    Example:
        >>> from hwa_keras.results.estimates import is_precise
        >>> is_precise([0.97, 0.98, 0.99, 0.98, 0.98] * 2, tolerance=0.01, fewest=10)
        True
    """
    if len(samples) < fewest:
        return False
    equal = np.ones(len(samples))  # Student's alone, which is quick, and never wider.
    if not estimate(samples, weights=equal).half_width <= tolerance:
        return False
    found = estimate(samples)
    widest = max(found.high - found.mean, found.mean - found.low)
    return bool(widest <= tolerance)


def proportion(
    share: float, count: int, level: float = 0.95, method: str = "wilson"
) -> Estimate:
    """The share of trials that succeeded, with its interval.

    Args:
        share: Float from 0 to 1, such as an accuracy.
        count: Integer ≥ 1, the number of trials, such as of test examples.
        level: Confidence level. Defaults to `0.95`.
        method: `"wilson"`, the score interval, which covers the share with the level on
            average; or `"exact"`, Clopper and Pearson's, which covers it with the level
            at least. Defaults to `"wilson"`.

    Returns:
        An `Estimate`, whose standard deviation is that of one trial.

    Raises:
        ValueError: If `share` or `count` is out of its range.

    Example:
        >>> from hwa_keras.results import proportion
        >>> found = proportion(0.98, 10_000)
        >>> round(found.low, 4), round(found.high, 4)
        (0.9771, 0.9826)
    """
    if not (0 <= share <= 1 and count >= 1):
        raise ValueError(
            "A proportion needs a share from 0 to 1 of at least one trial. Received: "
            f"share={share}, count={count}."
        )
    test = scipy.stats.binomtest(round(share * count), int(count))
    ends = test.proportion_ci(level, method=method)
    std = math.sqrt(share * (1 - share))
    return Estimate(float(share), std, float(ends.low), float(ends.high), int(count))
