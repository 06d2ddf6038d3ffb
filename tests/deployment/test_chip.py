import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.devices import PCM, SimplePCM
from tests import fresh, zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")

YEAR = 31_536_000.0
PERFECT = PCM(programming_scale=0, drift_scale=0, read_scale=0)


def outputs(model, x, **kwargs):
    return ops.convert_to_numpy(model(x, **kwargs))


def kernels(chip):
    return [ops.convert_to_numpy(t.kernel().variable.value) for t in chip.tiles]


# JAX compiles each shape of kernel, which takes long for those of many.
FEW_SHAPES = (zoo.mlp, zoo.nested)
MODELS = [
    build if build in FEW_SHAPES else pytest.param(build, marks=pytest.mark.slow)
    for build in zoo.SMALL
]


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_a_perfect_chip_computes_what_the_model_computes(build):
    model = build()
    x = zoo.inputs_for(model)
    chip = hwa_keras.program(model, PERFECT, seed=1)
    chip.t = YEAR
    expected = outputs(model, x, training=False)
    np.testing.assert_allclose(outputs(chip, x), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_programmed_once():
    model = zoo.mlp()
    x = zoo.inputs_for(model)
    a, b, c = (hwa_keras.program(model, PCM(read_scale=0), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(outputs(a, x), outputs(a, x))
    for first, same, other in zip(kernels(a), kernels(b), kernels(c), strict=True):
        np.testing.assert_array_equal(first, same)
        assert np.mean(first != other) > 0.99


def test_the_chip_keeps_its_weights_when_the_model_trains_on():
    model = zoo.mlp()
    x = zoo.inputs_for(model)
    chip = hwa_keras.program(model, PCM(read_scale=0), seed=1)
    before = outputs(chip, x)
    for weight in model.weights:
        weight.assign(weight + 1.0)
    np.testing.assert_array_equal(outputs(chip, x), before)


def test_an_hwa_model_is_programmed_as_quantized_and_skipped_layers_stay_digital():
    model = zoo.mlp()
    hwa = hwa_keras.to_hwa(model, "ste_sign", skip="last", verbose=0)
    chip = hwa_keras.program(hwa, PERFECT, seed=1)
    assert len(chip.tiles) == 2
    for kernel in kernels(chip):
        np.testing.assert_allclose(np.abs(kernel), 1.0, rtol=1e-6)
    assert "not converted" in dict(chip.digital).values()
    x = zoo.inputs_for(model)
    np.testing.assert_allclose(outputs(chip, x), outputs(hwa, x), rtol=1e-4, atol=1e-5)


def one_layer(use_bias=True):
    model = keras.Sequential(
        [keras.Input((40,)), keras.layers.Dense(30, use_bias=use_bias)]
    )
    if use_bias:
        model.layers[0].bias.assign(np.arange(30.0))
    return model


@pytest.mark.parametrize("t", [0.0, 1.0, 3600.0, YEAR])
def test_simple_pcm_oracle_undoes_drift_and_leaves_the_bias_alone(t):
    model = one_layer()
    device = SimplePCM(programming_scale=0)
    x = np.random.default_rng(0).normal(size=(5, 40)).astype("float32")
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    drift = 1.0 if t <= 20 else (t / 20) ** -0.05
    for compensation, factor in (("none", drift), ("oracle", 1), ("measured", 1)):
        chip = hwa_keras.program(model, device, seed=1, compensation=compensation)
        chip.t = t
        expected = x @ kernel * factor + np.arange(30.0)
        np.testing.assert_allclose(outputs(chip, x), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(outputs(chip, x), outputs(chip, x, t=t))


def test_measured_gain_is_the_ratio_of_mean_magnitudes():
    """Global drift compensation against a NumPy transcription, for each tile."""
    chip = hwa_keras.program(zoo.mlp(), "pcm", seed=3, read_noise="off")
    written = kernels(chip)
    chip.compensation = "none"
    chip.t = YEAR
    aged = kernels(chip)
    chip.compensation = "measured"
    for tile, before, after, kernel in zip(
        chip.tiles, written, aged, kernels(chip), strict=True
    ):
        gain = np.mean(np.abs(before.astype(float))) / np.mean(np.abs(after))
        assert gain > 1.5
        np.testing.assert_allclose(float(tile.gain.value), gain, rtol=1e-5)
        np.testing.assert_allclose(kernel, gain * after, rtol=1e-5, atol=1e-7)


def test_compensation_restores_the_mean_magnitude_that_drift_took():
    model = one_layer(use_bias=False)
    found = {}
    for compensation in ("none", "oracle", "measured"):
        chip = hwa_keras.program(
            model, "pcm", seed=1, compensation=compensation, read_noise="off"
        )
        start = np.mean(np.abs(kernels(chip)[0]))
        chip.t = YEAR
        found[compensation] = np.mean(np.abs(kernels(chip)[0])) / start
    assert found["none"] < 0.6
    assert found["measured"] == pytest.approx(1.0, abs=1e-5)
    assert found["oracle"] == pytest.approx(1.0, abs=0.05)


def test_read_noise_per_call_frozen_and_off():
    model = zoo.mlp()
    x = zoo.inputs_for(model)
    chip = hwa_keras.program(model, "pcm", seed=1)
    chip.t = 3600.0
    assert np.any(outputs(chip, x) != outputs(chip, x))
    assert np.any(chip.predict(x, verbose=0) != chip.predict(x, verbose=0))
    chip.read_noise = "frozen"
    frozen = outputs(chip, x)
    np.testing.assert_array_equal(frozen, outputs(chip, x))
    np.testing.assert_allclose(frozen, chip.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    chip.read_noise = "off"
    exact = outputs(chip, x)
    assert np.any(frozen != exact)
    chip.read_noise = "per_call"
    draws = np.array([outputs(chip, x) for _ in range(60)])
    error = np.abs(draws.mean(0) - exact) / (draws.std(0) / np.sqrt(60))
    assert np.median(error) < 3


@pytest.mark.slow
def test_rules_give_layers_devices_of_their_own():
    model = zoo.residual_cnn()
    chip = hwa_keras.program(
        model,
        "pcm",
        seed=1,
        rules=[
            ("stem", PCM(g_max=20.0)),
            (keras.layers.DepthwiseConv2D, None),
            ("head", SimplePCM()),
        ],
    )
    by_path = {tile.kernel().path: tile.device for tile in chip.tiles}
    assert by_path["stem/kernel"] == PCM(g_max=20.0)
    assert by_path["branch/kernel"] == PCM()
    assert by_path["head/kernel"] == SimplePCM()
    assert len(by_path) == 3
    assert "left digital by a rule" in dict(chip.digital).values()


@pytest.mark.slow
def test_an_all_zero_kernel_gives_zero_output():
    model = one_layer(use_bias=False)
    model.layers[0].kernel.assign(np.zeros((40, 30)))
    for device in (PCM(), PCM(per="column"), SimplePCM()):
        for compensation in ("none", "oracle", "measured"):
            chip = hwa_keras.program(model, device, seed=1, compensation=compensation)
            chip.t = YEAR
            y = outputs(chip, np.ones((2, 40), "float32"))
            np.testing.assert_array_equal(y, np.zeros((2, 30)))


def test_evaluates_with_the_model_s_loss_and_metrics():
    x, y = zoo.digits_like(50)
    model = zoo.mlp()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0)
    hwa = hwa_keras.to_hwa(model, verbose=0)
    hwa.compile("adam", loss, metrics=["accuracy"])
    expected = model.evaluate(x, y, verbose=0)
    for m in (model, hwa):
        chip = hwa_keras.program(m, PERFECT, seed=1)
        np.testing.assert_allclose(chip.evaluate(x, y, verbose=0), expected, rtol=1e-5)
    # The chip's evaluation must leave the model's own weights usable.
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), expected)


@pytest.mark.slow
def test_saved_chips_load_bit_equal_in_a_fresh_process(tmp_path):
    chips = {
        "mlp": hwa_keras.program(zoo.mlp(), "pcm", seed=1, read_noise="frozen"),
        "live": hwa_keras.program(zoo.mlp(), "pcm", seed=2),
        "cnn": hwa_keras.program(
            zoo.residual_cnn(), SimplePCM(), seed=3, compensation="oracle"
        ),
        "recurrent": hwa_keras.program(
            hwa_keras.to_hwa(zoo.recurrent(), "uniform", verbose=0),
            PCM(per="column"),
            seed=4,
            read_noise="off",
        ),
    }
    for chip in chips.values():
        chip.t = 86_400.0
    inputs = {name: zoo.inputs_for(chip) for name, chip in chips.items()}
    # The read noise of the next call is part of what is saved.
    live, x = chips.pop("live"), inputs.pop("live")
    live.save(tmp_path / "live.keras")
    loaded = keras.models.load_model(tmp_path / "live.keras")
    assert loaded.t == 86_400.0 and loaded.seed == 2
    first, second = (loaded.predict(x, verbose=0) for _ in range(2))
    assert np.any(first != second)
    for found in (first, second):
        expected = live.predict(x, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert loaded(x, t=1.0).shape == loaded(x).shape
    fresh.assert_loads_equal(chips, inputs, tmp_path)


def nan_model():
    model = zoo.residual_cnn()
    kernel = model.get_layer("branch").kernel
    values = np.array(ops.convert_to_numpy(kernel))
    values[0, 0, 0, 0] = np.nan
    kernel.assign(values)
    return model


def set_time(t):
    hwa_keras.program(one_layer(), seed=1).t = t


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hwa_keras.program(nan_model()), "branch/kernel.*NaN"),
        (
            lambda: hwa_keras.program(one_layer(), "pmc"),
            "Unknown device 'pmc'.*simple_",
        ),
        (
            lambda: hwa_keras.program(one_layer(), compensation="gdc"),
            "'none', 'oracle', 'measured'",
        ),
        (
            lambda: hwa_keras.program(one_layer(), read_noise="on"),
            "'per_call', 'frozen', 'off'",
        ),
        (
            lambda: hwa_keras.program(one_layer(), rules=[("conv", None)]),
            "No layer with a kernel is called 'conv'",
        ),
        (
            lambda: hwa_keras.program(keras.Sequential([keras.layers.Dense(2)])),
            "not built",
        ),
        (
            lambda: hwa_keras.program(
                keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])
            ),
            "no kernels to program",
        ),
        (lambda: set_time(-1.0), "not negative. Received: t=-1"),
        (lambda: set_time(float("nan")), "t=nan"),
        (
            lambda: hwa_keras.program(one_layer(), seed=1)(np.ones((1, 40)), t=-5.0),
            "t=-5",
        ),
        (lambda: hwa_keras.program(one_layer(), seed=-1), r"in \[0, 2\*\*64\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
