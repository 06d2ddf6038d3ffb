"""Crossbars as the hardware of models: noise, wires, chips, files."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.circuits import ADC
from hwa_keras.crossbar import Crossbar, Wired, wires
from hwa_keras.devices import PCM, Memristor
from hwa_keras.noise import DropConnect, ProgrammingNoise
from tests import fresh
from tests.modes import in_mode

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

EXACT = Memristor(g_min=0.5, g_max=25.0)  # Without errors.


def model(inputs=40, units=6):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(units), keras.layers.Dense(3)]
    )


def examples(inputs=40):
    return np.random.default_rng(0).normal(size=(7, inputs)).astype("float32")


def as_numpy(x):
    return ops.convert_to_numpy(x)


def expected_kernel(w, solve, wire, device=EXACT):
    """What wires leave of a kernel, from the conductances of its pair."""
    largest, span = np.abs(w).max(), device.g_u - device.g_min
    sides = [np.maximum(s * w, 0) / largest * span + device.g_min for s in (1, -1)]
    g = ops.convert_to_tensor(np.stack(sides).astype("float32"))
    positive, negative = as_numpy(solve(g, *wire))
    return (positive - negative) / span * largest


def test_a_chip_computes_behind_its_wires():
    crossbar = Crossbar(EXACT, wire=(20.0, 30.0), ir_drop="closed_form")
    net, x = model(), examples()
    kernels = [as_numpy(layer.kernel) for layer in net.layers]
    hwa_keras.to_hwa(net, hardware=crossbar, verbose=0)
    chip = hwa_keras.program(net, device=None, seed=0)
    expected = x
    for w in kernels:
        behind = expected_kernel(w, wires.closed_form, (20.0, 30.0))
        assert np.abs(behind).sum() < 0.999 * np.abs(w).sum()
        expected = expected @ behind
    np.testing.assert_allclose(as_numpy(chip(x)), expected, rtol=1e-4, atol=1e-5)


def test_every_tile_is_a_crossbar_of_its_own():
    crossbar = Crossbar(EXACT, 16, 4, wire=25.0, ir_drop="exact")
    net = hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
    chip = hwa_keras.program(net, device=None, seed=0)
    w = as_numpy(net.layers[0].kernel)
    found = as_numpy(chip.layers[0].kernel)
    padded = np.pad(w, ((0, 8), (0, 2)))
    for k in range(3):
        for m in range(2):
            part = padded[16 * k : 16 * k + 16, 4 * m : 4 * m + 4]
            behind = expected_kernel(part, wires.exact, (25.0, 25.0))
            place = np.s_[16 * k : min(16 * k + 16, 40), 4 * m : min(4 * m + 4, 6)]
            behind = behind[: found[place].shape[0], : found[place].shape[1]]
            np.testing.assert_allclose(found[place], behind, rtol=1e-4, atol=1e-6)


def test_training_sees_the_wires_and_inference_the_weights():
    crossbar = Crossbar(EXACT, wire=(20.0, 30.0), ir_drop="exact")
    net, x = model(), examples()
    w = as_numpy(net.layers[0].kernel)
    hwa_keras.to_hwa(net, hardware=crossbar, verbose=0)
    layer = net.layers[0]
    np.testing.assert_allclose(as_numpy(layer(x, training=False)), x @ w, atol=1e-5)
    behind = expected_kernel(w, wires.closed_form, (20.0, 30.0))
    found = as_numpy(layer(np.eye(40, dtype="float32"), training=True))
    # In training the drop, of up to 0.6, is right to 0.6 %.
    np.testing.assert_allclose(found, behind, rtol=0.6 * 0.006, atol=1e-6)
    assert np.abs(w - behind).max() > 0.1 * np.abs(w).max()


@pytest.mark.parametrize("device", [Memristor(sigma=0.8), PCM(read_scale=0.0)])
def test_training_noise_behind_wires_is_that_of_programming(device):
    wired = Wired(device, (15.0, 25.0))
    w = np.random.default_rng(3).normal(size=(48, 24)).astype("float32")

    def written(weights, seed):
        return wired.read(wired.program(weights, seed), ops.zeros(()))

    moments = []
    for draw in (written, wired.perturb):
        compute = in_mode("xla", draw)
        draws = [as_numpy(compute(w, random.seed_from(i))) for i in range(300)]
        moments.append((np.mean(draws, axis=0), np.std(draws, axis=0)))
    (mean, std), (found, found_std) = moments
    error = np.abs(found - mean) / np.sqrt(2 * std**2 / 300)
    assert error.max() < 5.5
    assert found_std.mean() == pytest.approx(std.mean(), rel=0.01)
    assert np.abs(w - mean).max() > 0.03 * np.abs(w).max()


def test_training_noise_is_that_of_the_devices():
    crossbar = Crossbar(Memristor(sigma=0.5), 16, 16)
    assert isinstance(crossbar.kernel_noise, ProgrammingNoise)
    assert crossbar.kernel_noise.device == Memristor(sigma=0.5)
    other = crossbar.with_settings(device=Memristor(sigma=0.1))
    assert other.kernel_noise.device == other.device == Memristor(sigma=0.1)
    own = Crossbar(Memristor(sigma=0.5), kernel_noise=DropConnect(0.1))
    assert isinstance(own.kernel_noise, DropConnect)


def test_a_vector_of_ranges_reaches_the_kernels_of_a_model():
    crossbar = Crossbar(Memristor(sigma=0.5, g_u=(5.0, 20.0)), 16, 16)
    net = hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
    kernels = hwa_keras.hardware_kernels(net)
    assert [kernel.noise.device.g_u for kernel in kernels] == [5.0, 20.0]
    chip = hwa_keras.program(net, device=None, seed=0)
    assert [tile.device.g_u for tile in chip.tiles] == [5.0, 20.0]


def test_drift_and_wires_together():
    crossbar = Crossbar(PCM(), wire=5.0, ir_drop="exact")
    chip = hwa_keras.program(
        hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0),
        device=None,
        seed=0,
        read_noise="off",
        compensation="none",
    )
    plain = hwa_keras.program(
        model(), PCM(), seed=0, read_noise="off", compensation="none"
    )
    sizes = []
    for t in (0.0, 31_536_000.0):
        chip.t = plain.t = t
        sizes.append(
            [np.abs(as_numpy(c.layers[0].kernel)).sum() for c in (chip, plain)]
        )
    # Drifted devices draw less current, so that the wires take a smaller share.
    (behind, before), (behind_later, later) = sizes
    assert behind / before < behind_later / later < 1.0


def test_tiles_without_converters_compute_as_a_whole():
    net, x = model(), examples()
    expected = as_numpy(net(x))
    tiled = hwa_keras.to_hwa(net, hardware=Crossbar(EXACT, 7, 4), verbose=0)
    np.testing.assert_array_equal(as_numpy(tiled(x, training=False)), expected)


def test_files_hold_the_crossbar(tmp_path):
    crossbar = Crossbar(
        Memristor(sigma=0.2, g_u=(5.0, 20.0)),
        16,
        16,
        wire=(0.5, 1.0),
        ir_drop="closed_form",
        adc=ADC(8, range=8.0),
        v_read=0.2,
        t_read=1e-7,
    )
    again = Crossbar.from_config(crossbar.get_config())
    for name in ("device", "tile", "wire", "ir_drop", "v_read", "t_read", "bias"):
        assert getattr(again, name) == getattr(crossbar, name), name
    assert again.kernel_noise.device == crossbar.kernel_noise.device
    net = hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
    chip = hwa_keras.program(net, device=None, seed=3)
    chips = {"model": net, "chip": chip}
    fresh.assert_loads_equal(chips, {name: examples() for name in chips}, tmp_path)


def test_wired_devices_have_moments_to_first_order():
    device = Wired(Memristor(sigma=0.3, g_min=2.0), (5.0, 5.0))
    w = np.random.default_rng(1).normal(size=(30, 20)).astype("float32")
    mean, variance = (as_numpy(x) for x in device.weight_moments(ops.array(w)))
    draws = np.stack(
        [
            as_numpy(
                device.read(device.program(ops.array(w), random.seed_from(i)), 0.0)
            )
            for i in range(150)
        ]
    )
    error = np.abs(draws.mean(0) - mean) / np.sqrt(variance / len(draws))
    assert error.max() < 5
    assert draws.var(0).mean() == pytest.approx(variance.mean(), rel=0.03)


# --- Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ir_drop": "exact"}, "needs the resistance of the wires"),
        ({"wire": (-1.0, 1.0), "ir_drop": "exact"}, "`wire` of Wired .*not negative"),
        ({"wire": (1.0,), "ir_drop": "exact"}, "must be the pair"),
        ({"ir_drop": "some", "wire": 1.0}, "ir_drop='some'"),
        ({"v_read": 0.0}, "`v_read` of Crossbar"),
        ({"t_read": -1e-7}, "`t_read` of Crossbar"),
        ({"rows": 0}, "`rows` of a tile"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Crossbar(Memristor(), **arguments)


def test_devices_that_are_no_conductances_are_refused():
    with pytest.raises(TypeError, match="conductances"):
        Crossbar(devices.SRAM(0.01))


def test_a_tile_too_large_for_the_closed_form_says_its_error():
    crossbar = Crossbar(EXACT, wire=2.5, ir_drop="closed_form")
    net = hwa_keras.to_hwa(model(400, 300), hardware=crossbar, verbose=0)
    with pytest.raises(
        ValueError, match="400 × 300 .*wrong by up to .*ir_drop='exact'"
    ):
        hwa_keras.program(net, device=None, seed=0)
