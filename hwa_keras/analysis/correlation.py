"""correlation: whether two quantities go together over a set of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

__all__ = ["Correlation", "correlation"]


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two quantities over a set of models.

    Args:
        r: Float in [−1, 1], the coefficient.
        p: Float, the probability of an |r| as large without any correlation.
        low: Lower end of the 95 % interval of r.
        high: Upper end of the 95 % interval of r.
        count: Integer, the number of models.

    Example:
        >>> found = hwa_keras.analysis.correlation([1.0, 2.0, 3.0], [1.0, 2.0, 2.5])
        >>> isinstance(found, hwa_keras.analysis.Correlation)
        True
    """

    r: float
    p: float
    low: float
    high: float
    count: int


def correlation(
    sharpness: Sequence[float], robustness: Sequence[float]
) -> "Correlation":
    """Tell whether flat minima and robustness go together over a set of models.

    The thesis takes as the robustness of a model what it loses: the difference of its
    metric between σ_c = 0 and σ_c = 0.4, as in
    `found.estimate(0.0).mean - found.estimate(0.4).mean`.

    Args:
        sharpness: Sequence of floats, one per model.
        robustness: Sequence of floats, one per model, in the same order.

    Returns:
        A `Correlation`. Its p-value and interval hold for normally distributed
        quantities; from three models the interval is all of [−1, 1].

    Raises:
        ValueError: If the sequences differ in length, tell of fewer than three
            models, are constant, or hold NaN or infinite values.

    Example:
        >>> found = hwa_keras.analysis.correlation(
        ...     [0.10, 0.14, 0.22, 0.31, 0.35], [0.02, 0.05, 0.06, 0.11, 0.10]
        ... )
        >>> round(found.r, 3), round(found.p, 3), found.count
        (0.956, 0.011, 5)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.4.4 and
          table 5.10.
    """
    given = {"sharpness": sharpness, "robustness": robustness}
    first, second = (_checked_sequence(name, value) for name, value in given.items())
    if len(first) != len(second):
        raise ValueError(
            "`sharpness` and `robustness` must have one number per model each. "
            f"Received: {len(first)} and {len(second)} numbers."
        )
    found = scipy.stats.pearsonr(first, second)
    interval = found.confidence_interval(0.95)
    return Correlation(
        float(found.statistic),
        float(found.pvalue),
        float(interval.low),
        float(interval.high),
        len(first),
    )


def _checked_sequence(name, values):
    values = np.asarray(values, "float64")
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(
            f"`{name}` must hold one number for each of at least three models. "
            f"Received an array of shape {values.shape}: {values.tolist()}."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: {values.tolist()}."
        )
    if np.all(values == values[0]):
        raise ValueError(
            f"`{name}` is the same for all models, so nothing correlates with it. "
            f"Received: {values.tolist()}."
        )
    return values
