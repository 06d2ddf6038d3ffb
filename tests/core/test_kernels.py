"""find_kernels: by what a layer computes, then by name, and what is named besides."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.dtype_policies.dtype_policy import QUANTIZATION_MODES

import hwa_keras
from hwa_keras.core.kernels import (
    check_selector,
    distinct,
    find_kernels,
    hardware_kernels,
    kernels_of,
    matches,
    share_text,
)
from hwa_keras.noise import AdditiveGaussian
from tests import zoo

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def model_of(*stack, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *stack])


def views(model, **kwargs):
    found, _ = find_kernels(model, **kwargs)
    return {k.path.partition("/")[2] or k.path: k.view.matrix_shape for k in found}


IMAGE = (8, 8, 6)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(3), (6,), {"kernel": (6, 3)}),
        (layers.Conv1D(3, 2), (8, 6), {"kernel": (12, 3)}),
        (layers.Conv2D(4, 3, groups=2), IMAGE, {"kernel": (27, 4)}),
        (layers.Conv3D(4, 2), (5, 5, 5, 6), {"kernel": (48, 4)}),
        (layers.DepthwiseConv2D(3), IMAGE, {"kernel": (9, 6)}),
        (
            layers.DepthwiseConv2D(3, depth_multiplier=4),
            IMAGE,
            {"kernel": (9, 24)},
        ),
        (
            layers.SeparableConv2D(5, 3, depth_multiplier=2),
            IMAGE,
            {"depthwise_kernel": (9, 12), "pointwise_kernel": (12, 5)},
        ),
        (layers.Conv2DTranspose(4, 3), IMAGE, {"kernel": (54, 4)}),
        (
            layers.EinsumDense("abc,cde->abde", (None, 2, 5)),
            (3, 6),
            {"kernel": (6, 10)},
        ),
        (layers.LSTM(3), (5, 6), {"kernel": (6, 12), "recurrent_kernel": (3, 12)}),
        (layers.GRU(3), (5, 6), {"kernel": (6, 9), "recurrent_kernel": (3, 9)}),
        (layers.SimpleRNN(3), (5, 6), {"kernel": (6, 3), "recurrent_kernel": (3, 3)}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rows_and_columns_are_those_of_what_a_layer_computes(layer, shape, expected):
    found = views(model_of(layer, shape=shape))
    assert {path.rpartition("/")[2]: size for path, size in found.items()} == expected


def test_a_query_kernel_has_a_column_for_each_head_and_size():
    inputs = keras.Input((4, 576))
    attention = layers.MultiHeadAttention(num_heads=9, key_dim=64)
    model = keras.Model(inputs, attention(inputs, inputs))
    found = views(model)
    assert attention._query_dense.kernel.shape == (576, 9, 64)
    assert attention._output_dense.kernel.shape == (9, 64, 576)
    assert len(found) == 4 and set(found.values()) == {(576, 576)}
    for kernel in find_kernels(model)[0]:
        heads_first = kernel.path.endswith("output/kernel")
        assert kernel.view.columns == ((2,) if heads_first else (1, 2))


class Renamed(layers.Dense):
    """Computes as Dense does, by Dense's own call."""


class Squared(layers.Dense):
    """Computes in its own way."""

    def call(self, inputs, training=None):
        return super().call(inputs) ** 2


class Raw(layers.Layer):
    """A product with weights of no telling names."""

    def build(self, shape):
        self.w = self.add_weight((shape[-1], 4), name="w")
        self.table = {"u": self.add_weight((4, 3), name="u")}
        self.rows = [self.add_weight((3, 3), name="v")]
        self.scale = self.add_weight((3,), initializer="ones", name="scale")

    def call(self, inputs):
        y = ops.matmul(ops.matmul(inputs, self.w), self.table["u"])
        return ops.matmul(y, self.rows[0]) * self.scale


class Named(layers.Layer):
    """A layer of no known family: what is a kernel, its names say."""

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], 3), name="my_kernel")
        self.other = self.add_weight((3, 3), name="other")

    def call(self, inputs):
        return ops.matmul(ops.matmul(inputs, self.kernel), self.other)


def test_a_layer_of_ones_own_is_known_by_its_computation_or_by_names():
    stack = [Renamed(5, name="a"), Squared(4, name="b"), Named(name="c")]
    found, without = find_kernels(model_of(*stack))
    assert [k.path for k in found] == ["a/kernel", "b/kernel", "c/my_kernel"]
    assert [k.keys for k in found] == [("_kernel",), ("_kernel",), ("kernel",)]
    assert not without
    assert all(k.owner is layer for k, layer in zip(found, stack, strict=True))


def test_layers_without_kernels_are_told_apart():
    stack = [layers.Dense(6), layers.BatchNormalization(name="norm"), Raw(name="raw")]
    model = model_of(*stack)
    found, without = find_kernels(model)
    assert len(found) == 1
    assert [(path, type(layer)) for path, layer in without] == [
        ("norm", layers.BatchNormalization),
        ("raw", Raw),
    ]
    with pytest.raises(ValueError, match="has no kernels.*call it once"):
        kernels_of(model_of(layers.LayerNormalization()))
    with pytest.raises(ValueError, match="has no kernels"):
        kernels_of(keras.Sequential([layers.Dense(3)]))


def test_raw_weights_are_kernels_where_the_caller_says_so():
    def make():
        return model_of(Raw(name="raw"))

    for kernels in (
        "raw/?",
        ["raw/w", "*/u", "raw/v"],
        lambda v: len(v.shape) == 2,
    ):
        model = make()
        found, _ = find_kernels(model, kernels)
        assert [k.path for k in found] == ["raw/w", "raw/u", "raw/v"]
        assert [k.keys for k in found] == [("w",), ("table", "u"), ("rows", 0)]
        hwa = hwa_keras.to_hwa(model, "ste_sign", kernels=kernels, verbose=0)
        w, u, v = (np.where(k.variable.numpy() < 0, -1.0, 1.0) for k in found)
        np.testing.assert_allclose(hwa(X), X @ w @ u @ v, rtol=1e-5, atol=1e-5)
    assert not find_kernels(make(), "raw/scale")[0]  # No matrix.
    with pytest.raises(
        TypeError, match=r"`kernels` must be a pattern.*Received: \[7\]"
    ):
        find_kernels(make(), [7])


def test_a_part_of_the_raw_weights_is_converted_saved_and_reverted(tmp_path):
    keras.saving.register_keras_serializable("tests")(Raw)
    model = model_of(layers.Dense(6), Raw(name="raw"))
    before = model(X)
    hwa = hwa_keras.to_hwa(
        model, "ste_sign", AdditiveGaussian(0.1), kernels="*/w", verbose=0
    )
    assert [k.path.rpartition("/")[2] for k in hardware_kernels(hwa)] == ["kernel", "w"]
    hwa.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), hwa(X))
    assert np.any(loaded(X, training=True) != hwa(X))
    assert type(hwa_keras.to_digital(model).layers[1]) is Raw
    np.testing.assert_array_equal(model(X), before)
    chip = hwa_keras.program(model, "pcm", seed=1, kernels="raw/[wu]", verbose=0)
    assert len(chip.tiles) == 3


def test_a_model_may_have_weights_of_its_own(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def build(self, shape):
            self.w = self.add_weight((shape[-1], 3), name="own_kernel")

        def call(self, inputs):
            return ops.matmul(inputs, self.w)

    model = Own()
    before = model(X)
    hwa = hwa_keras.to_hwa(model, "ste_sign", verbose=0)
    sign = np.where(ops.convert_to_numpy(model.w) < 0, -1.0, 1.0)
    np.testing.assert_allclose(hwa(X), X @ sign, rtol=1e-5, atol=1e-5)
    hwa.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), hwa(X))
    chip = hwa_keras.program(hwa, hwa_keras.noise.ProcessVariation(0.0), seed=1)
    np.testing.assert_allclose(chip(X), hwa(X), rtol=1e-5, atol=1e-5)
    assert type(hwa_keras.to_digital(hwa)) is Own
    np.testing.assert_array_equal(model(X), before)


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_layers_that_keras_quantized_stay_digital_and_say_why(mode):
    if mode not in QUANTIZATION_MODES:
        pytest.skip("this Keras is older")
    model = model_of(layers.Dense(8, name="a"), layers.Dense(4, name="b"))
    model.get_layer("a").quantize(mode)
    before = ops.convert_to_numpy(model(X))
    found, _ = find_kernels(model)
    reasons = {k.path.partition("/")[0]: k.digital for k in found}
    assert f"quantized by Keras to {mode}" in reasons["a"] and not reasons["b"]
    chip = hwa_keras.program(
        model,
        hwa_keras.devices.PCM(programming_scale=0, drift_scale=0, read_scale=0),
        seed=0,
        verbose=0,
    )
    assert len(chip.tiles) == 1
    np.testing.assert_allclose(chip(X), before, rtol=1e-4, atol=1e-5)
    hwa = hwa_keras.to_hwa(model, verbose=0)
    assert [k.path for k in hardware_kernels(hwa)] == ["b/kernel"]
    assert "quantized by Keras" in dict(hwa.digital)["a"]
    np.testing.assert_allclose(hwa(X), before, rtol=1e-6)


def test_a_shared_layer_is_found_once():
    inputs = [keras.Input((6,)), keras.Input((6,))]
    dense = layers.Dense(3, name="dense")
    model = keras.Model(inputs, layers.Add()([dense(x) for x in inputs]))
    assert [k.path for k in find_kernels(model)[0]] == ["dense/kernel"]


def test_paths_lead_from_the_model_to_the_variable():
    found, _ = find_kernels(zoo.nested())
    inner = [k for k in found if k.path.startswith("inner/")]
    assert len(found) == 3 and len(inner) == 2
    assert inner[0].layer_path == inner[0].path.removesuffix("/kernel")
    assert [la.name for la in inner[0].layers][1:] == inner[0].layer_path.split("/")
    assert inner[0].target().shape == inner[0].variable.shape
    assert inner[0].hardware is inner[0].quantizer is inner[0].noise is None


def test_selectors_match_by_name_path_class_and_function():
    found, _ = find_kernels(zoo.nested())
    kernel = next(k for k in found if k.path.startswith("inner/"))
    name = kernel.owner.name
    for selector in (
        "inner",
        name,
        f"inner/{name}",
        "inner/*",
        "inn?r",
        layers.Dense,
        keras.Sequential,
        lambda layer: layer.name == "inner",
        lambda layer: layer is kernel.owner,
    ):
        assert matches(selector, kernel), selector
    for selector in ("outer", "inner/kernel", layers.Conv2D, lambda layer: False):
        assert not matches(selector, kernel)
    with pytest.raises(TypeError, match="A selector is .*Received: 7"):
        matches(7, kernel)
    check_selector("inner/*", found)
    check_selector(layers.Conv2D, found)
    with pytest.raises(
        ValueError, match="No layer .* 'conv'.*Layers with kernels: inner"
    ):
        check_selector("conv", found)


def test_names_are_told_apart_and_shares_are_counted():
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    model = model_of(layers.Dense(3))
    assert share_text(model.weights, model.weights[:1]) == "18 of 21 weights (85.7%)"


def test_kernels_of_a_converted_model_know_their_hardware():
    hwa = hwa_keras.to_hwa(
        zoo.nested(), "ste_sign", AdditiveGaussian(0.1), skip="last", verbose=0
    )
    found, _ = find_kernels(hwa)
    assert [k.hardware is None for k in found] == [False, False, True]
    for kernel in found[:2]:
        assert kernel.quantizer is kernel.hardware.quantizer
        assert kernel.noise is kernel.hardware.noise
        assert kernel.hardware.owner() is kernel.owner
        np.testing.assert_array_equal(np.abs(kernel.target()), 1)
