"""`FilterBank` against SciPy's recursion, and the diagonal synapse behind it."""

import keras
import numpy as np
import pytest
import scipy.signal
from keras import ops

import hwa_keras
from hwa_keras.core import random
from hwa_keras.layers import HWAEinsumDense
from hwa_keras.quantizers import Uniform
from hwa_keras.spiking import FilterBank, Frontend
from hwa_keras.spiking.band_pass import band_edges
from tests import fresh

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(5)
XYLO = [
    40, 54, 77, 137, 203, 290, 428, 674, 1177, 1700, 2226, 3418, 5154, 7884, 11630,
    16940,
]  # fmt: skip


def reference(x, rate, frequencies, q=4.0, order=2, dt=8e-3):
    """Mean over bins of |filtered audio|, in float64 and by SciPy alone."""
    length, found = round(rate * dt), []
    x = x.astype("float64")[:, : x.shape[1] // length * length]
    for f, own in zip(frequencies, np.broadcast_to(q, len(frequencies)), strict=True):
        band = [f * (1 - 1 / (2 * own)), f * (1 + 1 / (2 * own))]
        sos = scipy.signal.butter(order, band, "bandpass", fs=rate, output="sos")
        y = np.abs(scipy.signal.sosfilt(sos, x))
        found.append(y.reshape(len(x), -1, length).mean(-1))
    return np.stack(found, -1)


def assert_near(found, expected):
    """Equal to a millionth of the largest output of the channel."""
    error = np.abs(ops.convert_to_numpy(found) - expected).max((0, 1))
    assert (error < 1e-6 * expected.max((0, 1))).all()


@pytest.mark.parametrize(("rate", "channels"), [(16000, 13), (8000, 12)])
def test_filters_are_those_of_scipy(rate, channels):
    bank = FilterBank(rate)
    x = RNG.normal(size=(3, rate)).astype("float32")
    expected = reference(x, rate, XYLO[:channels])
    assert expected.shape == (3, 125, channels)
    assert_near(bank(x), expected)
    np.testing.assert_allclose(bank.features(x, rate), expected, rtol=1e-6)
    assert bank.centre_frequencies == tuple(XYLO[:channels])
    assert bank.left_out == tuple(XYLO[channels:])


@pytest.mark.parametrize("order", [1, 3])
def test_other_bins_orders_frequencies_and_lengths(order):
    frequencies, dt = [100.0, 1000.0, 2500.0], 5e-3
    bank = FilterBank(8000, dt, frequencies, order, q=1.5)
    x = RNG.normal(size=(2, 1234)).astype("float32")  # 30 bins and 34 samples more.
    expected = reference(x, 8000, frequencies, 1.5, order, dt)
    assert expected.shape == (2, 30, 3)
    assert_near(bank(x), expected)
    # Without a length that is known when the graph is made.
    model = keras.Sequential([keras.Input((None,)), bank])
    assert model.output_shape == (None, None, 3)
    assert_near(model.predict(x, verbose=0), expected)
    alone = bank(x[:, :45])  # One bin: no state from before.
    assert_near(alone, expected[:, :1])


def test_a_tone_comes_out_of_its_channel():
    bank = FilterBank(16000)
    t = np.arange(16000) / 16000
    for channel in (4, 8, 12):
        x = np.sin(2 * np.pi * XYLO[channel] * t)[None].astype("float32")
        late = ops.convert_to_numpy(bank(x))[0, -20:].mean(0)
        assert late.argmax() == channel
        # Unit gain at the centre, and the mean of a rectified sine.
        assert late[channel] == pytest.approx(2 / np.pi, rel=0.02)


def test_gradients_are_those_of_the_recursion():
    frequencies = [300.0, 2000.0]
    bank = FilterBank(8000, 4e-3, frequencies)
    x = RNG.normal(size=(1, 96))
    _, (gradient,) = hwa_keras.backend.value_and_gradient(
        lambda tensors: (ops.sum(bank(tensors[0])), None),
        [ops.convert_to_tensor(x, dtype="float32")],
    )
    step = 1e-6
    for i in (0, 31, 32, 95):
        shifted = [x + sign * step * (np.arange(96) == i) for sign in (1, -1)]
        up, down = (reference(s, 8000, frequencies, dt=4e-3).sum() for s in shifted)
        assert float(gradient[0, i]) == pytest.approx((up - down) / 2 / step, rel=1e-3)


# --- Mismatch


def drawn(bank):
    by_name = {w.name: ops.convert_to_numpy(w.value) for w in bank.weights}
    return by_name["frequency"].astype("float64"), by_name["quality"].astype("float64")


def test_a_chip_has_frequencies_and_factors_of_its_own():
    frequencies = np.geomspace(50.0, 2000.0, 400)
    bank = FilterBank(
        16000, 1e-3, frequencies, frequency_mismatch=0.05, q_mismatch=0.1, chip_seed=1
    )
    f, q = drawn(bank)
    for relative, std in ((f / frequencies - 1, 0.05), (q / 4 - 1, 0.1)):
        assert abs(relative.mean()) < 4 * std / np.sqrt(400)
        assert abs(relative.std() - std) < 4 * std / np.sqrt(800)
    same = FilterBank(
        16000, 1e-3, frequencies, frequency_mismatch=0.05, q_mismatch=0.1, chip_seed=1
    )
    np.testing.assert_array_equal(drawn(same)[0], f)
    same.draw_chip(random.seed_from(2))
    assert not np.isin(drawn(same)[0], f).any()
    same.draw_chip(random.seed_from(1))
    np.testing.assert_array_equal(drawn(same)[0], f)


def test_a_chip_filters_with_what_it_has_drawn():
    bank = FilterBank(8000, frequency_mismatch=0.1, q_mismatch=0.1, chip_seed=3)
    x = RNG.normal(size=(2, 4000)).astype("float32")
    model = keras.Sequential([keras.Input((4000,)), bank])
    before = model.predict(x, verbose=0)
    bank.draw_chip(random.seed_from(4))
    f, q = drawn(bank)
    expected = reference(x, 8000, f, q)
    after = model.predict(x, verbose=0)  # Nothing is compiled again.
    assert_near(after, expected)
    np.testing.assert_allclose(bank.features(x, 8000), expected, rtol=1e-6)
    assert np.abs(after - before).max() > 0.01 * before.max()


def test_bands_of_a_bad_chip_stay_possible():
    bank = FilterBank(8000, frequency_mismatch=3.0, q_mismatch=3.0, chip_seed=3)
    for chip in range(5):
        bank.draw_chip(random.seed_from(chip))
        lower, upper = band_edges(*drawn(bank))
        assert (lower > 0).all() and (upper < 4000).all()
        assert np.isfinite(ops.convert_to_numpy(bank(np.ones((1, 800))))).all()


def test_chips_of_a_model_draw_their_own():
    bank = FilterBank(8000, frequency_mismatch=0.1, chip_seed=3)
    model = keras.Sequential([keras.Input((800,)), bank, keras.layers.Dense(2)])
    x = RNG.normal(size=(2, 800)).astype("float32")
    before = model.predict(x, verbose=0)
    nothing = hwa_keras.noise.ProcessVariation(0.0)
    outputs = [
        ops.convert_to_numpy(hwa_keras.program(model, nothing, seed=seed)(x))
        for seed in (1, 2, 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[2])
    for output in (outputs[1], before):
        assert np.abs(outputs[0] - output).max() > 1e-3 * np.abs(before).max()
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    ideal = FilterBank(8000)
    weights = [ops.convert_to_numpy(w.value) for w in ideal.weights]
    ideal.draw_chip(random.seed_from(1))
    for a, b in zip(weights, ideal.weights, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b.value))


# --- In models


def test_saves_and_loads_its_chip(tmp_path):
    bank = FilterBank(8000, frequency_mismatch=0.1)
    bank.draw_chip(random.seed_from(9))
    frontend = Frontend(kernel_quantizer=Uniform(levels=16, scale=0.9))
    model = keras.Sequential([keras.Input((800,)), bank, frontend])
    x = RNG.normal(size=(2, 800)).astype("float32")
    fresh.assert_loads_equal({"model": model}, {"model": x}, tmp_path)
    again = FilterBank.from_config(bank.get_config())
    assert again.get_config() == bank.get_config()


def test_trains_what_is_behind_it_in_mixed_precision():
    bank = FilterBank(8000, dtype="mixed_bfloat16")
    model = keras.Sequential(
        [keras.Input((800,)), bank, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    dtype = bank(np.ones((1, 800))).dtype
    assert keras.backend.standardize_dtype(dtype) == "bfloat16"
    model.compile("adam", "mse")
    x = RNG.normal(size=(16, 800)).astype("float32")
    losses = model.fit(x, np.ones((16, 2)), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not bank.trainable_weights


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_exports_with_built_in_operators_alone(tmp_path):
    frontend = Frontend(kernel_quantizer=Uniform(levels=16, scale=0.9))
    model = keras.Sequential([keras.Input((800,)), FilterBank(8000), frontend])
    chip = hwa_keras.program(model, hwa_keras.noise.ProcessVariation(0.1), seed=1)
    x = RNG.normal(size=(2, 800)).astype("float32")
    hwa_keras.export(chip, str(tmp_path / "chip"))
    for name, each in {"model": model, "chip": chip}.items():
        path = str(tmp_path / f"{name}.tflite")
        hwa_keras.export_tflite(each, path)
        expected = ops.convert_to_numpy(each(x))
        np.testing.assert_allclose(run_tflite(path, x), expected, atol=1e-6)


def run_tflite(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    serve = interpreter.get_signature_runner("serve")
    others = {n: np.float32(1) for n in serve.get_input_details() if n != "x"}
    return serve(x=x, **others)["output"]


@pytest.mark.parametrize(
    ("equation", "shape"), [("abcd,cd->abcd", (3, 4, 5)), ("...cd,cd->...cd", (4, 5))]
)
def test_einsums_without_sums_are_products(equation, shape):
    x, w = RNG.normal(size=(2, 3, 4, 5)).astype("float32"), RNG.normal(size=(4, 5))
    layer = HWAEinsumDense(equation, shape, kernel_quantizer="ste_sign")
    layer.build(x.shape)
    layer.kernel.assign(w)
    np.testing.assert_array_equal(layer(x), x * np.sign(w).astype("float32"))


def test_axes_before_those_that_are_elided_are_not_the_last():
    x, w = RNG.normal(size=(2, 3, 4)).astype("float32"), np.array([1.0, -1.0, 1.0])
    layer = HWAEinsumDense("ab...,b->ab...", 3, kernel_quantizer="ste_sign")
    layer.build(x.shape)
    layer.kernel.assign(w)
    np.testing.assert_array_equal(layer(x), x * w[:, None])


# --- The diagonal synapse


def test_frontend_multiplies_each_channel_by_its_weight():
    frontend = Frontend()
    x = RNG.normal(size=(2, 7, 500)).astype("float32")
    y = ops.convert_to_numpy(frontend(x))
    w = ops.convert_to_numpy(frontend.kernel)
    np.testing.assert_allclose(y, x * w, rtol=1e-6)
    assert abs(w.mean() - 0.1) < 4 * 0.01 / np.sqrt(500)
    assert abs(w.std() - 0.01) < 4 * 0.01 / np.sqrt(1000)


def test_frontend_is_an_array_of_one_row():
    frontend = Frontend(
        kernel_quantizer=Uniform(levels=16, scale=0.9),
        kernel_noise=hwa_keras.noise.SynapticMismatch(0.04, 0.9),
        noise_seed=3,
    )
    model = keras.Sequential([keras.Input((7, 13)), frontend])
    [kernel] = hwa_keras.hardware_kernels(model)
    assert kernel.view.matrix_shape == (1, 13)
    x = np.ones((1, 7, 13), "float32")
    exact = ops.convert_to_numpy(frontend(x))
    w = ops.convert_to_numpy(frontend.kernel).astype("float64")
    np.testing.assert_allclose(exact[0, 0], np.round(w / 0.06) * 0.06, atol=1e-6)
    noisy = ops.convert_to_numpy(frontend(x, training=True))
    assert 0 < np.abs(noisy - exact).max() < 5 * 0.036
    chip = hwa_keras.program(model, "pcm", seed=1)
    assert np.abs(ops.convert_to_numpy(chip(x)) - exact).max() > 0
    hwa_keras.to_digital(model)
    assert type(model.layers[0]) is keras.layers.EinsumDense
    np.testing.assert_allclose(model(x)[0, 0], w, rtol=1e-6)


def test_frontend_keeps_its_configuration_and_takes_converters():
    frontend = Frontend(
        kernel_regularizer=hwa_keras.spiking.WeightMagnitude(0.5),
        input_quantizer=hwa_keras.circuits.DAC(8, 1.0),
    )
    again = Frontend.from_config(frontend.get_config())
    assert again.get_config() == frontend.get_config()
    x = RNG.uniform(size=(1, 2, 3)).astype("float32")
    y = ops.convert_to_numpy(again(x)) / ops.convert_to_numpy(again.kernel)
    np.testing.assert_allclose(y * 127, np.round(x * 127), atol=1e-3)


# --- Bad input


def test_audio_of_another_rate_names_both():
    bank = FilterBank(16000)
    x = np.zeros((1, 8000), "float32")
    for call in (bank, bank.features):
        with pytest.raises(ValueError, match="audio of 16000 Hz.*audio of 8000 Hz"):
            call(x, sample_rate=8000)
    with pytest.raises(ValueError, match="audio of 16000 Hz.*audio of 8000 Hz"):
        bank(keras.KerasTensor((None, 8000)), sample_rate=8000)
    assert bank(x, sample_rate=16000).shape == (1, 62, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_rate": 0}, "`sample_rate` of FilterBank must be a positive"),
        (
            {"dt": 1e-4 / 3},
            "`dt` of FilterBank must be a whole.*0.26.* samples at",
        ),
        ({"q": 0.5}, "`q` of FilterBank must be above 0.5.*q=0.5"),
        ({"order": 0}, "`order` of FilterBank must be an integer ≥ 1.*order=0"),
        ({"frequencies": [200, 100]}, "must be a list of ascending.*200.*100"),
        ({"frequencies": []}, "must be a list of ascending"),
        ({"frequencies": [-5, 100]}, "`frequencies` of FilterBank must be a positive"),
        ({"frequencies": [5000]}, "reaches 5625 Hz.*below 4000 Hz alone"),
        ({"q_mismatch": -1}, "`q_mismatch` of FilterBank must be a finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FilterBank(**{"sample_rate": 8000, **arguments})


def test_bad_audio_is_named():
    bank = FilterBank(8000, name="ear")
    with pytest.raises(ValueError, match=r"'ear' takes audio \[batch, samples\].*8, 1"):
        bank(np.zeros((1, 8, 1)))
    with pytest.raises(ValueError, match="'ear'.*a bin, 64 samples. Received 63"):
        bank(np.zeros((1, 63)))
