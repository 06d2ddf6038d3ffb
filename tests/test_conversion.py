import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.conversion import print_conversion
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
    hwa = hwa_keras.to_hwa(model, verbose=0, name="on_hardware")
    np.testing.assert_array_equal(outputs(hwa, x), expected)
    assert hwa_keras.to_digital(hwa) is model
    assert hwa.name == "on_hardware"
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(after))
    assert {id(v) for v in model.trainable_variables} == {
        id(v) for v in hwa.trainable_variables
    }


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
    assert len(hwa.kernels) == count
    listed = {path for path, _ in hwa.digital}
    for layer in model._flatten_layers():
        own = [w.name for w in layer.weights]
        if own and not list(layer._flatten_layers(include_self=False)):
            has_kernel = any(name.endswith("kernel") for name in own)
            assert has_kernel or any(p.endswith(layer.name) for p in listed)
    for kernel, values in hwa.quantized_kernels():
        assert kernel.shape == tuple(values.shape)
        assert set(np.unique(ops.convert_to_numpy(values))) <= {-1.0, 1.0}


@pytest.mark.parametrize("build", [*SMALL, slow(zoo.bert)], ids=lambda f: f.__name__)
def test_trains_with_quantizer_and_noise(build):
    model = build()
    x = zoo.inputs_for(model)
    hwa = hwa_keras.to_hwa(
        model,
        kernel_quantizer=hwa_keras.quantizers.Uniform(16, scale="max"),
        kernel_noise=hwa_keras.noise.AdditiveGaussian(0.05),
        seed=1,
        verbose=0,
    )
    before = [np.array(ops.convert_to_numpy(k)) for k in hwa.kernels]
    hwa.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = hwa.fit(x, np.array([0, 1, 2, 0]), epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert history.history["loss"][0] > 0
    for old, kernel in zip(before, hwa.kernels, strict=True):
        assert np.any(old != ops.convert_to_numpy(kernel)), kernel.path


def kept(hwa):
    return [t.path for t in hwa.transformations]


def test_skip_first_and_last_and_by_selector():
    model = zoo.residual_cnn()
    hwa = hwa_keras.to_hwa(model, skip=("first", "last"), verbose=0)
    assert kept(hwa) == ["branch/kernel", f"{model.layers[5].name}/kernel"]
    assert dict(hwa.digital)["stem"] == "skipped: the first layer"
    assert dict(hwa.digital)["head"] == "skipped: the last layer"
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
    by_path = {t.path: t for t in hwa.transformations}
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
    assert len(hwa.kernels) == 4
    hwa = hwa_keras.to_hwa(zoo.nested(), rules=[("inner/*", None)], verbose=0)
    assert kept(hwa) == ["outer/kernel"]


def test_each_kernel_has_a_quantizer_and_a_noise_of_its_own():
    noise = hwa_keras.noise.AdditiveGaussian(0.1)
    hwa = hwa_keras.to_hwa(zoo.mlp(), kernel_noise=noise, verbose=0)
    assert len({id(t.noise) for t in hwa.transformations}) == 3
    assert all(t.noise is not noise for t in hwa.transformations)


def test_any_callable_is_a_quantizer():
    hwa = hwa_keras.to_hwa(zoo.mlp(), kernel_quantizer=lambda w: w * 0, verbose=0)
    x = zoo.inputs_for(hwa.model)
    np.testing.assert_array_equal(outputs(hwa, x), np.zeros((4, 3)))


def test_hardware_layers_in_a_model_are_left_to_themselves():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            hwa_keras.layers.HWADense(4, kernel_quantizer="ste_sign", name="own"),
            layers.Dense(3),
        ]
    )
    hwa = hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)
    assert len(hwa.kernels) == 1
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
        (lambda: hwa_keras.to_digital(zoo.mlp()), TypeError, "HWAModel"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_rule_that_matches_nothing_warns():
    with pytest.warns(UserWarning, match="matches no layer"):
        hwa_keras.to_hwa(zoo.mlp(), rules=[(layers.Conv2D, None)], verbose=0)
