import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.conversion.conversion import print_conversion
from tests import zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


# JAX compiles each of them anew, and what is not the same there is in these.
SMALL = [
    build if build in (zoo.residual_cnn, zoo.recurrent) else slow(build)
    for build in zoo.SMALL
]


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize(
    "build", [*SMALL, *map(slow, zoo.LARGE)], ids=lambda f: f.__name__
)
def test_nothing_asked_for_changes_nothing(build):
    model = build()
    x = zoo.inputs_for(model)
    expected = outputs(model, x)
    weights = [np.array(ops.convert_to_numpy(w)) for w in model.weights]
    classes = [type(layer) for layer in model._flatten_layers()]
    trainable = [id(v) for v in model.trainable_variables]
    assert hwa_keras.to_hwa(model, verbose=0) is model
    assert type(model).__name__ == classes[0].__name__
    assert isinstance(model, classes[0])
    np.testing.assert_array_equal(outputs(model, x), expected)
    assert [id(v) for v in model.trainable_variables] == trainable
    assert hwa_keras.to_digital(model) is model
    assert [type(layer) for layer in model._flatten_layers()] == classes
    np.testing.assert_array_equal(outputs(model, x), expected)
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(after))


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (zoo.mlp, 3),
        (zoo.residual_cnn, 4),
        (zoo.subclassed, 2),
        (zoo.recurrent, 8),
        (zoo.nested, 3),
        (zoo.attention, 5),
        slow(zoo.bert, 14),
        slow(zoo.mobilenet, 53),
        slow(zoo.resnet50, 54),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_kernel_is_found_and_the_rest_is_listed(build, count):
    model = build()
    hwa = hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)
    found = hwa_keras.hardware_kernels(hwa)
    assert len(found) == count
    listed = {path for path, _ in hwa.digital}
    for layer in model._flatten_layers():
        own = [w.name for w in layer.weights]
        if own and not list(layer._flatten_layers(include_self=False)):
            has_kernel = any(name.endswith("kernel") for name in own)
            assert has_kernel or any(p.endswith(layer.name) for p in listed)
    for kernel in found:
        values = kernel.quantized()
        assert kernel.variable.shape == tuple(values.shape)
        assert set(np.unique(ops.convert_to_numpy(values))) <= {-1.0, 1.0}


@pytest.mark.parametrize("build", SMALL, ids=lambda f: f.__name__)
def test_trains_with_quantizer_and_noise(build, request):
    model = build()
    x = zoo.inputs_for(model)
    hwa = hwa_keras.to_hwa(
        model,
        kernel_quantizer=hwa_keras.quantizers.Uniform(16, scale="max"),
        kernel_noise=hwa_keras.noise.AdditiveGaussian(0.05),
        seed=1,
        verbose=0,
    )
    kernels = hwa_keras.hardware_kernels(hwa)
    before = [np.array(ops.convert_to_numpy(k.variable)) for k in kernels]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    eager = request.node.get_closest_marker("slow") is not None
    hwa.compile("adam", loss, run_eagerly=eager)
    y = np.array([0, 1, 2, 0])
    history = hwa.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert history.history["loss"][0] > 0
    for old, kernel in zip(before, kernels, strict=True):
        assert np.any(old != ops.convert_to_numpy(kernel.variable)), kernel.path


def kept(hwa):
    return [kernel.path for kernel in hwa_keras.hardware_kernels(hwa)]


def test_skip_first_and_last_and_by_selector():
    model = zoo.residual_cnn()
    hwa = hwa_keras.to_hwa(model, skip=("first", "last"), verbose=0)
    assert kept(hwa) == ["branch/kernel", f"{model.layers[5].name}/kernel"]
    assert dict(hwa.digital)["stem"] == "skipped: the first layer"
    assert dict(hwa.digital)["head"] == "skipped: the last layer"
    hwa_keras.to_digital(model)
    hwa = hwa_keras.to_hwa(
        model, skip=("st?m", layers.DepthwiseConv2D, lambda la: la.name == "head"),
        verbose=0,
    )  # fmt: skip
    assert kept(hwa) == ["branch/kernel"]


def test_first_matching_rule_wins_and_missing_keys_take_the_default():
    binary = hwa_keras.quantizers.SteSign()
    hwa = hwa_keras.to_hwa(
        zoo.residual_cnn(),
        kernel_quantizer="uniform",
        kernel_noise="programming_noise",
        rules=[
            ("stem", {"kernel_quantizer": binary}),
            (layers.Conv2D, {"kernel_noise": None}),
            (lambda layer: layer.name == "head", None),
        ],
        verbose=0,
    )
    by_path = {k.path: k for k in hwa_keras.hardware_kernels(hwa)}
    assert "head/kernel" not in by_path
    assert dict(hwa.digital)["head"].startswith("left digital by the rule")
    stem, branch = by_path["stem/kernel"], by_path["branch/kernel"]
    assert isinstance(stem.quantizer, hwa_keras.quantizers.SteSign)
    assert isinstance(stem.noise, hwa_keras.noise.ProgrammingNoise)
    assert isinstance(branch.quantizer, hwa_keras.quantizers.Uniform)
    assert branch.noise is None


def test_a_rule_reaches_layers_inside_the_one_it_names():
    hwa = hwa_keras.to_hwa(
        zoo.recurrent(), rules=[(layers.Bidirectional, None)], verbose=0
    )
    assert len(kept(hwa)) == 4
    hwa = hwa_keras.to_hwa(zoo.nested(), rules=[("inner/*", None)], verbose=0)
    assert kept(hwa) == ["outer/kernel"]


def test_each_kernel_has_a_quantizer_and_a_noise_of_its_own():
    noise = hwa_keras.noise.AdditiveGaussian(0.1)
    hwa = hwa_keras.to_hwa(zoo.mlp(), kernel_noise=noise, verbose=0)
    noises = [kernel.noise for kernel in hwa_keras.hardware_kernels(hwa)]
    assert len({id(each) for each in noises}) == 3
    assert all(each is not noise for each in noises)


def test_any_callable_is_a_quantizer():
    hwa = hwa_keras.to_hwa(zoo.mlp(), kernel_quantizer=lambda w: w * 0, verbose=0)
    x = zoo.inputs_for(hwa)
    np.testing.assert_array_equal(outputs(hwa, x), np.zeros((4, 3)))


def test_hardware_layers_in_a_model_are_left_to_themselves():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            hwa_keras.layers.HWADense(4, kernel_quantizer="ste_sign", name="own"),
            layers.Dense(3),
        ]
    )
    own = model.layers[0].hardware_kernels[0]
    hwa = hwa_keras.to_hwa(model, kernel_quantizer="uniform", verbose=0)
    assert hwa_keras.hardware_kernels(hwa)[0] is own
    assert isinstance(own.quantizer, hwa_keras.quantizers.SteSign)
    assert "HWADense" in dict(hwa.digital)["own"]


def test_prints_what_was_converted_and_why_not(tmp_path):
    hwa = hwa_keras.to_hwa(
        zoo.residual_cnn(), kernel_quantizer="uniform", skip="last", verbose=0
    )
    path = tmp_path / "conversion.txt"
    with path.open("w", encoding="utf-8") as file:
        print_conversion(hwa, file)
    text = path.read_text(encoding="utf-8")
    assert "stem/kernel" in text and "Uniform" in text
    assert "skipped" in text and "BatchNormalization" in text


def test_a_failed_conversion_leaves_the_model_as_it_was():
    own = hwa_keras.layers.HWADense(4, kernel_quantizer="ste_sign", name="own")
    model = keras.Sequential([keras.Input((12,)), own, layers.Dense(3), Squaring(3)])
    classes = [type(layer) for layer in model._flatten_layers()]
    x = zoo.inputs_for(zoo.mlp())
    expected, count = outputs(model, x), len(model.weights)
    with pytest.raises(ValueError, match="'squaring' .*of no known family"):
        hwa_keras.to_hwa(model, hardware=hwa_keras.Hardware(tile=(5, 5)), verbose=0)
    assert [type(layer) for layer in model._flatten_layers()] == classes
    np.testing.assert_array_equal(outputs(model, x), expected)
    assert len(model.weights) == count
    # As the message says: its weights alone.
    hwa = hwa_keras.to_hwa(
        model,
        hardware=hwa_keras.Hardware(kernel_quantizer="ste_sign", tile=(5, 5)),
        rules=[("squaring", {"tile": None})],
        verbose=0,
    )
    assert len(kept(hwa)) == 3 and len(outputs(hwa, x)) == 4


def test_hardware_stands_for_the_short_arguments():
    hardware = hwa_keras.Hardware(
        kernel_quantizer="ste_sign", adc=hwa_keras.circuits.ADC(8, 2.0), tile=(5, 3)
    )
    hwa = hwa_keras.to_hwa(
        zoo.mlp(),
        hardware=hardware,
        rules=[(lambda layer: layer.units == 3, hwa_keras.Hardware())],
        verbose=0,
    )
    kernels = hwa_keras.hardware_kernels(hwa)
    assert [k.tiling.grid for k in kernels] == [(3, 6), (4, 3), (1, 1)]
    assert [k.adc is None for k in kernels] == [False, False, True]
    assert kernels[2].is_ideal
    with pytest.raises(ValueError, match="give one or the other"):
        hwa_keras.to_hwa(zoo.mlp(), "ste_sign", hardware=hardware)
    with pytest.raises(TypeError, match="must be a hwa_keras.Hardware. Received: 7"):
        hwa_keras.to_hwa(zoo.mlp(), hardware=7)


def test_an_optimizer_that_was_built_begins_anew():
    model, x = zoo.mlp(), zoo.inputs_for(zoo.mlp())
    y = np.ones((4, 3))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, verbose=0)
    quantizer = hwa_keras.quantizers.Uniform(16, "learned")
    hwa = hwa_keras.to_hwa(model, quantizer, verbose=0)
    before = hwa.get_weights()
    hwa.fit(x, y, verbose=0)
    assert float(hwa.optimizer.learning_rate) == pytest.approx(0.01)
    for old, new in zip(before, hwa.get_weights(), strict=True):
        assert np.any(old != new)
    hwa_keras.to_digital(hwa).fit(x, y, verbose=0)


class Squaring(layers.Dense):
    def call(self, inputs, training=None):
        return super().call(inputs) ** 2


def on_integers():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Dense(3)])
    model.layers[0].autocast = False
    hardware = hwa_keras.Hardware(dac=hwa_keras.circuits.DAC(8, 1.0))
    hwa = hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    return hwa(np.ones((2, 4), "int32"))


def chip():
    return hwa_keras.program(zoo.mlp(), "pcm", seed=1)


def unbuilt():
    return keras.Sequential([layers.Dense(3)])


def without_kernels():
    return keras.Sequential([keras.Input((4,)), layers.LayerNormalization()])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hwa_keras.to_hwa(unbuilt()), ValueError, "not built"),
        (lambda: hwa_keras.to_hwa(without_kernels()), ValueError, "nothing to convert"),
        (
            lambda: hwa_keras.to_hwa(zoo.mlp(), kernel_quantizer="ste_sing"),
            ValueError,
            "Unknown quantizer 'ste_sing'. Known names: .*ste_sign",
        ),
        (
            lambda: hwa_keras.to_hwa(zoo.mlp(), kernel_noise="pcm"),
            ValueError,
            "Unknown noise 'pcm'. Known names: .*programming_noise",
        ),
        (
            lambda: hwa_keras.to_hwa(zoo.mlp(), skip=("conv",)),
            ValueError,
            "No layer with a kernel is called 'conv'",
        ),
        (
            lambda: hwa_keras.to_hwa(zoo.mlp(), rules=[("head", None)]),
            ValueError,
            "No layer with a kernel is called 'head'",
        ),
        (
            lambda: hwa_keras.to_hwa(
                zoo.mlp(), rules=[(layers.Dense, {"quantizer": None})]
            ),
            ValueError,
            "Unknown settings .*quantizer.*Known settings: kernel_quantizer",
        ),
        (lambda: hwa_keras.to_hwa(zoo.mlp(), rules=[7]), TypeError, "pair"),
        (lambda: hwa_keras.to_hwa(zoo.mlp(), skip=(7,)), TypeError, "Received: 7"),
        (lambda: hwa_keras.to_hwa(7), TypeError, "Received: 7"),
        (lambda: hwa_keras.to_hwa(chip()), ValueError, "is a chip"),
        (
            lambda: hwa_keras.to_hwa(hwa_keras.to_hwa(zoo.mlp(), verbose=0)),
            ValueError,
            r"is on hardware already.*hwa_keras.to_digital\(model\)",
        ),
        (lambda: hwa_keras.to_digital(chip()), ValueError, "is a chip"),
        (
            lambda: hwa_keras.Hardware(tile=(0, 5)),
            ValueError,
            "`rows` of a tile must be an integer ≥ 1. Received: rows=0",
        ),
        (lambda: hwa_keras.Hardware(tile=(5, -1)), ValueError, "columns=-1"),
        (lambda: hwa_keras.Hardware(tile=(5, 2.5)), ValueError, "columns=2.5"),
        (lambda: hwa_keras.Hardware(tile=5), ValueError, "pair .*Received: tile=5"),
        *(
            (lambda c=c, r=r: c(8, r), ValueError, f"Received: range={r}")
            for c in (hwa_keras.circuits.ADC, hwa_keras.circuits.DAC)
            for r in (0.0, -1.0, float("inf"), float("nan"))
        ),
        (on_integers, TypeError, "converts floating-point numbers. Received: int32"),
        (lambda: hwa_keras.to_digital(zoo.mlp()), ValueError, "is not on hardware"),
        (lambda: hwa_keras.to_digital(7), TypeError, "Received: 7"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_rule_that_matches_nothing_warns():
    with pytest.warns(UserWarning, match="matches no layer"):
        hwa_keras.to_hwa(zoo.mlp(), rules=[(layers.Conv2D, None)], verbose=0)
