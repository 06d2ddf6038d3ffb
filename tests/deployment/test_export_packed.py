"""Models with quantized kernels as artefacts: small, and equal to the model."""

import numpy as np
import pytest
from keras import Input, Model, Sequential, layers, models, ops

import hwa_keras
from hwa_keras import quantizers
from hwa_keras.layers import (
    HWAConv2D,
    HWADense,
    HWADepthwiseConv2D,
    HWASeparableConv2D,
)
from tests import fresh, zoo

pytestmark = pytest.mark.tensorflow_only

SERVE_SAVED_MODEL = """
    import sys
    import numpy as np, tensorflow as tf
    serve = tf.saved_model.load(path).signatures["serve"]
    y = serve(x=tf.constant(np.load(inputs_path)))["output"].numpy()
    assert "hwa_keras" not in sys.modules
    np.save(outputs_path, y)
"""
SERVE_TFLITE = """
    import sys
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    serve = Interpreter(path).get_signature_runner("serve")
    y = serve(x=np.load(inputs_path))["output"]
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    np.save(outputs_path, y)
"""


def digital_and_hardware_cnn():
    """Every kind of convolution, batch norm and dense, quantized and not."""
    ends = {
        "kernel_quantizer": "magnitude_aware_sign",
        "input_quantizer": "ste_sign",
    }
    return Sequential(
        [
            Input((12, 12, 3)),
            layers.Conv2D(16, 3, activation="relu", name="stem"),
            layers.BatchNormalization(),
            HWAConv2D(32, 3, padding="same", activation="relu", name="conv", **ends),
            layers.BatchNormalization(),
            HWADepthwiseConv2D(3, padding="same", name="depthwise", **ends),
            layers.BatchNormalization(),
            HWASeparableConv2D(32, 3, strides=2, name="separable", **ends),
            layers.BatchNormalization(),
            layers.Flatten(),
            HWADense(16, activation="relu", name="hidden", **ends),
            layers.Dense(3, name="last"),
        ]
    )


def clone_of(model):
    clone = models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def images(model, batch=4):
    # Statistics, scales and biases that do something.
    rng = np.random.default_rng(1)
    for w in model.weights:
        if len(w.shape) == 1:
            w.assign(rng.uniform(0.2, 1.5, w.shape))
    return rng.normal(size=(batch, *model.input_shape[1:])).astype("float32")


def both(model, folder, **kwargs):
    """Paths of a SavedModel and a .tflite file, with the bound for each."""
    stored = hwa_keras.export(model, folder / "model", verbose=0, **kwargs)
    lite = hwa_keras.export_tflite(model, folder / "m.tflite", verbose=0, **kwargs)
    assert lite == stored
    return stored, [(folder / "model", 1e-6), (folder / "m.tflite", 1e-5)]


def size_of(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def difference(path, model, x):
    """As `verify_export`, for one input and output, in a process without hwa_keras."""
    np.save(path.parent / "x.npy", x)
    fresh.run_bare(
        SERVE_TFLITE if path.is_file() else SERVE_SAVED_MODEL,
        path=str(path),
        inputs_path=str(path.parent / "x.npy"),
        outputs_path=str(path.parent / "y.npy"),
    )
    expected = ops.convert_to_numpy(model(x, training=False))
    found = np.load(path.parent / "y.npy")
    assert found.shape == expected.shape
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


def test_artefacts_are_as_small_as_their_kernels(tmp_path):
    digits, least = np.array([8, 5, 4, 2]), np.array([20, 14, 12, 7])
    rules = [
        (name, {"kernel_quantizer": quantizer})
        for name, quantizer in (
            ("binary", "ste_sign"),
            ("ternary", "ste_tern"),
            ("two_bits", quantizers.DoReFa(2, "weights")),
            ("four_bits", quantizers.DoReFa(4, "weights")),
        )
    ]
    names = [name for name, _ in rules]
    stack = [layers.Dense(512, activation="relu", name=name) for name in names]
    model = Sequential([Input((512,)), *stack])
    hwa = hwa_keras.to_hwa(
        model, kernel_noise="programming_noise", rules=rules, verbose=0
    )
    x = np.random.default_rng(0).normal(size=(4, 512)).astype("float32")
    stored, artefacts = both(hwa, tmp_path)
    floats = 4 * 512**2
    assert [kernel.digits for kernel in stored] == list(digits)
    assert [kernel.float_nbytes for kernel in stored] == [floats] * 4
    assert np.all([floats / kernel.nbytes for kernel in stored] > least)
    for path, most in artefacts:
        assert np.sum(floats / 4 / digits) < size_of(path) < np.sum(floats / least)
        assert difference(path, hwa, x) <= most


def test_against_the_file_of_the_float_model(tmp_path):
    wide = Sequential([Input((256,)), layers.Dense(512), layers.Dense(8)])
    hwa = hwa_keras.to_hwa(clone_of(wide), "ste_sign", verbose=0)
    stored, [(folder, _), (file, _)] = both(wide, tmp_path)
    assert all("more than 256 distinct" in k.reason for k in stored)
    assert all(k.nbytes == k.float_nbytes and not k.digits for k in stored)
    (tmp_path / "packed").mkdir()
    _, [(small_folder, _), (small_file, _)] = both(hwa, tmp_path / "packed")
    assert size_of(file) / size_of(small_file) > 15
    assert size_of(folder) / size_of(small_folder) > 8
    x = np.ones((2, 256), "float32")
    for path in (folder, file):
        assert hwa_keras.verify_export(path, wide, x) <= 1e-5


def test_hardware_layers_of_every_kind(tmp_path):
    model = digital_and_hardware_cnn()
    x = images(model)
    stored, artefacts = both(model, tmp_path)
    packed = {kernel.path for kernel in stored if not kernel.reason}
    assert packed >= {"conv/kernel", "hidden/kernel"}
    assert {"stem/kernel", "last/kernel"}.isdisjoint(packed)
    for path, bound in artefacts:
        assert difference(path, model, x) <= bound
    assert b"Flex" not in (tmp_path / "m.tflite").read_bytes()


def test_every_convolution_packed_keeps_its_activation(tmp_path):
    x = Input((10, 10, 32))
    y = layers.Conv2D(32, 3, activation="relu")(x)
    y = layers.DepthwiseConv2D(3, activation="relu", bias_initializer="ones")(y)
    y = layers.BatchNormalization()(y)
    y = layers.SeparableConv2D(64, 3, activation="relu")(y)
    y = layers.Conv2DTranspose(16, 3, strides=2, activation="relu")(y)
    y = layers.GlobalAveragePooling2D()(y)
    model = Model(x, layers.Dense(8, activation="relu")(y))
    model = hwa_keras.to_hwa(model, "ste_tern", verbose=0)
    x = images(model)
    expected = ops.convert_to_numpy(model(x))
    assert 0 < np.mean(expected > 0)
    stored, artefacts = both(model, tmp_path)
    assert not any(kernel.reason for kernel in stored)
    for path, bound in artefacts:
        assert hwa_keras.verify_export(path, model, x) <= bound


def test_relu_right_after_a_packed_product(tmp_path):
    x = Input((64,))
    model = Model(x, layers.Dense(96, activation="relu", use_bias=False)(x))
    model = hwa_keras.to_hwa(model, "ste_sign", verbose=0)
    x = np.random.default_rng(0).normal(size=(4, 64)).astype("float32")
    stored, artefacts = both(model, tmp_path)
    assert stored[0].values == 2
    for path, bound in artefacts:
        assert hwa_keras.verify_export(path, model, x) <= bound


def test_scales_of_channels_fixed_and_learned(tmp_path):
    by_max = quantizers.Uniform(8, scale="max", axis=-1)
    learned = quantizers.Uniform(8, scale="learned", axis=-1)
    model = Sequential(
        [
            Input((64,)),
            HWADense(96, kernel_quantizer=by_max, activation="relu"),
            HWADense(
                48,
                kernel_quantizer=learned,
                input_quantizer=quantizers.Uniform(16, scale="learned"),
                kernel_noise="programming_noise",
            ),
        ]
    )
    scale = model.layers[1].kernel_quantizer.alpha
    scale.assign(np.random.default_rng(0).uniform(0.5, 0.9, scale.shape))
    x = np.random.default_rng(0).normal(size=(4, 64)).astype("float32")
    stored, artefacts = both(model, tmp_path)
    assert [kernel.scaled for kernel in stored] == [True, True]
    for path, bound in artefacts:
        assert hwa_keras.verify_export(path, model, x) <= bound
    import tensorflow as tf

    loaded = tf.saved_model.load(str(tmp_path / "model"))
    # Two biases and the scale of the inputs; neither kernels nor their scales.
    assert sorted(tuple(w.shape) for w in loaded.weights) == [(), (48,), (96,)]


def test_kernels_of_many_values_stay_floats_and_are_reported(tmp_path, capsys):
    model = Sequential([Input((64,)), layers.Dense(96), layers.Dense(32)])
    rules = [("dense*1", {"kernel_quantizer": None})]
    model.layers[0].name, model.layers[1].name = "dense_0", "dense_1"
    hwa = hwa_keras.to_hwa(model, "ste_sign", rules=rules, verbose=0)
    path = tmp_path / "model"
    binary, floats = hwa_keras.export(hwa, path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "dense_0/kernel" in printed and "dense_1/kernel" in printed
    assert "per byte, of 2 values" in printed and "floats: it has more" in printed
    assert binary.values == 2 and binary.nbytes < binary.float_nbytes / 12
    assert floats.nbytes == floats.float_nbytes == 96 * 32 * 4
    assert floats.path == "dense_1/kernel" and floats.shape == (96, 32)
    assert "more than 256 distinct values" in floats.reason
    x = np.random.default_rng(0).normal(size=(4, 64)).astype("float32")
    assert hwa_keras.verify_export(path, hwa, x) <= 1e-6
    hwa_keras.export(hwa, path, overwrite=True, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("build", [zoo.recurrent, zoo.attention])
def test_saved_models_of_every_kind_are_verified(tmp_path, build):
    model = build()
    plain = clone_of(model)
    hwa = hwa_keras.to_hwa(model, quantizers.DoReFa(2, "weights"), verbose=0)
    path = tmp_path / "model"
    hwa_keras.export(hwa, path, verbose=0)
    x = zoo.inputs_for(model)
    assert hwa_keras.verify_export(path, hwa, x) <= 1e-6
    assert hwa_keras.verify_export(path, plain, x) > 1e-3


@pytest.mark.slow
def test_models_with_several_inputs_and_outputs(tmp_path):
    late, early = Input((24,), name="z"), Input((24,), name="a")
    y = layers.Dense(32, activation="relu")(layers.Subtract()([late, early]))
    outputs = [layers.Dense(2)(y) for _ in range(11)]
    model = hwa_keras.to_hwa(Model([late, early], outputs), "ste_sign", verbose=0)
    x = [np.full((3, 24), 2.0, "float32"), np.ones((3, 24), "float32")]
    _, artefacts = both(model, tmp_path)
    for path, bound in artefacts:
        assert hwa_keras.verify_export(path, model, x) <= bound
        assert hwa_keras.verify_export(path, model, x[::-1]) <= bound


def test_a_hardware_model_inside_another_quantizes_once(tmp_path):
    dense = Sequential([Input((32,)), layers.Dense(64, activation="relu")])
    four_bits = quantizers.DoReFa(4, "weights")
    inner = hwa_keras.to_hwa(dense, four_bits, verbose=0)
    outer = HWADense(16, kernel_quantizer=four_bits)
    model = Sequential([Input((32,)), inner, outer])
    path = tmp_path / "model"
    stored = hwa_keras.export(model, path, verbose=0)
    assert [bool(kernel.reason) for kernel in stored] == [False, False]
    x = np.random.default_rng(0).normal(size=(4, 32)).astype("float32")
    assert hwa_keras.verify_export(path, model, x) <= 1e-6


def test_a_subclassed_model_needs_an_example(tmp_path):
    model = zoo.subclassed()
    x = zoo.inputs_for(model)
    hwa = hwa_keras.to_hwa(model, "ste_sign", verbose=0)
    with pytest.raises(ValueError, match="Pass example=x"):
        hwa_keras.export(hwa, tmp_path / "model")
    _, artefacts = both(hwa, tmp_path, example=x)
    for path, bound in artefacts:
        assert hwa_keras.verify_export(path, hwa, x) <= bound


def test_the_model_is_as_before(tmp_path):
    watched = quantizers.SteSign(metrics=["flip_ratio"])
    model = Sequential([Input((12,)), HWADense(16, kernel_quantizer=watched)])
    before = [ops.convert_to_numpy(v) for v in model.variables]
    both(model, tmp_path)
    for old, now in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(now))


def test_bad_input(tmp_path):
    path = tmp_path / "model"
    model = zoo.mlp()
    x = zoo.inputs_for(model)
    with pytest.raises(TypeError, match="Only a Keras model"):
        hwa_keras.export("model.keras", path)
    with pytest.raises(ValueError, match="is not built"):
        hwa_keras.export(Sequential([layers.Dense(3)]), path)
    with pytest.raises(ValueError, match="`read_noise` goes with a chip"):
        hwa_keras.export(model, path, read_noise="frozen")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        hwa_keras.verify_export(path, model, x)
    hwa_keras.export(model, path, verbose=0)
    with pytest.raises(ValueError, match="`times` goes with a chip"):
        hwa_keras.verify_export(path, model, x, times=[1.0])
    chip = hwa_keras.program(model, "pcm", seed=1)
    with pytest.raises(ValueError, match="`times` goes with a chip"):
        hwa_keras.verify_export(path, chip, x)
    with pytest.raises(ValueError, match=r"takes \['t', 'x'\].*takes \['x'\]"):
        hwa_keras.verify_export(path, chip, x, times=[1.0])
    noise = hwa_keras.noise.OutputNoise(0.1, always=True)
    noisy = Sequential([Input((12,)), HWADense(16, output_noise=noise)])
    with pytest.raises(ValueError, match="adds noise at inference"):
        hwa_keras.export(noisy, tmp_path / "noisy")
