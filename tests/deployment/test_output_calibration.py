"""calibrate_outputs: gains and offsets by least squares, compared with NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.circuits import ADC, DAC
from hwa_keras.deployment import output_calibration
from hwa_keras.deployment.output_calibration import fitted
from tests import fresh

pytestmark = pytest.mark.slow

YEAR = 31_536_000.0
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def test_the_fit_is_ridge_regression_towards_a_gain_of_one():
    """min Σ(a·z + o − y)² + n·λ·(a − 1)², as lstsq solves it."""
    z, y = normal(500, 4), normal(500, 4)
    y[:, 0] += 3 * z[:, 0]
    z[:, 2] *= 1e-3
    ridge = 1e-3 * np.var(z.astype("float64"), axis=0).mean()
    gain, offset = fitted(z, y)
    weight = np.sqrt(len(z) * ridge)
    for c in range(4):
        rows = np.stack([z[:, c], np.ones(500)], axis=1)
        rows = np.concatenate([rows, [[weight, 0.0]]])
        wanted = np.append(y[:, c], weight)
        expected = np.linalg.lstsq(rows.astype("float64"), wanted, rcond=None)[0]
        np.testing.assert_allclose([gain[c], offset[c]], expected, rtol=1e-4, atol=1e-6)


def test_columns_without_signal_keep_a_gain_of_one():
    z, y = normal(500, 3), normal(500, 3)
    z[:, 1], z[:, 2] = 4.0, 1e-7 * z[:, 2]
    gain, offset = fitted(z, y)
    assert gain[1] == 1 and abs(gain[2] - 1) < 1e-2
    np.testing.assert_allclose(offset[1], y[:, 1].mean() - 4.0, rtol=1e-5)
    gain, _ = fitted(np.ones((5, 3)), normal(5, 3))
    np.testing.assert_array_equal(gain, 1.0)


def mlp():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, activation="relu"), layers.Dense(5)]
    )


def aged(model, compensation="none", read_noise="off", **kwargs):
    chip = hwa_keras.program(
        model, "pcm", 1, compensation, read_noise, verbose=0, **kwargs
    )
    chip.t = YEAR
    return chip


def corrections(chip):
    found = [k.correction for k in hwa_keras.hardware_kernels(chip)]
    return [[ops.convert_to_numpy(v.value) for v in (c.gain, c.offset)] for c in found]


def test_each_layer_is_fitted_on_what_the_corrected_ones_before_it_give():
    model, x = mlp(), normal(300, 12)
    model.layers[0].bias.assign(normal(16))
    chip = aged(model)
    hwa_keras.calibrate_outputs(chip, x, model)
    a = h = x.astype("float64")
    for layer, own, (gain, offset) in zip(
        model.layers, chip.layers, corrections(chip), strict=True
    ):
        y, z = a @ layer.kernel.numpy(), h @ own.kernel.numpy()
        expected = fitted(z, y)
        np.testing.assert_allclose(gain, expected[0], rtol=1e-4)
        np.testing.assert_allclose(offset, expected[1], rtol=1e-3, atol=1e-4)
        a, h = (np.maximum(v + layer.bias.numpy(), 0) for v in (y, gain * z + offset))
    found = ops.convert_to_numpy(chip(x))
    expected = gain * z + offset + model.layers[1].bias.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_of_many_products_evenly_spaced_ones_are_fitted(monkeypatch):
    monkeypatch.setattr(output_calibration, "_MOST_OF_ALL", 50 * (16 + 5))
    model, x = mlp(), normal(300, 12)
    chip = aged(model)
    hwa_keras.calibrate_outputs(chip, x, model)
    kept = x[::6].astype("float64")  # 50 of 300.
    z = kept @ chip.layers[0].kernel.numpy()
    expected = fitted(z, kept @ model.layers[0].kernel.numpy())
    gain, offset = corrections(chip)[0]
    np.testing.assert_allclose(gain, expected[0], rtol=1e-4)
    np.testing.assert_allclose(offset, expected[1], rtol=1e-3, atol=1e-4)


def test_a_language_model_comes_closer_to_its_software():
    keras_hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
    )
    for weight in backbone.weights:  # Larger, so that logits depend on them.
        weight.assign(3 * weight)
    model = keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)
    tokens = RNG.integers(0, 30, size=(24, 12))
    x = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    calibration, held_out = (
        {name: values[part] for name, values in x.items()}
        for part in (slice(0, 16), slice(16, 24))
    )
    chip = aged(model)
    expected = ops.convert_to_numpy(model(held_out))

    def error():
        return np.std(ops.convert_to_numpy(chip(held_out)) - expected)

    before = error()
    hwa_keras.calibrate_outputs(chip, calibration, model)
    assert error() < 0.6 * before
    np.testing.assert_array_equal(ops.convert_to_numpy(model(held_out)), expected)


FAMILIES = {
    "einsum": ((6, 5), lambda: layers.EinsumDense("abc,dce->abde", (None, 3, 4))),
    "conv1d": ((9, 3), lambda: layers.Conv1D(4, 3)),
    "groups": ((7, 7, 4), lambda: layers.Conv2D(6, 3, groups=2)),
    "depthwise": ((7, 7, 3), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable": ((7, 7, 3), lambda: layers.SeparableConv2D(4, 3)),
    "transposed": ((5, 5, 3), lambda: layers.Conv2DTranspose(4, 3, strides=2)),
    "lstm": ((6, 3), lambda: layers.LSTM(5)),
    "twice": ((8,), lambda: Twice()),
}


class Twice(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(8, activation="tanh")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(self.dense(x))


@pytest.mark.parametrize(
    ("family", "tile"),
    [
        *((f, None) for f in FAMILIES if f not in ("separable", "lstm")),
        ("separable", (8, 3)),
        ("lstm", (2, 3)),
    ],
)
def test_all_products_come_closer_to_the_software_model(family, tile):
    keras.utils.set_random_seed(0)
    shape, build = FAMILIES[family]
    model = keras.Sequential([keras.Input(shape), build()])
    x = normal(100, *shape)
    expected = model.predict(x, verbose=0)
    if tile is not None:
        hardware = hwa_keras.Hardware(tile=tile, dac=DAC(10, range=8.0))
        hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    chip = aged(model)

    def error():
        return np.mean((chip.predict(x, verbose=0) - expected) ** 2)

    before = error()
    hwa_keras.calibrate_outputs(chip, x, model)
    assert error() < 0.3 * before
    for gain, _ in corrections(chip):
        assert np.all(gain > 0.9)


def test_behind_an_adc_the_columns_of_tiles_are_corrected_and_the_bias_is_not():
    model, x = mlp(), normal(300, 12)
    hardware = hwa_keras.Hardware(
        dac=DAC(8, range=4.0), adc=ADC(8, range=4.0), tile=(5, 4), bias="analog"
    )
    hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    expected = model.predict(x, verbose=0)
    chip = aged(model)
    before = np.std(chip.predict(x, verbose=0) - expected)
    hwa_keras.calibrate_outputs(chip, x, model)
    assert np.std(chip.predict(x, verbose=0) - expected) < 0.5 * before
    last = hwa_keras.hardware_kernels(chip)[-2]
    raw = ops.convert_to_numpy(chip(x))
    last.correction.gain.assign(2 * last.correction.gain)
    last.correction.offset.assign(2 * last.correction.offset)
    np.testing.assert_allclose(ops.convert_to_numpy(chip(x)), 2 * raw, rtol=1e-5)


@pytest.mark.parametrize("read_noise", ["frozen", "per_call"])
def test_it_is_taken_back_to_the_bit(read_noise):
    model, x = mlp(), normal(300, 12)
    chip = aged(model, read_noise=read_noise)
    kernels = [k.copy() for k in (layer.kernel.numpy() for layer in chip.layers)]
    before = ops.convert_to_numpy(chip(x))
    hwa_keras.calibrate_outputs(chip, x, model)
    assert np.abs(ops.convert_to_numpy(chip(x)) - before).max() > 0.1
    for layer, kernel in zip(chip.layers, kernels, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy(), kernel)
    chip.reset()
    if read_noise != "per_call":
        np.testing.assert_array_equal(ops.convert_to_numpy(chip(x)), before)
    hwa_keras.calibrate_outputs(chip, x, model)
    chip.write(1)
    assert all(np.all(gain == 1) for gain, _ in corrections(chip))
    np.testing.assert_array_equal(corrections(chip)[0][1], 0.0)


def test_where_reads_differ_the_mean_of_many_is_fitted():
    model, x = mlp(), normal(300, 12)
    chip = aged(model, read_noise="per_call")
    hwa_keras.calibrate_outputs(chip, x, model)
    exact = aged(model, read_noise="off")
    # The gain against drift was measured with read noise: the fit is of the product.
    assert not hwa_keras.hardware_kernels(exact)[0].correction
    hwa_keras.calibrate_outputs(exact, x, model)
    for (gain, _), (other, _) in zip(
        corrections(chip), corrections(exact), strict=True
    ):
        np.testing.assert_allclose(gain, other, rtol=1e-4)


def test_saved_chips_have_their_corrections(tmp_path):
    model, x = mlp(), normal(300, 12)
    chip = aged(model, read_noise="frozen")
    hwa_keras.calibrate_outputs(chip, x, model)
    fresh.assert_loads_equal({"chip": chip}, {"chip": x}, tmp_path)


@pytest.mark.tensorflow_only
def test_exported_chips_have_their_corrections(tmp_path):
    model, x = mlp(), normal(300, 12)
    chip = aged(model)
    hwa_keras.calibrate_outputs(chip, x, model)
    hwa_keras.export(chip, tmp_path / "chip")
    times = [1.0, YEAR]
    assert hwa_keras.verify_export(tmp_path / "chip", chip, x, times=times) < 1e-6


def test_data_may_be_batches_of_pairs_and_more_than_is_used():
    model, x = mlp(), normal(300, 12)
    chips = [aged(model), aged(model)]
    hwa_keras.calibrate_outputs(chips[0], x[:250], model)
    batches = [(x[i : i + 100], np.zeros(100)) for i in (0, 100, 200)]
    hwa_keras.calibrate_outputs(chips[1], iter(batches), model, examples=250)
    for own, other in zip(*map(corrections, chips), strict=True):
        np.testing.assert_allclose(own[0], other[0], rtol=1e-5)


def trained_cnn():
    data = hwa_keras.datasets.load("digits")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(*data.train, batch_size=64, epochs=8, verbose=0)
    return model, data


@pytest.mark.slow
def test_after_a_year_a_network_without_batch_norm_recovers_in_a_sweep():
    model, data = trained_cnn()
    device = hwa_keras.devices.PCM(programming_scale=2.0, drift_scale=2.0)
    settings = {"times": {"year": YEAR}, "chips": 3, "compensation": "measured"}

    def accuracy(**kwargs):
        found = hwa_keras.drift_sweep(
            model, device, data.test, verbose=0, **settings, **kwargs
        )
        return found.estimate("measured", "year").mean

    software = model.evaluate(*data.test, verbose=0)[1]
    plain = accuracy()
    calibrated = accuracy(calibration=data.train[0][:300], calibrate="outputs")
    assert software - plain > 0.02
    assert software - calibrated < 0.5 * (software - plain)


def test_a_sweep_calibrates_each_chip_as_one_by_one():
    model, x = mlp(), normal(200, 12)
    y = model.predict(x, verbose=0)
    model.compile(loss="mse")
    device = hwa_keras.devices.PCM()
    found = hwa_keras.drift_sweep(
        model, device, (x, y), times=[1.0, YEAR], chips=2, compensation="measured",
        calibration=x, calibrate="outputs", verbose=0,
    )  # fmt: skip
    for seed, loss in enumerate(found.values("measured", "3.1536e+07 s")):
        chip = hwa_keras.program(model, device, seed, read_noise="frozen", verbose=0)
        chip.t = YEAR
        hwa_keras.calibrate_outputs(chip, x, model)
        np.testing.assert_allclose(loss, chip.evaluate(x, y, verbose=0), rtol=1e-5)
    shares = hwa_keras.monte_carlo(
        model, device, (x, y), chips=2, verbose=0, calibration=x, calibrate="outputs"
    )
    assert shares.values().shape == (2,)


def test_bad_input_is_told():
    model, x = mlp(), normal(100, 12)
    chip = aged(model)
    other = keras.Sequential([keras.Input((12,)), layers.Dense(5)])
    bad = x.copy()
    bad[3, 2] = np.nan
    for arguments, message in (
        ((model, x, model), "`chip`"),
        ((chip, x, chip), "`model`"),
        ((chip, x, other), "other kernels"),
        ((chip, x[:0], model), "empty"),
        ((chip, iter(()), model), "empty"),
        ((chip, bad, model), "NaN"),
        ((chip, x, model, 0), "examples"),
    ):
        with pytest.raises(ValueError, match=message):
            hwa_keras.calibrate_outputs(*arguments)
    with pytest.raises(TypeError, match="batches"):
        hwa_keras.calibrate_outputs(chip, 3, model)
    model.compile(loss="mse")
    data = x, np.zeros((100, 5))
    with pytest.raises(ValueError, match="`calibrate` of a study"):
        hwa_keras.drift_sweep(model, "pcm", data, calibration=x, calibrate="all")
    with pytest.raises(ValueError, match="`calibration` is missing"):
        hwa_keras.drift_sweep(model, "pcm", data, calibrate="outputs")
    model.layers[0].kernel.assign(np.full((12, 16), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        hwa_keras.calibrate_outputs(chip, x, model)
