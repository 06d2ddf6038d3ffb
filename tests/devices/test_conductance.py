import numpy as np
import pytest

from hwa_keras import random
from hwa_keras.devices import ConductanceDevice, Pairs
from hwa_keras.devices.conductance import clipped_moments, polynomial
from hwa_keras.devices.drifting import drift, flicker_factor
from tests import distributions
from tests.conductances import tensor

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.


def assert_moments(found, moments, sigma):
    """To 1e-5 of the mean, and 1e-5 of the variance without clipping."""
    first, second = moments
    np.testing.assert_allclose(found[0], first, rtol=1e-5, atol=1e-6 * sigma)
    np.testing.assert_allclose(found[1], second - first**2, atol=1e-5 * sigma**2)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0])
def test_moments_of_conductances_that_are_clipped_at_zero(sigma):
    mu = np.concatenate([[-1.0, 0.0], np.geomspace(1e-4, 90, 400)])
    mu = mu[mu > -5 * sigma]
    found = clipped_moments(tensor(mu), tensor(sigma))
    assert_moments(found, distributions.rectified_moments(mu, sigma), sigma)


@pytest.mark.parametrize("sigma", [0.1, 1.2, 10.0])
def test_moments_of_conductances_that_are_clipped_to_a_range(sigma):
    low, high = 9.0, 88.2
    mu = np.concatenate([np.linspace(low - sigma, high + sigma, 201), [low, high]])
    mu = mu.astype("float32").astype("float64")
    found = clipped_moments(tensor(mu), tensor(sigma), low, high)
    moments = distributions.clipped_moments(mu, sigma, low, high)
    # σ is 1/800 of the range: float32 holds µ to 1e-4 of it.
    assert_moments(found, moments, max(sigma, 1.0))


def test_without_deviation_nothing_is_clipped():
    mean, variance = clipped_moments(tensor([0.0, 5.0]), tensor(0.0), 0.0, 5.0)
    np.testing.assert_array_equal(mean, [0.0, 5.0])
    np.testing.assert_array_equal(variance, [0.0, 0.0])


def test_polynomials_have_the_lowest_power_first():
    x = np.linspace(-1, 2, 20)
    for c in ((3.0,), (1.0, -2.0), (0.5, 1.0, -3.0, 2.0)):
        expected = np.polynomial.polynomial.polyval(x, c)
        found = polynomial(c, tensor(x)) * np.ones(20, "float32")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t_read", [250e-9, 512e-9, 1e-6])
def test_flicker_noise_grows_with_the_logarithm_of_time(t_read):
    t = np.array([20.0, 3600.0, 3.2e7])
    expected = np.sqrt(np.log((t + t_read) / (2 * t_read)))
    np.testing.assert_allclose(flicker_factor(tensor(t), t_read), expected, rtol=1e-6)
    np.testing.assert_array_equal(flicker_factor(tensor([0.0, t_read]), t_read), 0.0)


def test_drift_is_a_power_law():
    nu = np.array([-0.01, 0.0, 0.06])
    for t in (0.0, 1.0, 3.2e7):
        expected = 7.0 * ((t + 5.0) / 5.0) ** -nu
        np.testing.assert_allclose(drift(7.0, tensor(nu), t, 5.0), expected, rtol=1e-5)


def test_a_device_of_one_s_own_says_what_is_missing():
    class Own(ConductanceDevice):
        pass

    with pytest.raises(NotImplementedError, match="Own has no formula for its prog"):
        Own().program(tensor([[0.5]]), random.seed_from(1))


def test_a_device_of_one_s_own_needs_one_formula():
    class Own(ConductanceDevice):
        g_max = 30.0
        mapping = Pairs((1.0, 1.0))

        def programming_std(self, g):
            return 0.1 * g

    device = Own()
    w = np.random.default_rng(1).normal(size=(50, 40)).astype("float32")
    state = device.program(tensor(w), random.seed_from(1))
    error = np.asarray(device.read(state, 0.0)) - w
    # Two pairs average the relative error of 10 %.
    np.testing.assert_allclose(np.std(error / w), 0.1 / np.sqrt(2), rtol=0.05)
    variance = device.weight_moments(tensor(w))[1]
    np.testing.assert_allclose(variance, 0.005 * w**2, rtol=1e-4)
