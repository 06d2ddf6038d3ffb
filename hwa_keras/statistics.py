"""Means of repeated measurements, with their intervals."""

import math
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


def estimate(samples, level=0.95):
    """Mean and Student-t confidence interval of independent measurements.

    Args:
        samples: Sequence of floats, at least one.
        level: Confidence level. Defaults to `0.95`.

    Returns:
        An `Estimate`. With one sample, the standard deviation and the ends of the
        interval are NaN.

    Example:
        >>> from hwa_keras.statistics import estimate
        >>> round(estimate([0.97, 0.98, 0.99]).half_width, 4)
        0.0248
    """
    samples = np.asarray(samples, "float64")
    if samples.size == 0:
        raise ValueError("An estimate needs at least one measurement; none was given.")
    mean, count = float(samples.mean()), int(samples.size)
    if count == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    std = float(samples.std(ddof=1))
    half = float(scipy.stats.t.ppf((1 + level) / 2, count - 1)) * std / math.sqrt(count)
    return Estimate(mean, std, mean - half, mean + half, count)
