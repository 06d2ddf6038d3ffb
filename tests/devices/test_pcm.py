import dataclasses
import json
from functools import cache, lru_cache

import numpy as np
import pytest
from keras import ops
from scipy.integrate import fixed_quad
from scipy.stats import norm

from hwa_keras import devices, random
from hwa_keras.devices import PCM, SimplePCM, pcm
from tests.distributions import (
    assert_distributed,
    folded_exponential,
    folded_moments,
    rectified_moments,
)
from tests.modes import in_mode

G_MAX, T0, T_READ = 25.0, 20.0, 250e-9  # µS, s, s
RELATIVE = (0.0, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # ĝ of the targets
TIMES = {"second": 1.0, "day": 86_400.0, "year": 31_536_000.0}
DEVICES = 1_000_000
C = (0.26348, 1.9650, -1.1731)


# --- Closed forms, in float64


def programming_sigma(relative):
    return C[0] + C[1] * relative + C[2] * relative**2


def nu_parameters(relative):
    with np.errstate(divide="ignore"):
        log = np.log(relative)
    mu = np.clip(-0.0155 * log + 0.0244, 0.049, 0.1)
    return mu, np.clip(-0.0125 * log - 0.0059, 0.008, 0.045)


def read_sigma(relative, t):
    """Standard deviation of read noise over g(t)."""
    q = np.minimum(0.0088 / np.maximum(relative**0.65, 1e-3), 0.2)
    return q * np.sqrt(np.log((t + T0 + T_READ) / (2 * T_READ)))


def drifted_moments(relative, t):
    """Of g(t) = g·((t+t₀)/t₀)^−ν, where g and ν are independent."""
    log = np.log((t + T0) / T0)
    g = rectified_moments(relative * G_MAX, programming_sigma(relative))
    nu = nu_parameters(relative)
    return [g[k] * folded_exponential(*nu, -(k + 1) * log) for k in range(2)]


def read_moments(relative, t):
    """Of max(g(t)·(1 + s(g)·z), 0): integrated over the programmed conductance."""
    mu, sigma = relative * G_MAX, programming_sigma(relative)
    log = np.log((t + T0) / T0)
    knee = (0.0088 / 0.2) ** (1 / 0.65) * G_MAX  # where Q reaches its bound
    low, high = max(mu - 10 * sigma, 0.0), mu + 10 * sigma
    moments = []
    for k in range(2):

        def integrand(g, k=k):
            factor = rectified_moments(1.0, read_sigma(g / G_MAX, t))[k]
            return g ** (k + 1) * factor * norm.pdf(g, mu, sigma)

        points = sorted({low, *(x for x in (knee, mu) if low < x < high), high})
        total = sum(
            fixed_quad(integrand, a, b, n=200)[0]
            for a, b in zip(points, points[1:], strict=False)
        )
        tau = -(k + 1) * log
        moments.append(total * folded_exponential(*nu_parameters(relative), tau))
    return moments


def tensor(values):
    return ops.convert_to_tensor(values, dtype="float32")


def as_numpy(values):
    if isinstance(values, dict):
        return {name: ops.convert_to_numpy(v) for name, v in values.items()}
    return ops.convert_to_numpy(values)


@cache
def writer(device):
    return in_mode("xla", device.program)


@cache
def reader(device, noisy):
    def at(state, t, seed):
        shape = state["g"].shape[1:] if "g" in state else state["weights"].shape
        return device.read(
            state, t, device.draw_read_noise(shape, seed) if noisy else None
        )

    return in_mode("xla", at)


def program(device, weights, seed=1):
    """The state of programmed devices, NumPy arrays."""
    return as_numpy(writer(device)(tensor(weights), random.seed_from(seed)))


def read(device, state, t, seed=None):
    """The weights read at a time, a NumPy array; without read noise by default."""
    state = {name: tensor(value) for name, value in state.items()}
    key = random.seed_from(seed or 0)
    return as_numpy(reader(device, seed is not None)(state, tensor(t), key))


def kernel(shape=(30, 20), seed=3):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# --- Statistics of a million devices


@pytest.fixture(scope="module")
def million():
    """A kernel with a row of a million equal weights for each ĝ, programmed."""
    weights = np.repeat(3 * np.array(RELATIVE, "float32")[:, None], DEVICES, axis=1)
    return program(PCM(), weights, seed=7)


@pytest.fixture(scope="module")
def million_at(million):
    """The conductances of the positive devices at a time, in µS."""
    # With empty partners the weights that are read are these conductances.
    empty = np.zeros_like(million["g"][0])
    g = np.stack([million["g"][0], empty])
    state = {**million, "g": g, "largest": np.full((1, 1), G_MAX)}

    @lru_cache(maxsize=2)
    def at(t, noisy):
        return read(PCM(), state, t, seed=8 if noisy else None)

    return at


rows = pytest.mark.parametrize(
    ("row", "relative"), list(enumerate(RELATIVE)), ids=[f"{g:g}" for g in RELATIVE]
)


@rows
def test_programmed_conductance(million, row, relative):
    moments = rectified_moments(relative * G_MAX, programming_sigma(relative))
    assert_distributed(million["g"][0][row], moments)
    assert million["g"][0][row].min() >= 0


@rows
def test_the_partner_of_every_weight_is_an_empty_device(million, row, relative):
    assert_distributed(
        million["g"][1][row], rectified_moments(0.0, programming_sigma(0.0))
    )
    assert_distributed(million["nu"][1][row], folded_moments(*nu_parameters(0.0)))


@rows
def test_drift_exponent(million, row, relative):
    nu = million["nu"][0][row]
    assert_distributed(nu, folded_moments(*nu_parameters(relative)))
    assert nu.min() >= 0


@rows
@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
def test_conductance_after_drift(million_at, row, relative, t):
    assert_distributed(million_at(t, False)[row], drifted_moments(relative, t))


@rows
@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
def test_conductance_after_drift_with_read_noise(million_at, row, relative, t):
    found = million_at(t, True)[row]
    assert_distributed(found, read_moments(relative, t))
    assert found.min() >= 0


@rows
def test_device_numbers_are_independent_of_each_other(million, row, relative):
    state = million
    numbers = [state[name][side][row] for name in ("g", "nu") for side in (0, 1)]
    correlation = np.corrcoef(numbers) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(DEVICES)


def test_read_noise_is_noise_and_grows_with_time(million_at):
    spread = [
        np.std(million_at(t, True)[-1] / million_at(t, False)[-1])
        for t in TIMES.values()
    ]
    expected = [
        0.0088 * np.sqrt(np.log((t + T0) / (2 * T_READ))) for t in TIMES.values()
    ]
    np.testing.assert_allclose(spread, expected, rtol=5e-3)
    assert spread == sorted(spread)


# --- The formulas, number by number


def test_programming_std_against_numpy():
    relative = np.linspace(0, 1, 101)
    for g_max in (25.0, 10.0, 90.0):
        found = pcm.programming_std(relative * g_max, g_max)
        np.testing.assert_allclose(found, programming_sigma(relative) * g_max / 25)


def test_drift_exponent_against_numpy():
    relative = np.concatenate([[0, 1e-9], np.linspace(1e-3, 1, 500)])
    mu, sigma = nu_parameters(relative)
    for z in (-20.0, -1.0, 0.0, 2.0):
        found = pcm.drift_exponent(tensor(relative * 25), z)
        np.testing.assert_allclose(found, np.abs(mu + sigma * z), rtol=1e-5, atol=1e-6)


def test_read_std_against_numpy():
    relative = np.concatenate([[0, 1e-9, 1e-6], np.linspace(1e-3, 1, 500)])
    g_t = np.linspace(0, 20, relative.size)
    for t in (0.0, *TIMES.values()):
        found = pcm.read_std(
            tensor(g_t),
            tensor(relative * 25),
            tensor(t),
        )
        expected = g_t * read_sigma(relative, t)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_drift_is_a_power_law_of_time():
    device = PCM(programming_scale=0.0)
    state = program(device, w := kernel())
    nu = np.where(w > 0, *state["nu"]).astype("float64")
    for t in TIMES.values():
        expected = w * ((t + T0) / T0) ** -nu
        np.testing.assert_allclose(read(device, state, t), expected, rtol=2e-5)


def test_a_year_of_drift_costs_half_of_the_conductance(million, million_at):
    # It fails if drift does nothing: ν ≥ 0.049 gives (1.6e6)^−0.049 = 0.5.
    year = million_at(TIMES["year"], False).mean(1)
    ratio = year / million["g"][0].mean(1)
    assert np.all((0.2 < ratio) & (ratio < 0.52))


def one_sided(state):
    """The state with the devices of one sign, and with those of the other."""
    sides = np.eye(2)[:, :, None, None]
    return [{**state, "g": (state["g"] * side).astype("float32")} for side in sides]


def test_conductance_never_grows_with_time():
    device = PCM()
    state = program(device, kernel())
    magnitudes = []
    for alone in one_sided(state):
        times = (0.0, 1e-3, 1.0, 20.0, 3600.0, 86_400.0, 3.2e7, 1e9)
        magnitudes.append([np.abs(read(device, alone, t)) for t in times])
    for series in magnitudes:
        for earlier, later in zip(series, series[1:], strict=False):
            assert np.all(later <= earlier * (1 + 1e-6))
            assert later.mean() < earlier.mean()


def test_reading_at_time_zero_gives_what_was_programmed():
    device = PCM()
    state = program(device, kernel())
    expected = (state["g"][0] - state["g"][1]) / G_MAX * state["largest"]
    np.testing.assert_allclose(read(device, state, 0.0), expected, rtol=1e-6)
    assert not np.allclose(read(device, state, 0.0, seed=1), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("per", "shape"), [("layer", (30, 20)), ("column", (3, 3, 4, 5))]
)
def test_without_imperfections_the_pairs_hold_the_weights(per, shape):
    device = PCM(programming_scale=0, drift_scale=0, read_scale=0, per=per)
    state = program(device, w := kernel(shape))
    for t in (0.0, TIMES["year"]):
        np.testing.assert_allclose(read(device, state, t), w, rtol=1e-6)
    assert np.all(state["g"].min(axis=0) == 0)
    assert state["g"].max() <= 25 * (1 + 1e-6)
    assert device.draw_read_noise((2,), random.seed_from(1)) is None


@pytest.mark.parametrize("seed", [None, 5])
def test_another_conductance_range_changes_units_only(seed):
    small, large = PCM(g_max=10.0), PCM(g_max=25.0)
    w = kernel()
    states = [program(device, w) for device in (small, large)]
    np.testing.assert_allclose(states[0]["g"] / 10, states[1]["g"] / 25, atol=1e-6)
    np.testing.assert_allclose(states[0]["nu"], states[1]["nu"], rtol=1e-4)
    for t in (0.0, TIMES["day"]):
        found, expected = (
            read(device, state, t, seed)
            for device, state in zip((small, large), states, strict=True)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_scales_multiply_their_part():
    w = kernel()
    # Weights near the range's end are not cut at zero: their noise is linear.
    bright = np.abs(w) > 0.5 * np.abs(w).max()
    plain, doubled = PCM(), PCM(programming_scale=2.0, drift_scale=3.0, read_scale=0.5)
    one, other = program(plain, w), program(doubled, w)
    for side, sign in enumerate((1, -1)):
        chosen = bright & (sign * w > 0)
        target = np.abs(w[chosen]) * 25 / np.abs(w).max()
        np.testing.assert_allclose(
            other["g"][side][chosen] - target,
            2 * (one["g"][side][chosen] - target),
            atol=1e-4,
        )
    np.testing.assert_allclose(other["nu"], 3 * one["nu"], rtol=1e-5)
    alone = one_sided(other)[0]
    exact, noisy = (read(doubled, alone, 60.0, seed) for seed in (None, 4))
    full = read(dataclasses.replace(doubled, read_scale=1.0), alone, 60.0, 4)
    chosen = bright & (w > 0)
    np.testing.assert_allclose(
        (noisy - exact)[chosen], 0.5 * (full - exact)[chosen], atol=1e-5
    )


def test_the_spread_of_exponents_has_a_scale_of_its_own():
    w = kernel()
    g = np.abs(w) * 25 / np.abs(w).max()
    means = nu_parameters(g / 25)[0]
    plain, none, half = (
        program(PCM(drift_spread=spread), w)["nu"] for spread in (1.0, 0.0, 0.5)
    )
    for side, sign in enumerate((1, -1)):
        chosen = sign * w > 0
        np.testing.assert_allclose(none[side][chosen], means[chosen], rtol=1e-4)
        # The exponents of bright devices are six standard deviations above zero.
        chosen &= g > 0.5 * 25
        np.testing.assert_allclose(
            (half - none)[side][chosen], 0.5 * (plain - none)[side][chosen], atol=1e-6
        )


def test_another_reference_time_and_read_duration_enter_the_formulas():
    device = PCM(programming_scale=0.0, t0=5.0, t_read=1e-6, read_scale=1.0)
    w = np.full((1, 50_000), 0.8, "float32")
    state = program(device, w)
    t = 1000.0
    nu = state["nu"][0].astype("float64")
    exact = read(device, state, t)
    np.testing.assert_allclose(exact, w * (1005.0 / 5.0) ** -nu, rtol=2e-5)
    ratio = read(device, state, t, seed=2) / exact - 1
    expected = 0.0088 * np.sqrt(np.log(1005.000001 / 2e-6))
    np.testing.assert_allclose(ratio.std(), expected, rtol=5 / np.sqrt(2 * w.size))


# --- Ranges


def test_each_column_has_a_range_of_its_own():
    w = kernel() * np.array([1e-3, 1, 50, 0.2] * 5, "float32")
    state = program(PCM(per="column"), w)
    largest = np.abs(w).max(0, keepdims=True)
    np.testing.assert_allclose(state["largest"], largest, rtol=1e-6)
    error = read(PCM(per="column"), state, 0.0) - w
    assert np.all(error.std(0) > 0.01 * largest)
    assert np.all(error.std(0) < 0.06 * largest)
    # With one range for all, the small columns drown.
    error = read(PCM(), program(PCM(), w), 0.0) - w
    assert error[:, 0].std() > 100 * largest[0, 0]


@pytest.mark.parametrize("device", [PCM(), SimplePCM()], ids=["pcm", "simple_pcm"])
def test_scaling_a_kernel_scales_what_is_read(device):
    w = kernel()
    small, large = (read(device, program(device, f * w), 3600.0) for f in (1e-6, 1e6))
    np.testing.assert_allclose(small * 1e12, large, rtol=1e-4, atol=1e3)


@pytest.mark.parametrize("per", ["layer", "column"])
@pytest.mark.parametrize("kind", [PCM, SimplePCM])
def test_kernels_of_zeros_read_zero_for_ever(kind, per):
    device = kind(per=per)
    state = program(device, np.zeros((30, 20), "float32"))
    assert all(np.isfinite(value).all() for value in state.values())
    for t in (0.0, TIMES["year"]):
        for seed in (None, 2):
            np.testing.assert_array_equal(read(device, state, t, seed), 0)
    values = {name: tensor(v) for name, v in state.items()}
    assert np.isfinite(as_numpy(device.oracle_gain(values, TIMES["year"])))


@pytest.mark.parametrize("kind", [PCM, SimplePCM])
def test_columns_of_zeros_read_zero_among_others(kind):
    w = 1e-3 * kernel()
    w[:, 2] = 0
    device = kind(per="column")
    perturbed = in_mode("xla", device.perturb)(tensor(w), random.seed_from(2))
    for found in (read(device, program(device, w), 3600.0), as_numpy(perturbed)):
        np.testing.assert_array_equal(found[:, 2], 0)
        assert np.all(found[:, [0, 1, 3]].std(0) > 0)


# --- Seeds


@pytest.mark.parametrize("device", [PCM(), SimplePCM()], ids=["pcm", "simple_pcm"])
def test_the_seed_decides_the_devices(device):
    w = kernel()
    one, same, other = (program(device, w, seed) for seed in (1, 1, 2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    name = next(iter(one))
    assert not np.array_equal(one[name], other[name])


@pytest.mark.tensorflow_only
def test_programming_eagerly_gives_the_same_devices():
    device, w = PCM(), kernel((7, 5))
    eager = as_numpy(device.program(tensor(w), random.seed_from(1)))
    for name, value in program(device, w, seed=1).items():
        np.testing.assert_allclose(eager[name], value, rtol=1e-5, atol=1e-5)


def test_each_read_draws_its_own_noise():
    state = program(PCM(), kernel())
    reads = [read(PCM(), state, 60.0, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(reads[0], reads[1])
    assert not np.array_equal(reads[0], reads[2])


def test_the_devices_of_a_pair_are_read_with_noise_of_their_own():
    ones = np.ones((2, 1, 100_000))
    state = {"g": 20.0 * ones, "nu": 0.05 * ones, "largest": np.full((1, 1), G_MAX)}
    found = read(PCM(), state, 60.0, seed=3)
    g_t = 20.0 * (80.0 / 20.0) ** -0.05
    variance = 2 * (g_t * read_sigma(0.8, 60.0)) ** 2
    assert_distributed(found, (0.0, variance))


# --- The oracle's gain


def test_oracle_gain_undoes_the_mean_drift():
    device = PCM(drift_scale=1.3)
    state = program(device, kernel())
    g, nu = (state[name].astype("float64") for name in ("g", "nu"))
    values = {name: tensor(v) for name, v in state.items()}
    for t in (0.0, *TIMES.values()):
        expected = ((t + T0) / T0) ** ((g * nu).sum() / g.sum())
        np.testing.assert_allclose(device.oracle_gain(values, t), expected, rtol=1e-4)


# --- SimplePCM


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_simple_pcm_programs_with_the_polynomial_and_no_clipping(scale):
    values = np.array([-2.0, -1.0, -0.1, 0.0, 0.5, 2.0], "float32")
    w = np.repeat(values[:, None], 200_000, axis=1)
    found = program(SimplePCM(programming_scale=scale), w)["weights"]
    for row, value in zip(found, values.astype("float64"), strict=True):
        sigma = scale * 2.0 * programming_sigma(abs(value) / 2.0) / 25
        assert_distributed(row, (value, value**2 + sigma**2))
    assert (found[3] < 0).any() and (found[3] > 0).any()


@pytest.mark.parametrize("device", [SimplePCM(), SimplePCM(nu=0.1, t0=5.0)])
def test_simple_pcm_drifts_after_its_reference_time_and_not_before(device):
    state = program(device, kernel())
    for t in (0.0, 1.0, device.t0):
        np.testing.assert_array_equal(read(device, state, t), state["weights"])
    written = state["weights"].astype("float64")
    for t in (device.t0 * 1.5, *list(TIMES.values())[1:]):
        expected = written * (t / device.t0) ** -device.nu
        np.testing.assert_allclose(read(device, state, t), expected, rtol=2e-6)
        gain = as_numpy(device.oracle_gain({}, tensor(t)))
        np.testing.assert_allclose(read(device, state, t) * gain, written, rtol=2e-6)


def test_simple_pcm_reads_exactly():
    assert SimplePCM().draw_read_noise((2,), random.seed_from(1)) is None


# --- Objects


@pytest.mark.parametrize(
    "device",
    [PCM(g_max=20.0, read_scale=0.5, per="column"), SimplePCM(nu=0.07, t0=30.0)],
    ids=["pcm", "simple_pcm"],
)
def test_configuration_round_trips_as_json(device):
    config = json.loads(json.dumps(devices.serialize(device)))
    assert devices.get(config) == device
    assert type(device).from_config(device.get_config()) == device


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("pcm", PCM()),
        ("PCM", PCM()),
        ("simple_pcm", SimplePCM()),
        ("SimplePCM", SimplePCM()),
    ],
)
def test_devices_are_found_by_name(name, device):
    assert devices.get(name) == device


def test_devices_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PCM().g_max = 10.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PCM(g_max=0.0), "`g_max` of PCM must be a positive.*g_max=0.0"),
        (lambda: PCM(g_max=-25), "`g_max` of PCM .*g_max=-25"),
        (lambda: PCM(g_max=float("nan")), "`g_max` of PCM .*g_max=nan"),
        (lambda: PCM(g_max="25"), "`g_max` of PCM .*g_max='25'"),
        (lambda: PCM(t0=0), "`t0` of PCM .*t0=0"),
        (lambda: PCM(t_read=-1e-9), "`t_read` of PCM .*t_read=-1e-09"),
        (lambda: PCM(programming_scale=-1), "`programming_scale` of PCM .*=-1"),
        (lambda: PCM(drift_scale=-0.5), "`drift_scale` of PCM .*not negative.*=-0.5"),
        (lambda: PCM(drift_spread=-1), "`drift_spread` of PCM .*=-1"),
        (lambda: PCM(read_scale=float("inf")), "`read_scale` of PCM .*=inf"),
        (lambda: PCM(per="row"), "`per` of PCM must be 'layer' .* or 'column'.*='row'"),
        (lambda: SimplePCM(nu=-0.1), "`nu` of SimplePCM .*nu=-0.1"),
        (lambda: SimplePCM(t0=0.0), "`t0` of SimplePCM .*t0=0.0"),
        (lambda: SimplePCM(programming_scale=-1), "`programming_scale` of SimplePCM"),
        (lambda: SimplePCM(per=None), "`per` of SimplePCM .*per=None"),
        (lambda: devices.get("rram"), "Unknown device 'rram'. .*pcm, .*simple_pcm"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
