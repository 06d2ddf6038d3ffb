import json

import numpy as np
import pytest
from keras import ops

from hwa_keras import devices, random
from hwa_keras.devices import Hermes
from tests.conductances import read, tensor, written
from tests.distributions import (
    assert_distributed,
    assert_standard_normal,
    folded_exponential,
    folded_moments,
    rectified_moments,
)

pytestmark = pytest.mark.slow

# ĝ on both sides of each bound, 0.0945, 0.159, 0.16, 0.304 and 0.306.
RELATIVE = (0.0, 0.05, 0.12, 0.25, 0.6, 1.0)
TIMES = (0.0, 3600.0, 31_536_000.0)
T_READ = 512e-9
G_MAX = {1: 10.35, 2: 20.7}
T0 = {1: 200.0, 2: 300.0}
PROGRAMMING = {
    1: (0.15781817, 2.32443916, -2.16310839, 0.68841818),
    2: (0.16603222, 4.71806468, -8.48101252, 4.68961419),
}

both = pytest.mark.parametrize("cell", [1, 2])
rows = pytest.mark.parametrize(
    ("row", "relative"), list(enumerate(RELATIVE)), ids=[f"{g:g}" for g in RELATIVE]
)


# --- Closed forms, in float64


def sigma(relative, cell):
    return np.polynomial.polynomial.polyval(relative, PROGRAMMING[cell])


def log(relative):
    return np.log(np.maximum(relative, 1e-7))


def exponent(relative, cell):
    """Mean and standard deviation of the drift exponent."""
    g = np.asarray(relative, "float64")
    mean = np.where(
        g < 0.0945,
        np.clip(-0.0387 * log(g) - 0.0182, 0.072, 0.13),
        -0.0436 * g**2 - 0.0126 * g + 0.0736,
    )
    if cell == 1:
        low = np.clip(-0.0120 * log(g) - 0.0023, 0.0124, 0.04)
        return mean, np.where(g < 0.3039, low, -0.0165 * g**2 + 0.0116 * g + 0.0104)
    low = np.clip(-0.0117 * log(g) - 0.0057, 0.0091, 0.04)
    return mean, np.where(g < 0.3055, low, -0.0118 * g**2 + 0.0093 * g + 0.0073)


def read_factor(relative, t, cell):
    """Standard deviation of read noise over the conductance."""
    g = np.asarray(relative, "float64")
    if cell == 1:
        low = np.clip(-0.0078 * log(g) + 0.0038, 0.0179, 0.04)
        high = 0.0664 * g**3 - 0.1352 * g**2 + 0.0768 * g + 0.0088
        q = np.where(g < 0.1591, low, high)
    else:
        low = np.clip(-0.0117 * log(g) - 0.0069, 0.015, 0.04)
        high = 0.0069 * g**3 - 0.0280 * g**2 + 0.0211 * g + 0.0123
        q = np.where(g < 0.16, low, high)
    return q * np.sqrt(np.log((t + T0[cell] + T_READ) / (2 * T_READ)))


# --- A million devices


@pytest.fixture(scope="module")
def million():
    return {cell: written(Hermes(devices=cell), RELATIVE) for cell in (1, 2)}


@rows
@both
def test_programmed_conductances_and_drift_exponents(million, cell, row, relative):
    g, nu = (ops.convert_to_numpy(million[cell][name]) for name in ("g", "nu"))
    moments = rectified_moments(relative * G_MAX[cell], sigma(relative, cell))
    assert_distributed(g[0][row], moments)
    assert_distributed(nu[0][row], folded_moments(*exponent(relative, cell)))
    assert_distributed(g[1][row], rectified_moments(0.0, sigma(0.0, cell)))
    numbers = [x[side][row] for x in (g, nu) for side in (0, 1)]
    correlation = np.corrcoef(numbers) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(g.shape[-1])


@rows
@pytest.mark.parametrize("t", TIMES)
@both
def test_conductances_drift(million, cell, t, row, relative):
    found = read(Hermes(devices=cell), million[cell], t)[0][0][row]
    g = rectified_moments(relative * G_MAX[cell], sigma(relative, cell))
    nu = exponent(relative, cell)
    tau = np.log((t + T0[cell]) / T0[cell])
    moments = [g[k] * folded_exponential(*nu, -(k + 1) * tau) for k in range(2)]
    assert_distributed(found, moments)


@pytest.mark.parametrize("t", TIMES)
@both
def test_reads_are_noisy(million, cell, t):
    g = ops.convert_to_numpy(million[cell]["g"])
    exact, noisy = read(Hermes(devices=cell), million[cell], t)
    for row in (2, 5):
        seen = exact[0][row] > 0.05
        g_t = exact[0][row][seen].astype("float64")
        std = g_t * read_factor(g[0][row][seen] / G_MAX[cell], t, cell)
        assert_standard_normal((noisy[0][row][seen] - g_t) / std)


# --- The formulas, number by number


@both
def test_formulas_against_numpy(cell):
    device = Hermes(devices=cell)
    relative = np.concatenate([[0, 1e-9, 1e-6], np.linspace(1e-3, 1, 997)])
    g = tensor(relative * G_MAX[cell])
    relative = ops.convert_to_numpy(g) / np.float32(G_MAX[cell])
    np.testing.assert_allclose(
        device.programming_std(g), sigma(relative, cell), rtol=1e-5
    )
    mean, std = exponent(relative, cell)
    for z in (-9.0, -1.0, 0.0, 2.0):
        found = device.drift_exponent(g, z)
        np.testing.assert_allclose(found, np.abs(mean + std * z), rtol=1e-4, atol=1e-6)
    g_t = np.linspace(0, 20, relative.size)
    for t in TIMES:
        found = device.read_std(tensor(g_t), g, tensor(t))
        expected = g_t * read_factor(relative, t, cell)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


def test_scales_and_a_smaller_range():
    full, half = Hermes(), Hermes(g_max=10.35, programming_scale=2.0, drift_scale=3.0)
    g = tensor(np.linspace(0, 10.35, 20))
    expected = full.programming_std(2 * g)
    np.testing.assert_allclose(half.programming_std(g), expected, rtol=1e-5)
    nu = full.drift_exponent(2 * g, 0.5)
    np.testing.assert_allclose(half.drift_exponent(g, 0.5), 3 * nu, rtol=1e-5)
    assert Hermes(read_scale=0.0).draw_read_noise((2, 2), random.seed_from(1)) is None


def test_the_oracle_undoes_the_mean_drift():
    device = Hermes(devices=1)
    w = np.random.default_rng(1).normal(size=(20, 30)).astype("float32")
    state = device.program(tensor(w), random.seed_from(1))
    g, nu = (ops.convert_to_numpy(state[name]).astype("f8") for name in ("g", "nu"))
    expected = ((1e6 + 200.0) / 200.0) ** ((g * nu).sum() / g.sum())
    np.testing.assert_allclose(device.oracle_gain(state, 1e6), expected, rtol=1e-4)


# --- Objects


def test_cells_of_two_devices_are_more_exact_relative_to_their_range():
    one, two = Hermes(devices=1), Hermes()
    assert (one.g_max, one.t0) == (10.35, 200.0)
    assert (two.g_max, two.t0, two.devices) == (20.7, 300.0, 2)
    w = tensor(np.linspace(-1, 1, 21)[:, None])
    errors = [np.mean(device.weight_moments(w)[1]) for device in (one, two)]
    assert errors[1] < errors[0]


def test_configuration_round_trips_as_json():
    for device in (Hermes(), Hermes(devices=1, g_max=5.0, t0=20.0, per="column")):
        config = json.loads(json.dumps(devices.serialize(device)))
        assert devices.get(config) == device
    assert devices.get("hermes") == Hermes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hermes(devices=3), "`devices` of Hermes must be one of 1, 2.*=3"),
        (lambda: Hermes(g_max=25.0), r"`g_max` of Hermes\(devices=2\) .*20.7 .*=25.0"),
        (lambda: Hermes(devices=1, g_max=20.7), "at most 10.35 .*g_max=20.7"),
        (lambda: Hermes(g_max=0.0), "`g_max` of Hermes .*positive.*g_max=0.0"),
        (lambda: Hermes(t0=-1.0), "`t0` of Hermes .*t0=-1.0"),
        (lambda: Hermes(t_read=0), "`t_read` of Hermes .*t_read=0"),
        (lambda: Hermes(drift_scale=-1), "`drift_scale` of Hermes .*=-1"),
        (lambda: Hermes(per="network"), "`per` of Hermes .*per='network'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
