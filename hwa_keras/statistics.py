"""Means of repeated measurements, with their intervals."""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import scipy.stats


@dataclass(frozen=True)
class Estimate:
    """Mean of independent measurements with its confidence interval.

    Args:
        mean: The mean.
        std: Sample standard deviation; NaN for fewer than two measurements.
        low: Lower end of the interval of the mean.
        high: Upper end of the interval of the mean.
        count: Number of measurements.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @property
    def half_width(self):
        return (self.high - self.low) / 2

    def is_above(self, other):
        """Whether this interval lies wholly above another."""
        return self.low > other.high


def estimate(samples, level=0.95, weights=None):
    """Mean and Student-t confidence interval of independent measurements.

    Args:
        samples: Sequence of floats, at least one.
        level: Confidence level. Defaults to `0.95`.
        weights: Sequence of floats > 0, what each sample counts for, such as the
            number of examples that it is the mean of. The interval is that of Kish's
            effective number of samples, (Σw)²/Σw². None means that all count the same.

    Returns:
        An `Estimate`. With one sample, the standard deviation and the ends of the
        interval are NaN.

    Example:
        >>> from hwa_keras.statistics import estimate
        >>> round(estimate([0.97, 0.98, 0.99]).half_width, 4)
        0.0248
        >>> estimate([1.0, 5.0], weights=[3, 1]).mean
        2.0
    """
    samples = np.asarray(samples, "float64")
    if samples.size == 0:
        raise ValueError("An estimate needs at least one measurement; none was given.")
    weights = np.ones(samples.size) if weights is None else np.asarray(weights, float)
    shares, count = weights / weights.sum(), int(samples.size)
    mean = float(shares @ samples)
    if count == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    effective = 1 / float(shares @ shares)
    freedom = 1 - 1 / effective
    std = math.sqrt(float(shares @ np.square(samples - mean)) / freedom)
    t = float(scipy.stats.t.ppf((1 + level) / 2, effective - 1))
    half = t * std / math.sqrt(effective)
    return Estimate(mean, std, mean - half, mean + half, count)


def is_precise(samples, tolerance, fewest=5):
    """Whether the 95 % interval of the mean is within ± tolerance.

    Args:
        samples: Sequence of floats.
        tolerance: Float > 0.
        fewest: Integer, how many samples it takes to trust an interval. Defaults to
            `5`.

    Example:
        >>> from hwa_keras.statistics import is_precise
        >>> is_precise([0.97, 0.98, 0.99, 0.98, 0.98], tolerance=0.01)
        True
    """
    if len(samples) < fewest:
        return False
    return bool(estimate(samples).half_width <= tolerance)


def proportion(share, count, level=0.95):
    """The share of trials that succeeded, with its Wilson score interval.

    Args:
        share: Float from 0 to 1, such as an accuracy.
        count: Integer ≥ 1, the number of trials, such as of test examples.
        level: Confidence level. Defaults to `0.95`.

    Returns:
        An `Estimate`, whose standard deviation is that of one trial.

    Example:
        >>> from hwa_keras.statistics import proportion
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
    ends = test.proportion_ci(level, method="wilson")
    std = math.sqrt(share * (1 - share))
    return Estimate(float(share), std, float(ends.low), float(ends.high), int(count))


def check_count(**counts):
    """Raise `ValueError` naming the first value that is no integer ≥ 1.

    Example:
        >>> from hwa_keras.statistics import check_count
        >>> check_count(chips=10, repeats=1)
    """
    for name, count in counts.items():
        whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
        if not whole or count < 1:
            raise ValueError(
                f"`{name}` must be an integer ≥ 1. Received: {name}={count!r}."
            )
