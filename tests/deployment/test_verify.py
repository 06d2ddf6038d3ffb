"""Closed-loop programming: write, read, and write again what is off."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import devices
from hwa_keras.core import random
from hwa_keras.deployment import programming
from hwa_keras.devices import PCM, SimplePCM
from hwa_keras.noise import MultiplicativeGaussian
from tests import fresh

pytestmark = pytest.mark.slow

YEAR = 31_536_000.0
SIZE = 200


def half():
    """A kernel of 0.5, with one weight of 1 that tells the range."""
    model = keras.Sequential([keras.Input((SIZE,)), layers.Dense(SIZE, use_bias=False)])
    kernel = np.full((SIZE, SIZE), 0.5, "float32")
    kernel[0, 0] = 1.0
    model.layers[0].kernel.assign(kernel)
    return model


def written(tile):
    return ops.convert_to_numpy(tile.read(0.0)).astype("float64")


def errors(device, **kwargs):
    chip = hwa_keras.program(half(), device, 5, verbose=0, **kwargs)
    [tile] = chip.tiles
    return np.delete((written(tile) - ops.convert_to_numpy(tile.targets)).ravel(), 0)


def rejection_sampling(std, rounds, tolerance, count):
    rng = np.random.default_rng(0)
    found = rng.normal(0, std, count)
    for _ in range(rounds):
        off = np.abs(found) > tolerance
        found[off] = rng.normal(0, std, off.sum())
    return found


@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_errors_are_those_of_rejection_sampling(rounds):
    device, tolerance = SimplePCM(programming_scale=2.0), 0.03
    start = errors(device)
    std = start.std()
    found = errors(device, verify=rounds, tolerance=tolerance)
    off = np.mean(np.abs(start) > tolerance)
    assert off > 0.3
    # A weight is off after n rounds if n + 1 draws were.
    expected = off ** (rounds + 1)
    uncertainty = np.sqrt(expected / found.size) + (rounds + 1) * off**rounds * np.sqrt(
        off * (1 - off) / found.size
    )
    assert abs(np.mean(np.abs(found) > tolerance) - expected) < 5 * uncertainty
    sampled = rejection_sampling(std, rounds, tolerance, 1_000_000)
    for power in (1, 2, 4):
        one, other = found**power, sampled**power
        uncertainty = np.std(one) / np.sqrt(one.size)
        # The deviation of one draw is known to 1/√(2n) itself.
        uncertainty += power * np.mean(np.abs(other)) / np.sqrt(2 * start.size)
        assert abs(one.mean() - other.mean()) < 5 * uncertainty


def test_devices_within_the_tolerance_are_left_alone():
    model = half()
    chips = [
        hwa_keras.program(model, "pcm", 5, verify=n, tolerance=0.02, verbose=0)
        for n in (0, 1)
    ]
    [before], [after] = (chip.tiles for chip in chips)
    off = np.abs(written(before) - ops.convert_to_numpy(before.targets)) > 0.02
    assert 0.1 < off.mean() < 0.9
    for name in ("g", "nu"):
        one, other = (
            ops.convert_to_numpy(t.state[name].value) for t in (before, after)
        )
        # Two graphs, which XLA may round in their own ways.
        changed = np.any(~np.isclose(one, other, rtol=1e-5, atol=1e-6), axis=0)
        np.testing.assert_array_equal(changed & ~off, False)
        assert np.mean(changed[off]) > 0.9
    gain = np.mean(np.abs(written(after)))
    np.testing.assert_allclose(float(after.reference.value), gain, rtol=1e-5)


MAPPINGS = [
    devices.Pairs(),
    devices.Pairs(significance=(1.0, 1.0)),
    devices.BitSlices(8, 2),
    devices.OffsetColumn(),
]


@pytest.mark.parametrize("shape", [(7, 5), (1, 12)])
@pytest.mark.parametrize("mapping", MAPPINGS, ids=repr)
def test_all_that_holds_a_weight_is_written_again(mapping, shape):
    model = keras.Sequential([keras.Input(shape[:1]), layers.Dense(shape[1])])
    rng = np.random.default_rng(0)
    model.layers[0].kernel.assign(rng.uniform(-1, 1, shape))
    device = PCM(programming_scale=2.0, mapping=mapping)
    off = []
    for rounds in (0, 40):
        chip = hwa_keras.program(
            model, device, 0, verify=rounds, tolerance=0.04, verbose=0
        )
        [tile] = chip.tiles
        targets = ops.convert_to_numpy(tile.targets)
        limit = 0.04 * np.abs(targets).max() + 1e-6
        off.append(np.sum(np.abs(written(tile) - targets) > limit))
    # The column that others are read against is not written again.
    assert off[0] > 0
    assert off[1] == 0 if mapping.is_independent else off[1] < off[0] / 2


@pytest.mark.parametrize("device", [PCM(), SimplePCM(), MultiplicativeGaussian(0.1)])
def test_without_rounds_the_state_is_what_the_device_gives(device):
    chip = hwa_keras.program(half(), device, 5, verify=0, verbose=0)
    [tile] = chip.tiles
    seed = random.fold_in(random.fold_in(random.seed_from(5), 0), 0)
    state = tile.device.program(tile.targets.value, seed)
    for name, values in state.items():
        np.testing.assert_allclose(tile.state[name].value, values, rtol=1e-6, atol=1e-7)


def mlp():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(10, activation="relu"), layers.Dense(5)]
    )
    hardware = hwa_keras.Hardware(tile=(5, 4))
    return hwa_keras.to_hwa(model, hardware=hardware, verbose=0)


def inputs():
    return np.random.default_rng(0).normal(size=(40, 12)).astype("float32")


def test_a_chip_that_keeps_no_state_makes_the_same_again(monkeypatch, tmp_path):
    model, x = mlp(), inputs()
    outputs, chips = [], {}
    for most in (2**24, 0):
        monkeypatch.setattr(programming, "_MOST_KEPT", most)
        chip = hwa_keras.program(
            model, "pcm", 1, read_noise="off", verify=3, tolerance=0.03, verbose=0
        )
        assert chip.tiles[0].keeps_state == (most > 0)
        chip.t = YEAR
        outputs.append(ops.convert_to_numpy(chip(x)))
        np.testing.assert_allclose(
            ops.convert_to_numpy(chip(x, t=YEAR)), outputs[-1], rtol=1e-5, atol=1e-6
        )
        chips[f"most_{most}"] = chip
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    fresh.assert_loads_equal(chips, dict.fromkeys(chips, x), tmp_path)
    loaded = keras.models.load_model(tmp_path / "most_0.keras")
    loaded.t = 3600.0
    chip.t = 3600.0
    np.testing.assert_array_equal(*(ops.convert_to_numpy(c(x)) for c in (chip, loaded)))


@pytest.mark.tensorflow_only
def test_exported_chips_were_verified(monkeypatch, tmp_path):
    settings = {"read_noise": "off", "verify": 3, "verbose": 0}
    monkeypatch.setattr(programming, "_MOST_KEPT", 0)
    chip = hwa_keras.program(mlp(), "pcm", 1, **settings)
    hwa_keras.export(chip, tmp_path / "chip")
    found = hwa_keras.verify_export(tmp_path / "chip", chip, inputs(), [0.0, YEAR])
    assert found < 1e-5
    with pytest.raises(ValueError, match="TensorFlow Lite cannot"):
        hwa_keras.export_tflite(chip, tmp_path / "chip.tflite")


def test_sweeps_verify_as_program_does():
    model, x = mlp(), inputs()
    y = model.predict(x, verbose=0)
    model.compile(loss="mse")
    settings = {"verify": 20, "verify_tolerance": 0.01}
    times = {"start": 0.0, "year": YEAR}
    options = {"chips": 3, "read_noise": "off", "verbose": 0}
    found, plain = (
        hwa_keras.drift_sweep(
            model, "pcm", (x, y), times=times, compensation="none", **options, **s
        ).values("none", "start")
        for s in (settings, {})
    )
    assert found.mean() < 0.3 * plain.mean()
    chip = hwa_keras.program(
        model, "pcm", 1, "none", "off", verify=20, tolerance=0.01, verbose=0
    )
    np.testing.assert_allclose(found[1], chip.evaluate(x, y, verbose=0), rtol=1e-5)
    noise = MultiplicativeGaussian(0.1)
    shares = [
        hwa_keras.monte_carlo(model, noise, (x, y), chips=3, verbose=0, **s)
        .estimate()
        .mean
        for s in (settings, {})
    ]
    assert shares[0] < 0.5 * shares[1]


def test_bad_input_is_told():
    for arguments, message in (
        ({"verify": -1}, "verify=-1"),
        ({"verify": True}, "verify=True"),
        ({"verify": 1.5}, "verify=1.5"),
        ({"verify": 1, "tolerance": 0.0}, "tolerance=0.0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
    ):
        with pytest.raises(ValueError, match=message):
            hwa_keras.program(mlp(), "pcm", **arguments)
