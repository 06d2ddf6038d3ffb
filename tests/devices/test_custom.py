import json

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.devices import CustomDevice
from hwa_keras.devices.custom import interpolate
from tests.conductances import read, tensor, written
from tests.distributions import (
    assert_distributed,
    assert_standard_normal,
    rectified_moments,
)
from tests.modes import MODES, in_mode

pytestmark = pytest.mark.slow

LEVELS = (1.0, 4.0, 10.0, 30.0)
PROGRAMMING = (0.5, 0.2, 1.0, 0.8)
EXPONENTS = (0.05, 0.02, 0.0, -0.01)
EXPONENT_STDS = (0.01, 0.02, 0.0, 0.004)
READ = (0.0, 0.1, 0.3, 0.2)
DEVICE = CustomDevice(LEVELS, PROGRAMMING, EXPONENTS, EXPONENT_STDS, READ)
RELATIVE = (0.0, 0.05, 0.3, 0.7, 1.0)
TIMES = (0.0, 3600.0, 31_536_000.0)


def target(relative):
    return 1.0 + 29.0 * relative


# --- Interpolation


@pytest.mark.parametrize("mode", MODES)
def test_interpolation_is_numpy_s_within_and_beyond_the_knots(mode):
    x = np.concatenate([np.linspace(-5, 40, 1000), LEVELS]).astype("float32")
    for values in (PROGRAMMING, EXPONENTS, READ, (2.0, 2.0, 2.0, 2.0)):
        found = in_mode(mode, lambda x, y=values: interpolate(x, LEVELS, y))(tensor(x))
        np.testing.assert_allclose(found, np.interp(x, LEVELS, values), atol=2e-7)


def test_interpolation_of_a_long_table():
    knots = np.cumsum(np.random.default_rng(1).uniform(0.01, 1, 80))
    values = np.random.default_rng(2).uniform(0, 1, 80)
    x = np.linspace(0, knots[-1] + 1, 1001).astype("float32")
    found = in_mode("xla", lambda x: interpolate(x, knots, values))(tensor(x))
    np.testing.assert_allclose(found, np.interp(x, knots, values), atol=1e-5)


# --- A million devices


@pytest.fixture(scope="module")
def million():
    return written(DEVICE, RELATIVE)


@pytest.mark.parametrize(("row", "relative"), list(enumerate(RELATIVE)))
def test_devices_are_written_as_in_the_tables(million, row, relative):
    g, nu = (ops.convert_to_numpy(million[name])[0][row] for name in ("g", "nu"))
    level = target(relative)
    sigma = np.interp(level, LEVELS, PROGRAMMING)
    assert_distributed(g, rectified_moments(level, sigma))
    mean, std = (np.interp(level, LEVELS, y) for y in (EXPONENTS, EXPONENT_STDS))
    assert_distributed(nu, (mean, mean**2 + std**2))


@pytest.mark.parametrize(("row", "relative"), list(enumerate(RELATIVE)))
@pytest.mark.parametrize("t", TIMES)
def test_devices_drift_as_in_the_tables(million, row, relative, t):
    level = target(relative)
    g = rectified_moments(level, np.interp(level, LEVELS, PROGRAMMING))
    mean, std = (np.interp(level, LEVELS, y) for y in (EXPONENTS, EXPONENT_STDS))
    log = np.log(t + 1.0)
    moments = [
        g[k - 1] * np.exp(-k * mean * log + (k * std * log) ** 2 / 2) for k in (1, 2)
    ]
    assert_distributed(read(DEVICE, million, t)[0][0][row], moments)


@pytest.mark.parametrize("t", TIMES)
def test_reads_are_noisy_by_what_devices_conduct_then(million, t):
    exact, noisy = read(DEVICE, million, t)
    for row in (2, 3):
        seen = exact[0][row] > 2
        g_t = exact[0][row][seen].astype("float64")
        std = np.interp(g_t, LEVELS, READ)
        assert_standard_normal((noisy[0][row][seen] - g_t) / std)


def test_weight_moments_right_after_programming(million):
    w = tensor(np.array(RELATIVE)[:, None])
    g = ops.convert_to_numpy(million["g"]).astype("float64")
    mean, variance = map(ops.convert_to_numpy, DEVICE.weight_moments(w))
    for row, samples in enumerate((g[0] - g[1]) / 29.0):
        first, spread = float(mean[row, 0]), float(variance[row, 0])
        assert_distributed(samples, (first, spread + first**2))


# --- What is left out


def test_without_further_tables_devices_stay_and_are_read_exactly():
    device = CustomDevice(levels=[0.0, 10.0], programming_stds=[0.0, 0.0])
    assert not device.drifts
    assert device.draw_read_noise((2, 2), random.seed_from(1)) is None
    w = np.random.default_rng(1).uniform(-1, 1, (7, 5)).astype("float32")
    state = device.program(tensor(w), random.seed_from(1))
    for t in TIMES:
        np.testing.assert_allclose(device.read(state, t), w, atol=1e-6)


def test_a_chip_of_custom_devices_ages():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    device = CustomDevice([0.0, 20.0], [0.0, 0.0], [0.1, 0.1], t0=10.0)
    chip = hwa_keras.program(model, device, seed=1, compensation="none")
    x = np.ones((1, 8), "float32")
    expected = ops.convert_to_numpy(model(x)) * (1010.0 / 10.0) ** -0.1
    np.testing.assert_allclose(chip(x, t=1000.0), expected, rtol=1e-4)
    chip.compensation = "oracle"
    np.testing.assert_allclose(chip(x, t=1000.0), model(x), rtol=1e-4)


def test_the_range_may_be_a_part_of_the_table():
    device = CustomDevice(LEVELS, PROGRAMMING, g_min=2.0, g_max=20.0)
    g, largest = device.targets(tensor([[0.5, -2.0]]))
    np.testing.assert_allclose(g[:, 0], [[6.5, 2.0], [2.0, 20.0]], rtol=1e-6)
    assert (DEVICE.g_min, DEVICE.g_max) == (1.0, 30.0)


# --- Objects


def test_tables_may_be_lists_or_arrays_and_devices_are_hashable():
    tables = (LEVELS, PROGRAMMING, EXPONENTS)
    arrays, lists = (CustomDevice(*map(kind, tables)) for kind in (np.array, list))
    assert arrays == lists
    assert hash(arrays) == hash(lists)


def test_configuration_round_trips_as_json():
    config = json.loads(json.dumps(devices.serialize(DEVICE)))
    assert devices.get(config) == DEVICE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": (1.0, 1.0, 2.0, 3.0)}, "`levels` .*each above the one before"),
        ({"levels": (4.0, 1.0, 10.0, 30.0)}, "`levels` .*each above the one before"),
        ({"levels": (1.0,)}, r"`levels` .*two or more.*levels=\(1.0,\)"),
        ({"levels": (-1.0, 1.0, 2.0, 3.0)}, "`levels` .*not negative.*-1.0 in"),
        ({"levels": 3.0}, "`levels` .*a sequence of numbers.*levels=3.0"),
        ({"levels": ("a", "b")}, "`levels` .*a sequence of numbers"),
        ({"programming_stds": (0.1, 0.2)}, "`programming_stds` .*4 levels.*ived 2"),
        ({"programming_stds": None}, "`programming_stds` .*a sequence.*=None"),
        ({"programming_stds": (0.1, 0.2, -0.1, 0.1)}, "`programming_stds`.*-0.1 in"),
        ({"exponents": (0.1, 0.1, float("nan"), 0.1)}, "`exponents` .*finite.*nan in"),
        ({"exponent_stds": (0.1, -0.1, 0.1, 0.1)}, "`exponent_stds` .*not negative"),
        ({"exponents": None}, "`exponent_stds` .*exponents.*are missing"),
        ({"read_stds": (0.1,) * 5}, "`read_stds` .*4 levels.*Received 5"),
        ({"g_min": 0.5}, "`g_min` and `g_max` .*levels, 1.0 to 30.0.*g_min=0.5"),
        ({"g_max": 31.0}, "1.0 to 30.0 µS.*g_max=31.0"),
        ({"g_min": 5.0, "g_max": 4.0}, "g_min below g_max.*g_min=5.0, g_max=4.0"),
        ({"t0": 0.0}, "`t0` of CustomDevice .*t0=0.0"),
        ({"per": "row"}, "`per` of CustomDevice .*per='row'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    tables = {
        "levels": LEVELS,
        "programming_stds": PROGRAMMING,
        "exponents": EXPONENTS,
        "exponent_stds": EXPONENT_STDS,
        "read_stds": READ,
    }
    with pytest.raises(ValueError, match=message):
        CustomDevice(**{**tables, **change})
