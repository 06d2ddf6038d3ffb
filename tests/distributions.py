"""Moments of distributions in closed form, and samples against them."""

import numpy as np
from scipy.stats import norm


def rectified_moments(mu, sigma):
    """First and second moment of max(x, 0), x normal."""
    a = mu / sigma
    first = mu * norm.cdf(a) + sigma * norm.pdf(a)
    return first, (mu**2 + sigma**2) * norm.cdf(a) + mu * sigma * norm.pdf(a)


def folded_moments(mu, sigma):
    """First and second moment of |x|, x normal."""
    first = mu * (1 - 2 * norm.cdf(-mu / sigma)) + 2 * sigma * norm.pdf(mu / sigma)
    return first, mu**2 + sigma**2


def folded_exponential(mu, sigma, tau):
    """E[exp(τ|x|)], x normal."""
    half = (sigma * tau) ** 2 / 2
    return np.exp(half + mu * tau) * norm.cdf(mu / sigma + sigma * tau) + np.exp(
        half - mu * tau
    ) * norm.cdf(-mu / sigma + sigma * tau)


def assert_distributed(samples, moments):
    """Mean and standard deviation, within 5 standard errors."""
    samples = samples.astype("float64")
    first, second = moments
    expected_std = np.sqrt(max(second - first**2, 0.0))
    mean, n = samples.mean(), samples.size
    square = (samples - mean) ** 2
    std, fourth = np.sqrt(square.mean()), (square**2).mean()
    assert abs(mean - first) < 5 * std / np.sqrt(n)
    assert abs(std - expected_std) < 5 * np.sqrt((fourth - std**4) / n) / (2 * std)


def clipped_moments(mu, sigma, low, high):
    """First and second moment of clip(x, low, high), x normal."""
    a, b = (low - mu) / sigma, (high - mu) / sigma
    inside = norm.cdf(b) - norm.cdf(a)
    edges = norm.pdf(a) - norm.pdf(b)
    first = low * norm.cdf(a) + high * norm.sf(b) + mu * inside + sigma * edges
    second = (
        low**2 * norm.cdf(a)
        + high**2 * norm.sf(b)
        + (mu**2 + sigma**2) * inside
        + 2 * mu * sigma * edges
        + sigma**2 * (a * norm.pdf(a) - b * norm.pdf(b))
    )
    return first, second


def assert_standard_normal(z):
    """Mean 0 and standard deviation 1, within 5 standard errors."""
    z = np.asarray(z, "float64")
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)
