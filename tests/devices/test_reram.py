import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.devices import ReRAMCMO, ReRAMWan2022
from tests.conductances import read, tensor, written
from tests.distributions import (
    assert_distributed,
    assert_standard_normal,
    clipped_moments,
    rectified_moments,
)
from tests.modes import in_mode

pytestmark = pytest.mark.slow

RELATIVE = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)
DAY = 86_400.0
WAN = {
    0.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
CMO_TIMES = (0.0, 0.5, 1.0, 3600.0, 31_536_000.0)
CMO_PROGRAMMING = {0.02: (0.0112185391, 0.01129027418), 0.002: (0.00081107, 0.00106879)}
LOW, HIGH = 9.0, 88.2

rows = pytest.mark.parametrize(
    ("row", "relative"), list(enumerate(RELATIVE)), ids=[f"{g:g}" for g in RELATIVE]
)


def wan_sigma(relative, t):
    return np.polynomial.polynomial.polyval(relative, WAN[t])


def cmo_sigma(g, acceptance=0.02):
    c0, c1 = CMO_PROGRAMMING[acceptance]
    return c0 + c1 * g


def relaxation(t):
    """Mean and standard deviation of the shift at a time, µS."""
    if t < 1:
        return 0.0, 0.0
    return -0.08900206 * np.log(t), 0.04201137 * np.log(t) + 0.41183342


def as_numpy(state):
    return {name: ops.convert_to_numpy(value) for name, value in state.items()}


def model():
    keras.utils.set_random_seed(1)
    made = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    made.compile("adam", "mse")
    return made


# --- Wan et al.


@pytest.fixture(scope="module")
def wan():
    return written(ReRAMWan2022(), RELATIVE)


@rows
@pytest.mark.parametrize("t", WAN)
def test_wan_deviations_are_those_of_the_time(wan, row, relative, t):
    found = read(ReRAMWan2022(), wan, t)[0]
    moments = rectified_moments(40.0 * relative, wan_sigma(relative, t))
    assert_distributed(found[0][row], moments)
    assert_distributed(found[1][row], rectified_moments(0.0, wan_sigma(0.0, t)))


def test_wan_deviates_in_one_direction_at_all_times_and_reads_exactly(wan):
    z = []
    for t in list(WAN)[1:]:
        exact, noisy = read(ReRAMWan2022(), wan, t)
        np.testing.assert_array_equal(exact, noisy)
        z.append((exact[0][-1] - 40.0) / wan_sigma(1.0, t))
    np.testing.assert_allclose(z[1], z[0], atol=1e-5)
    np.testing.assert_allclose(z[2], z[0], atol=1e-5)
    assert_standard_normal(z[0])


def test_wan_sigma_scales_with_the_range_and_is_never_negative():
    relative = np.linspace(0, 1, 101)
    for g_max, scale in ((40.0, 1.0), (20.0, 0.5)):
        device = ReRAMWan2022(g_max=g_max, programming_scale=scale)
        for t in WAN:
            found = device.deviation_std(tensor(relative * g_max), t)
            expected = wan_sigma(relative, t) * g_max / 40 * scale
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            assert np.all(expected > 0)


@pytest.mark.parametrize("t", [0.5, 3600.0, DAY + 1, 31_536_000.0])
def test_wan_refuses_times_that_nobody_measured(t):
    device = ReRAMWan2022()
    state = device.program(tensor([[0.5, -1.0]]), random.seed_from(1))
    chip = hwa_keras.program(model(), device, seed=1)
    x = np.ones((1, 8), "float32")
    for ask in (
        lambda: device.read(state, t),
        lambda: device.read(state, tensor(t)),
        lambda: setattr(chip, "t", t),
        lambda: chip(x, t=t),
        lambda: chip(x, t=tensor(t)),
        lambda: hwa_keras.drift_sweep(
            model(), device, (x, np.ones((1, 6))), times=[1.0, t], chips=1, verbose=0
        ),
    ):
        with pytest.raises(ValueError, match=rf"known at t = 0, 1, 86400.*t={t}\. Tak"):
            ask()


def test_a_wan_chip_has_the_weights_of_each_known_time():
    x = np.eye(8, dtype="float32")
    chip = hwa_keras.program(model(), ReRAMWan2022(), seed=1)
    at = {t: ops.convert_to_numpy(chip(x, t=t)) for t in WAN}
    np.testing.assert_array_equal(at[0.0], at[1.0])
    assert not np.allclose(at[1.0], at[DAY], rtol=1e-3)
    assert not np.allclose(at[DAY], at[2 * DAY], rtol=1e-3)
    for t in (2 * DAY, DAY):
        chip.t = t
        for _ in range(2):
            np.testing.assert_allclose(chip(x), at[t], rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow_only
def test_an_exported_chip_serves_the_known_times(tmp_path):
    chip = hwa_keras.program(model(), ReRAMWan2022(), seed=1)
    x = np.ones((2, 8), "float32")
    hwa_keras.export(chip, tmp_path / "chip", verbose=0)
    found = hwa_keras.verify_export(tmp_path / "chip", chip, x, times=list(WAN))
    assert found < 1e-5
    with pytest.raises(ValueError, match="known at t = 0, 1, 86400.*t=60"):
        hwa_keras.verify_export(tmp_path / "chip", chip, x, times=[60.0])


def test_behind_wires_the_same_times_are_known():
    crossbar = hwa_keras.crossbar.Crossbar(
        ReRAMWan2022(), wire=1.0, ir_drop="closed_form"
    )
    converted = hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
    chip = hwa_keras.program(converted, device=None, seed=1)
    chip.t = DAY
    with pytest.raises(ValueError, match="known at t = 0, 1, 86400.*t=60"):
        chip.t = 60.0


def test_in_a_graph_the_nearest_known_time_counts():
    device = ReRAMWan2022()
    state = device.program(tensor([[0.5, -1.0]]), random.seed_from(1))
    traced = in_mode("xla", device.conductances)
    for t, known in ((0.0, 1.0), (3600.0, 1.0), (8e4, DAY), (1e5, DAY), (1e9, 2 * DAY)):
        expected = device.conductances(state, known)
        np.testing.assert_allclose(traced(state, tensor(t)), expected, rtol=1e-6)


# --- CMO/HfOx


@pytest.fixture(scope="module")
def cmo():
    return written(ReRAMCMO(), RELATIVE)


@rows
@pytest.mark.parametrize("t", CMO_TIMES)
def test_cmo_conductances_relax_whatever_their_level(cmo, row, relative, t):
    target = LOW + relative * (HIGH - LOW)
    shift, sigma = relaxation(t)
    found = read(ReRAMCMO(), cmo, t)[0][0][row]
    total = np.hypot(cmo_sigma(target), sigma)
    assert_distributed(found, clipped_moments(target + shift, total, LOW, HIGH))
    assert LOW <= found.min() and found.max() <= np.float32(HIGH)


@pytest.mark.parametrize("acceptance", CMO_PROGRAMMING)
def test_cmo_programming_is_as_exact_as_is_accepted(acceptance):
    device = ReRAMCMO(acceptance=acceptance)
    state = as_numpy(written(device, (0.3, 1.0)))
    for row, target in enumerate((LOW + 0.3 * (HIGH - LOW), HIGH)):
        sigma = cmo_sigma(target, acceptance)
        found = state["g"][0][row] - np.float32(target)
        assert_distributed(found, (target - np.float32(target), sigma**2))
    g = np.linspace(LOW, HIGH, 50)
    np.testing.assert_allclose(
        device.programming_std(g), cmo_sigma(g, acceptance), rtol=1e-6
    )


def test_cmo_programming_and_relaxation_are_independent(cmo):
    numbers = [as_numpy(cmo)[name][0][3] for name in ("g", "z")]
    assert abs(np.corrcoef(numbers)[0, 1]) < 5 / np.sqrt(numbers[0].size)


@pytest.mark.parametrize("t", [1.0, 3600.0])
@pytest.mark.parametrize("row", [2, 4])
def test_cmo_reads_are_noisy_by_the_logarithm_of_the_conductance(cmo, row, t):
    exact, noisy = (g[0][row].astype("float64") for g in read(ReRAMCMO(), cmo, t))
    sigma = 0.0277316483 * np.log10(exact) * np.sqrt(np.log((t + 1e-6) / 2e-6))
    # The difference of float32 numbers is a multiple of 8e-6 µS.
    assert_standard_normal((noisy - exact) / sigma)


def test_cmo_reads_without_noise_right_after_programming(cmo):
    exact, noisy = read(ReRAMCMO(), cmo, 0.0)
    np.testing.assert_array_equal(exact, noisy)


def test_cmo_scales_multiply_their_part():
    still = ReRAMCMO(programming_scale=0.0, drift_scale=0.0, read_scale=0.0)
    assert still.draw_read_noise((2, 2), random.seed_from(1)) is None
    w = np.random.default_rng(1).uniform(-1, 1, (7, 5)).astype("float32")
    seed = random.seed_from(3)
    for t in CMO_TIMES:
        found = still.read(still.program(tensor(w), seed), t)
        np.testing.assert_allclose(found, w, atol=1e-6)
    doubled = dataclasses.replace(still, drift_scale=2.0)
    plain = dataclasses.replace(still, drift_scale=1.0)
    g = still.conductances(still.program(tensor(w), seed), 1e4)
    shifts = [
        d.conductances(d.program(tensor(w), seed), 1e4) - g for d in (plain, doubled)
    ]
    inside = np.abs(w) > 0.3
    inside &= np.abs(w) < 0.9
    side = np.where(w > 0, 0, 1)[None]
    one, two = (np.take_along_axis(np.asarray(s), side, 0)[0][inside] for s in shifts)
    np.testing.assert_allclose(two, 2 * one, atol=2e-5)


def test_weight_moments_right_after_programming():
    relative = (0.0, 0.05, 0.5, -1.0)
    w = tensor(np.array(relative)[:, None])
    for device in (ReRAMWan2022(), ReRAMCMO()):
        state = written(device, relative)
        g = read(device, state, 0.0)[0].astype("float64")
        found = (g[0] - g[1]) / (device.g_max - device.g_min)
        mean, variance = map(ops.convert_to_numpy, device.weight_moments(w))
        for row, samples in enumerate(found):
            first, spread = float(mean[row, 0]), float(variance[row, 0])
            assert_distributed(samples, (first, spread + first**2))


# --- Objects


@pytest.mark.parametrize(
    "device",
    [
        ReRAMWan2022(g_max=30.0, per="column"),
        ReRAMCMO(acceptance=0.002, g_max=50.0, mapping=devices.Pairs((1.0, 1.0))),
    ],
)
def test_configuration_round_trips_as_json(device):
    config = json.loads(json.dumps(devices.serialize(device)))
    assert devices.get(config) == device
    assert hash(devices.get(config)) == hash(device)


def test_devices_are_found_by_name():
    assert devices.get("reram_wan2022") == ReRAMWan2022()
    assert devices.get("reram_cmo") == ReRAMCMO()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReRAMWan2022(g_max=0), "`g_max` of ReRAMWan2022 .*g_max=0"),
        (lambda: ReRAMWan2022(per="row"), "`per` of ReRAMWan2022 .*per='row'"),
        (lambda: ReRAMWan2022(programming_scale=-1), "`programming_scale` .*=-1"),
        (lambda: ReRAMCMO(acceptance=2.0), "`acceptance` .*0.02, 0.002.*=2.0"),
        (lambda: ReRAMCMO(g_min=5.0), "`g_min` and .*9.0 to 88.2 µS.*g_min=5.0"),
        (lambda: ReRAMCMO(g_min=50.0, g_max=50.0), "g_min below g_max.*g_max=50.0"),
        (lambda: ReRAMCMO(g_max=100.0), "9.0 to 88.2 µS.*g_max=100.0"),
        (lambda: ReRAMCMO(drift_scale=-1), "`drift_scale` of ReRAMCMO .*=-1"),
        (lambda: ReRAMCMO(read_scale=float("nan")), "`read_scale` of ReRAMCMO .*=nan"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mapping_is_checked():
    for device in (ReRAMWan2022, ReRAMCMO):
        with pytest.raises(TypeError, match=f"`mapping` of {device.__name__} must be"):
            device(mapping=2)
