"""calibrate: ranges from a few batches, compared with NumPy."""

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.circuits import ADC, DAC
from hwa_keras.deployment import calibration


def inputs(n=400, features=12):
    return np.random.default_rng(0).normal(size=(n, features)).astype("float32")


def converted(tile=None, per="tile", dac="calibrated"):
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(8, activation="relu")]
    )
    hardware = hwa_keras.Hardware(
        dac=DAC(8, range=dac), adc=ADC(8, range="calibrated", per=per), tile=tile
    )
    return hwa_keras.to_hwa(model, hardware=hardware, verbose=0)


def sums_by_tile(x, w, rows):
    """|x_k · W_k| of each row tile, `[n, K, C]`, in float64."""
    starts = range(0, len(w), rows)
    parts = [x[:, i : i + rows].astype("float64") @ w[i : i + rows] for i in starts]
    return np.abs(np.stack(parts, axis=1))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("max", np.max),
        ("quantile", lambda a: np.quantile(a, 0.9999)),
        ("std", lambda a: 3 * np.sqrt(np.mean(np.square(a)))),
    ],
)
def test_the_input_range_is_a_statistic_of_the_magnitudes(method, expected):
    model, x = converted(), inputs()
    hwa_keras.calibrate(model, x, method)
    [kernel] = hwa_keras.hardware_kernels(model)
    found = keras.ops.convert_to_numpy(kernel.dac.input_range)
    np.testing.assert_allclose(found, expected(np.abs(x)), rtol=1e-5)


@pytest.mark.parametrize("per", ["layer", "tile", "column"])
def test_output_ranges_are_those_of_tiles_columns_or_the_layer(per):
    model, x = converted(tile=(5, 3), per=per), inputs()
    hwa_keras.calibrate(model, x, "max")
    [kernel] = hwa_keras.hardware_kernels(model)
    largest = sums_by_tile(x, model.layers[0].kernel.numpy(), 5).max(axis=0)
    expected = {
        "layer": largest.max(),
        "column": largest,
        "tile": np.stack(
            [largest[:, i : i + 3].max(axis=1) for i in (0, 3, 6)], axis=1
        ),
    }[per]
    found = keras.ops.convert_to_numpy(kernel.adc.output_range)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_behind_calibrated_converters_of_many_bits_outputs_stay():
    x = inputs()
    model = converted(tile=(5, 3), per="column")
    expected = np.maximum(x @ model.layers[0].kernel.numpy(), 0)
    hwa_keras.calibrate(model, x, "max")
    found = model.predict(x, verbose=0)
    # 8 bits in and out: half a step of each of three partial sums, and of the inputs.
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_recurrent_layer_is_calibrated_at_each_time_step():
    model = keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(5)])
    x = np.random.default_rng(0).normal(size=(50, 7, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    hardware = hwa_keras.Hardware(
        dac=DAC(12, range="calibrated"), adc=ADC(12, range="calibrated")
    )
    hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    hwa_keras.calibrate(model, x, "max")
    inputs_range, state_range = (
        float(k.dac.input_range) for k in hwa_keras.hardware_kernels(model)
    )
    np.testing.assert_allclose(inputs_range, np.abs(x).max(), rtol=1e-5)
    assert state_range < 1  # |h| < 1 in an LSTM.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=5e-3)


def test_a_chip_is_calibrated_on_what_its_devices_hold():
    x = inputs()
    chip = hwa_keras.program(converted(dac=4.0), "pcm", seed=0, read_noise="off")
    with pytest.raises(ValueError, match="calibrate"):
        chip.predict(x, verbose=0)
    chip.t = 31_536_000.0
    hwa_keras.calibrate(chip, x, "max")
    drifted = np.abs(x @ chip.layers[0].kernel.numpy()).max()
    [kernel] = hwa_keras.hardware_kernels(chip)
    found = keras.ops.convert_to_numpy(kernel.adc.output_range)
    np.testing.assert_allclose(found, [[drifted]], rtol=1e-5)


def test_what_was_trained_stays_and_learned_ranges_begin_there():
    model, x = converted(dac="learned"), inputs()
    before = model.layers[0].kernel.numpy()
    hwa_keras.calibrate(model, x, "max")
    [kernel] = hwa_keras.hardware_kernels(model)
    np.testing.assert_allclose(
        float(kernel.dac.input_range), np.abs(x).max(), rtol=1e-5
    )
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), before)


def test_bad_input_is_told():
    model, x = converted(), inputs()
    for settings, message in (
        ({"method": "median"}, "method"),
        ({"quantile": 1.5}, "quantile"),
        ({"quantile": 0.0}, "quantile"),
        ({"stds": -1.0}, "stds"),
        ({"batches": True}, "batches"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            hwa_keras.calibrate(model, x, **settings)
    bad = x.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        hwa_keras.calibrate(model, bad)
    plain = keras.Sequential([keras.Input((12,)), keras.layers.Dense(8)])
    with pytest.raises(ValueError, match="No converter"):
        hwa_keras.calibrate(plain, x)


def test_of_many_inputs_no_channel_is_left_out(monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_OF_ALL", 2 * 100 * 12)
    model, x = converted(), inputs()
    x[:, 5] = 9.0  # Every fourth value would miss it.
    hwa_keras.calibrate(model, x, "max", batches=1, batch_size=400)
    [kernel] = hwa_keras.hardware_kernels(model)
    assert float(kernel.dac.input_range) == 9.0
