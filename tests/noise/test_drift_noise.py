import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from hwa_keras import Hardware, devices, noise, random, to_hwa
from hwa_keras.devices.device import Device
from hwa_keras.noise import AdditiveGaussian, DriftNoise, ProgrammingNoise
from hwa_keras.noise.base import _fused
from tests.gradients import gradient
from tests.modes import in_mode

YEAR = 31_536_000.0
PCM = devices.PCM(per="column")


def both_laws(w, t, gain, device=PCM):
    """Deviations of PCM's own noise, and of what writing and reading devices gives."""
    own = in_mode("xla", lambda w, t: device.perturb_at(w, seed(1), t, gain=gain))
    made = in_mode(
        "xla", lambda w, t: Device.perturb_at(device, w, seed(2), t, gain=gain)
    )
    tensors = ops.convert_to_tensor(w), ops.convert_to_tensor(t, "float32")
    return [
        ops.convert_to_numpy(law(*tensors)).astype("float64") for law in (own, made)
    ]


def seed(number):
    return random.seed_from(number)


@pytest.mark.parametrize("t", [1.0, 86_400.0, YEAR])
def test_a_pair_of_pcm_is_read_with_the_mean_and_deviation_of_its_devices(t):
    targets = np.array([0.05, 0.2, 0.6, 1.0, -0.3], "float32")
    w = np.repeat(targets[:, None], 40_000, axis=1)
    laws = both_laws(w, t, None, devices.PCM())
    for found, expected, target in zip(*laws, targets, strict=True):
        error = expected.std() / np.sqrt(len(expected))
        # The read noise of the empty device is in the deviation, unrectified.
        slack = 0.003 * abs(target)
        assert abs(found.mean() - expected.mean()) < 5 * np.sqrt(2) * error + slack
        assert found.std() / expected.std() == pytest.approx(1.0, abs=0.05)
        assert scipy.stats.ks_2samp(found, expected).statistic < 0.03


@pytest.mark.parametrize("gain", ["tile", "column"])
@pytest.mark.parametrize("t", [1.0, YEAR])
def test_gains_from_expectations_are_those_that_a_controller_measures(t, gain):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2_000, 40)).astype("float32")
    laws = both_laws(w, t, gain)
    found, expected = (np.sum(w * each) / np.sum(w * w) for each in laws)
    assert found == pytest.approx(expected, abs=0.01)
    found, expected = (np.std(each - w) for each in laws)
    assert found / expected == pytest.approx(1.0, abs=0.02)


def test_times_are_log_uniform_between_the_two():
    drift = DriftNoise(times=(10.0, 1e6))
    times = [float(drift.draw_time(seed(i))) for i in range(400)]
    share = np.log(np.array(times) / 10.0) / np.log(1e5)
    assert scipy.stats.kstest(share, "uniform").pvalue > 0.01


def test_one_time_and_no_compensation_is_what_devices_hold_then():
    device = devices.PCM(programming_scale=0.0, read_scale=0.0)
    drift = DriftNoise(device, times=YEAR, compensation="none")
    w = np.full((300, 200), 0.5, "float32")
    w[0] = 1.0
    found = ops.convert_to_numpy(drift(w, seed(0)))[1:] / 0.5
    mean, std = 0.049, 0.008  # drift exponents at half of the range
    age = np.log((YEAR + 20.0) / 20.0)
    expected = np.exp(-mean * age + 0.5 * (std * age) ** 2)
    spread = expected * np.sqrt(np.exp((std * age) ** 2) - 1.0)
    assert found.mean() == pytest.approx(expected, abs=5 * spread / found.size**0.5)
    assert found.std() == pytest.approx(spread, rel=0.02)


def test_scale_goes_from_nothing_to_the_whole_noise():
    w = np.random.default_rng(0).normal(size=(20, 10)).astype("float32")
    drift = DriftNoise(PCM, times=3600.0)
    whole = ops.convert_to_numpy(drift(w, seed(3))) - w
    drift.scale.assign(0.5)
    half = ops.convert_to_numpy(drift(w, seed(3))) - w
    np.testing.assert_allclose(half, 0.5 * whole, atol=1e-6)
    drift.scale.assign(0.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(drift(w, seed(3))), w)


def test_the_gradient_passes_straight_through():
    drift = DriftNoise(PCM)
    w = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    found = gradient(lambda x: ops.sum(drift(x, seed(0)) * w), ops.convert_to_tensor(w))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), w)


@pytest.mark.parametrize("compensation", ["measured", "measured_columns"])
def test_columns_of_zeros_stay_zero(compensation):
    device = devices.PCM(programming_scale=0.0, read_scale=0.0, per="column")
    w = np.zeros((5, 3), "float32")
    w[:, 0] = 1.0
    found = ops.convert_to_numpy(
        DriftNoise(device, compensation=compensation)(w, seed(0))
    )
    assert np.all(np.isfinite(found))
    np.testing.assert_array_equal(found[:, 1:], 0.0)


def test_it_comes_back_from_its_configuration():
    drift = DriftNoise(devices.PCM(g_max=20.0), (60.0, 3600.0), "measured_columns", 0.5)
    copy = noise.deserialize(noise.serialize(drift))
    assert copy.get_config() == drift.get_config()
    w = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    np.testing.assert_array_equal(copy(w, seed(1)), drift(w, seed(1)))


def test_tiles_have_ranges_and_gains_of_their_own():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, use_bias=False)])
    to_hwa(
        model,
        hardware=Hardware(kernel_noise=DriftNoise("pcm", times=1.0), tile=(4, 3)),
        seed=0,
        verbose=0,
    )
    kernel = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    kernel[4:, 3:] *= 1e-3
    model.layers[0].kernel.assign(kernel)
    hardware = model.layers[0].hardware_kernels[0]
    error = ops.convert_to_numpy(hardware.value(training=True)) - kernel
    assert np.abs(error[4:, 3:]).max() < 1e-3 < np.abs(error[:4, :3]).max()


def test_equal_noises_compile_one_program():
    first, second = DriftNoise(PCM), DriftNoise(devices.PCM(per="column"))
    first._fused = _fused(first)
    assert _fused(second) is first._fused
    assert _fused(DriftNoise("pcm")) is not first._fused
    assert _fused(ProgrammingNoise(PCM)) is not first._fused


def test_a_subclass_that_says_nothing_of_its_own_compiles_for_itself():
    class Doubled(AdditiveGaussian):
        def __init__(self, factor):
            super().__init__(0.1)
            self.factor = factor

        def perturb(self, w, seed, scale):
            return w * self.factor

    w = np.ones((2, 2), "float32")
    assert float(Doubled(2.0)(w, seed(0))[0, 0]) == 2.0
    assert float(Doubled(3.0)(w, seed(0))[0, 0]) == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": None}, "must be a device"),
        ({"times": 0.0}, "0 < earliest"),
        ({"times": (10.0, 1.0)}, "0 < earliest"),
        ({"times": (1.0, np.inf)}, "0 < earliest"),
        ({"times": True}, "0 < earliest"),
        ({"times": (1.0, 1e39)}, "finite"),
        ({"compensation": "gdc"}, "compensation"),
    ],
)
def test_bad_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        DriftNoise(**arguments)
