"""Compensation per tile and per column, against NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.analysis.drift import drift_axes
from hwa_keras.circuits import ADC, DAC
from hwa_keras.deployment import Compensation
from hwa_keras.results import Result
from tests import fresh

YEAR = 31_536_000.0
RNG = np.random.default_rng(0)
MEASURED = {
    "measured": (),
    "measured_columns": {"per": "column"},
    "measured_ideal": {"reference": "ideal"},
    "measured_columns_ideal": {"per": "column", "reference": "ideal"},
}


def mlp(tile=None, adc=None, dac=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(10, activation="relu"), layers.Dense(5)]
    )
    if tile is not None:
        hardware = hwa_keras.Hardware(tile=tile, adc=adc, dac=dac)
        hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    return model


def inputs():
    return RNG.normal(size=(40, 12)).astype("float32")


def numpy_gains(tile, compensation, t):
    """A gain per column of each tile, in float64."""
    axes = (-2,) if compensation.per == "column" else (-2, -1)
    kernel = tile.kernel()
    mask = np.ones(tile.shape) if not tile._cut else kernel.tiling.used()

    def mean(weights):
        total = np.sum(np.abs(np.asarray(weights, "float64")) * mask, axes)
        count = np.sum(mask, axes)
        return np.divide(total, count, np.zeros_like(total), where=count > 0)

    reference = tile.read(0.0)
    if compensation.reference == "ideal":
        reference = tile.targets.value
    now = mean(ops.convert_to_numpy(tile.read(t)))
    wanted = mean(ops.convert_to_numpy(reference))
    gains = np.divide(wanted, now, np.ones_like(now), where=now > 0)
    if compensation.per == "tile":
        gains = np.broadcast_to(gains[..., None], (*tile.shape[:-2], tile.shape[-1]))
    return gains


@pytest.mark.parametrize("name", MEASURED)
def test_names_are_short_forms(name):
    compensation = Compensation(**dict(MEASURED[name]))
    assert compensation.name == name
    model = mlp()
    chips = [
        hwa_keras.program(model, "pcm", 1, c, "off", verbose=0)
        for c in (name, compensation)
    ]
    for chip in chips:
        chip.t = YEAR
        assert chip.compensation == name
    x = inputs()
    np.testing.assert_array_equal(*(ops.convert_to_numpy(chip(x)) for chip in chips))


@pytest.mark.parametrize("tile", [None, (5, 4)], ids=["whole", "tiles"])
@pytest.mark.parametrize("name", list(MEASURED)[1:])
def test_gains_are_ratios_of_mean_magnitudes(name, tile):
    chip = hwa_keras.program(mlp(tile), "pcm", 3, name, "off", verbose=0)
    chip.t = YEAR
    for tile in chip.tiles:
        expected = numpy_gains(tile, tile.compensation, YEAR)
        found = ops.convert_to_numpy(tile.gain.value)
        if tile.compensation.per == "tile":
            found = np.broadcast_to(found[..., None], expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert np.std(expected) > 1e-3 or expected.size == 1 or "columns" not in name


@pytest.mark.parametrize("circuits", [False, True], ids=["weights", "after the ADC"])
def test_outputs_of_columns_are_scaled(circuits):
    converters = {"dac": DAC(12, range=8.0), "adc": ADC(14, range=8.0)}
    model = mlp((5, 4), **converters) if circuits else mlp()
    x = inputs()
    chip = hwa_keras.program(model, "pcm", 3, "measured_columns", "off", verbose=0)
    chip.t = YEAR
    a = x.astype("float64")
    for layer, tile in zip(chip.layers, chip.tiles, strict=True):
        gains = numpy_gains(tile, tile.compensation, YEAR)
        aged = np.asarray(tile.read(YEAR), "float64")
        if tile._cut:
            k, m, r, c = tile.shape
            weights = (aged * gains[:, :, None]).transpose(0, 2, 1, 3)
            rows, columns = layer.kernel.shape
            weights = weights.reshape(k * r, m * c)[:rows, :columns]
        else:
            weights = aged * gains
        a = a @ weights + layer.bias.numpy()
        a = np.maximum(a, 0) if layer is chip.layers[0] else a
    found = ops.convert_to_numpy(chip(x))
    tolerance = 1e-2 if circuits else 1e-5
    np.testing.assert_allclose(found, a, atol=tolerance * np.abs(a).max())
    np.testing.assert_allclose(
        ops.convert_to_numpy(chip(x, t=YEAR)), found, rtol=1e-5, atol=1e-6
    )


def test_an_ideal_reference_undoes_what_programming_did_to_the_scale():
    class Half(hwa_keras.devices.SimplePCM):
        def program(self, weights, seed):
            return {"weights": 0.5 * weights}

    model, x = mlp(), inputs()
    expected = model.predict(x, verbose=0)
    chip = hwa_keras.program(model, Half(), 1, "measured_ideal", verbose=0)
    np.testing.assert_allclose(chip.predict(x, verbose=0), expected, rtol=1e-4)
    chip.compensation = "measured"
    assert np.all(ops.convert_to_numpy(chip.tiles[0].gain.value) == 1)


def test_a_chip_changes_between_tiles_and_columns():
    model, x = mlp((5, 4), adc=ADC(8, range=4.0)), inputs()
    expected = {}
    names = ("measured", "measured_columns", "oracle", "none")
    for name in names:
        chip = hwa_keras.program(model, "pcm", 3, name, "off", verbose=0)
        chip.t = YEAR
        expected[name] = chip.predict(x, verbose=0)
    chip = hwa_keras.program(model, "pcm", 3, "measured", "off", verbose=0)
    chip.t = YEAR
    for name in (*names, "measured"):
        chip.compensation = name
        np.testing.assert_allclose(
            chip.predict(x, verbose=0), expected[name], rtol=1e-6, atol=1e-6
        )


def test_saved_chips_keep_their_gains(tmp_path):
    model, x = mlp((5, 4), adc=ADC(8, range=4.0)), inputs()
    chip = hwa_keras.program(model, "pcm", 3, "measured_columns", "frozen", verbose=0)
    chip.t = YEAR
    fresh.assert_loads_equal({"chip": chip}, {"chip": x}, tmp_path)
    loaded = keras.models.load_model(tmp_path / "chip.keras")
    assert loaded.compensation == "measured_columns"
    chip.t = loaded.t = 3600.0
    np.testing.assert_array_equal(*(ops.convert_to_numpy(c(x)) for c in (chip, loaded)))


@pytest.mark.tensorflow_only
def test_exported_chips_compensate_each_column(tmp_path):
    chip = hwa_keras.program(
        mlp((5, 4)), "pcm", 3, "measured_columns", "off", verbose=0
    )
    hwa_keras.export(chip, tmp_path / "chip")
    found = hwa_keras.verify_export(tmp_path / "chip", chip, inputs(), [0.0, YEAR])
    assert found < 1e-6


def test_a_sweep_takes_names_and_compensations():
    model, x = mlp(), inputs()
    model.compile(loss="mse")
    y = model.predict(x, verbose=0)
    compensations = ["measured", Compensation(per="column"), "measured_ideal"]
    found = hwa_keras.drift_sweep(
        model,
        "pcm",
        (x, y),
        times={"year": YEAR},
        chips=2,
        compensation=compensations,
        verbose=0,
    )
    names = ["measured", "measured_columns", "measured_ideal"]
    assert found.series == [(name,) for name in names]
    for name in names:
        chip = hwa_keras.program(model, "pcm", 1, name, "frozen", verbose=0)
        chip.t = YEAR
        loss = chip.evaluate(x, y, verbose=0)
        np.testing.assert_allclose(found.values(name, "year")[1], loss, rtol=1e-5)


def test_a_result_has_a_column_and_a_line_for_every_compensation():
    pytest.importorskip("matplotlib")
    names = ["none", "oracle", *MEASURED]
    samples = {(name, "year"): {i: {"loss": 0.5} for i in range(2)} for name in names}
    result = Result("mlp", "loss", drift_axes(names, {"year": YEAR}), samples)
    table = str(result)
    assert all(word in table for word in ("column", "targets"))  # Titles are wrapped.
    lines = [(a.get_linestyle(), a.get_marker()) for a in result.plot().lines]
    assert len(lines) == len(set(map(str, lines))) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "all"}, "kind='all'"),
        ({"per": "row"}, "per='row'"),
        ({"reference": "none"}, "reference='none'"),
        ({"kind": "oracle", "per": "column"}, "go with the kind 'measured'"),
    ],
)
def test_bad_input_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        Compensation(**arguments)
    with pytest.raises(ValueError, match="'measured_columns'"):
        hwa_keras.program(mlp(), "pcm", compensation="columns")
