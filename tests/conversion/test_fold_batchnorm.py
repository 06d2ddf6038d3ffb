"""fold_batchnorm: the same outputs, and a list of what stays."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.circuits import ADC, DAC
from tests import fresh

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def randomized(model):
    """A model whose batch normalizations have statistics, scales and offsets."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            n = layer.moving_mean.shape
            layer.moving_mean.assign(RNG.normal(size=n) * 0.3)
            layer.moving_variance.assign(RNG.uniform(0.3, 2.0, size=n))
            if layer.scale:
                layer.gamma.assign(RNG.uniform(0.5, 1.5, size=n))
            if layer.center:
                layer.beta.assign(RNG.normal(size=n) * 0.3)
    return model


def inputs_of(model):
    shape = (3, *model.input_shape[1:])
    return RNG.normal(size=shape).astype("float32")


def folded_equal(model, **kwargs):
    """The folded copy of a model, whose outputs are the model's to 1e-5."""
    x = inputs_of(model)
    expected = ops.convert_to_numpy(model(x, training=False))
    folded = hwa_keras.fold_batchnorm(model, verbose=0, **kwargs)
    found = ops.convert_to_numpy(folded(x, training=False))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    # The user's model is as it was.
    np.testing.assert_array_equal(model(x, training=False), expected)
    return folded


def count(model):
    flat = model._flatten_layers()
    return sum(isinstance(layer, layers.BatchNormalization) for layer in flat)


FAMILIES = {
    "dense": ((5,), lambda b: layers.Dense(4, use_bias=b)),
    "dense of sequences": ((6, 5), lambda b: layers.Dense(4, use_bias=b)),
    "einsum": (
        (6, 5),
        lambda b: layers.EinsumDense(
            "abc,cd->abd", (None, 4), bias_axes="d" if b else None
        ),
    ),
    "einsum of heads": (
        (6, 5),
        lambda b: layers.EinsumDense(
            "abc,cde->abde", (None, 2, 4), bias_axes="de" if b else None
        ),
    ),
    "conv1d": ((8, 3), lambda b: layers.Conv1D(4, 3, use_bias=b)),
    "conv2d": ((8, 8, 4), lambda b: layers.Conv2D(6, 3, groups=2, use_bias=b)),
    "conv3d": ((5, 5, 5, 2), lambda b: layers.Conv3D(3, 2, use_bias=b)),
    "depthwise1d": (
        (8, 3),
        lambda b: layers.DepthwiseConv1D(3, depth_multiplier=2, use_bias=b),
    ),
    "depthwise2d": (
        (8, 8, 3),
        lambda b: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=b),
    ),
    "separable1d": ((8, 3), lambda b: layers.SeparableConv1D(5, 3, use_bias=b)),
    "separable2d": ((8, 8, 3), lambda b: layers.SeparableConv2D(5, 3, use_bias=b)),
    "transposed1d": (
        (6, 3),
        lambda b: layers.Conv1DTranspose(4, 3, strides=2, use_bias=b),
    ),
    "transposed2d": (
        (6, 6, 3),
        lambda b: layers.Conv2DTranspose(4, 3, strides=2, use_bias=b),
    ),
    "transposed3d": ((4, 4, 4, 2), lambda b: layers.Conv3DTranspose(3, 2, use_bias=b)),
}


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_product_takes_the_normalization_up(family, use_bias):
    shape, build = FAMILIES[family]
    layer = build(use_bias)
    scale, center = use_bias, not use_bias
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer,
            layers.BatchNormalization(scale=scale, center=center),
            layers.ReLU(),
        ]
    )
    if layer.bias is not None:
        layer.bias.assign(RNG.normal(size=layer.bias.shape))
    folded = folded_equal(randomized(model))
    assert folded.unfolded == [] and count(folded) == 0 and count(model) == 1
    assert type(folded) is keras.Sequential
    assert folded.layers[0].bias is not None


def test_kernel_and_bias_are_those_of_the_formula():
    model = randomized(
        keras.Sequential(
            [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization()]
        )
    )
    dense, normalization = model.layers
    dense.bias.assign(RNG.normal(size=4))
    w, b, gamma, beta, mean, variance = (
        ops.convert_to_numpy(v).astype("float64")
        for v in (*dense.weights, *normalization.weights)
    )
    folded = hwa_keras.fold_batchnorm(model, verbose=0).layers[0]
    scale = gamma / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(folded.kernel.numpy(), w * scale, rtol=1e-6)
    expected = (b - mean) * scale + beta
    np.testing.assert_allclose(folded.bias.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_a_normalized_axis_of_an_einsum_is_one_of_several_columns():
    """Of outputs [batch, place, head, size], each head has a scale, whatever size."""
    einsum = layers.EinsumDense("abc,cde->abde", (None, 2, 4))
    model = keras.Sequential(
        [keras.Input((6, 5)), einsum, layers.BatchNormalization(axis=2)]
    )
    folded = folded_equal(randomized(model))
    assert folded.unfolded == [] and folded.layers[0].bias_axes == "d"
    assert tuple(folded.layers[0].bias.shape) == (2, 1)


def test_channels_may_come_first():
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.Conv2D(8, 3, data_format="channels_first", name="conv"),
            layers.BatchNormalization(axis=1, name="of channels"),
            layers.Conv2D(6, 3, data_format="channels_first"),
            layers.BatchNormalization(axis=2, name="of rows"),
        ]
    )
    folded = hwa_keras.fold_batchnorm(randomized(model), verbose=0)
    [(path, reason)] = folded.unfolded
    assert path == "of rows" and "axis 2" in reason
    conv, normalization = model.layers[0], model.layers[1]
    scale = normalization.gamma / ops.sqrt(normalization.moving_variance + 1e-3)
    np.testing.assert_allclose(
        folded.layers[0].kernel, conv.kernel * scale, rtol=1e-5, atol=1e-7
    )


def residual():
    """A network with a skip, in which all normalizations follow products."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    y = layers.Dropout(0.5)(y)
    y = layers.BatchNormalization()(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D()(x))
    x = layers.BatchNormalization()(x, training=False)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def mobilenet():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=4
    )


@pytest.mark.parametrize("build", [residual, mobilenet], ids=lambda f: f.__name__)
def test_all_normalizations_of_a_network_fold(build):
    model = randomized(build())
    folded = folded_equal(model)
    assert folded.unfolded == [] and count(folded) == 0
    assert folded.count_params() < model.count_params()


def test_what_stays_is_listed_with_the_reason(capsys):
    model = randomized(hwa_keras.models.wide_resnet(10, 1))
    folded = folded_equal(model)
    assert count(folded) == len(folded.unfolded) == 4 and count(model) == 7
    reasons = [reason for _, reason in folded.unfolded]
    assert all("Add" in reason for reason in reasons[1:])
    assert "go elsewhere" in reasons[0]
    hwa_keras.fold_batchnorm(model)
    told = capsys.readouterr().err
    assert "3 of 7" in told
    assert all(path in told for path, _ in folded.unfolded)


def listed(*stack, shape=(8,)):
    """{name of a normalization that stays: reason} of layers one after the other."""
    model = keras.Sequential([keras.Input(shape), *stack])
    return dict(folded_equal(randomized(model)).unfolded)


def normalization(name="bn", **kwargs):
    return layers.BatchNormalization(name=name, **kwargs)


def test_what_no_product_precedes_stays():
    class OwnNormalization(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask) + 1.0

    assert listed(normalization(), layers.Dense(3)) == {"bn": "follows an input"}
    found = listed(layers.Dense(3, activation="relu", name="d"), normalization())
    assert found == {"bn": "follows the activation 'relu' of Dense 'd'"}
    found = listed(layers.Dense(3), layers.ReLU(name="r"), normalization())
    assert found == {"bn": "follows ReLU 'r'"}
    padding = (layers.Conv2D(3, 2), layers.ZeroPadding2D(name="p"), normalization())
    assert "ZeroPadding2D" in listed(*padding, shape=(6, 6, 2))["bn"]
    found = listed(layers.Dense(3), OwnNormalization(name="bn"))
    assert "OwnNormalization" in found["bn"]
    dense = layers.Dense(8)
    shared = (dense, normalization("first"), dense, normalization("second"))
    inputs = keras.Input((8,))
    x = inputs
    for layer in shared:
        x = layer(x)
    folded = folded_equal(randomized(keras.Model(inputs, x)))
    assert all("called 2 times" in reason for _, reason in folded.unfolded)


class Subclassed(keras.Model):
    """Its own call, around a functional model whose graph is known."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Dense(6)
        self.norm = normalization("unseen")
        inputs = keras.Input((6,))
        x = normalization("seen")(layers.Dense(5)(inputs))
        self.body = keras.Model(inputs, x, name="body")

    def call(self, x, training=False):
        return self.body(self.norm(self.stem(x), training=training), training=training)


def test_models_inside_of_others_are_folded_and_own_calls_are_not():
    model = Subclassed()
    x = RNG.normal(size=(3, 4)).astype("float32")
    model(x)
    expected = randomized(model)(x, training=False)
    folded = hwa_keras.fold_batchnorm(model, verbose=0)
    assert type(folded) is Subclassed
    np.testing.assert_allclose(folded(x, training=False), expected, atol=1e-5)
    [(path, reason)] = folded.unfolded
    assert path == "unseen" and "Subclassed" in reason
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5), normalization("inner")], name="part"
    )
    inputs = keras.Input((5,))
    nested = keras.Model(inputs, normalization("outer")(inner(inner(inputs))))
    folded = folded_equal(randomized(nested))
    assert dict(folded.unfolded) == {"outer": "follows Sequential 'part'"}
    assert count(folded) == 1


def test_layers_on_hardware_stay_on_it_where_their_parts_allow():
    model = randomized(residual())
    hardware = hwa_keras.Hardware(
        kernel_noise="programming_noise", dac=DAC(12, range=8.0), tile=(16, 16)
    )
    hwa = hwa_keras.to_hwa(model, hardware=hardware, seed=0, verbose=0)
    folded = folded_equal(hwa)
    assert folded.unfolded == []
    assert len(hwa_keras.hardware_kernels(folded)) == 4
    assert not any("batch_normalization" in path for path, _ in folded.digital)
    rules = [("dense", {"adc": ADC(8, range=4.0)})]
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, name="dense"), normalization()]
    )
    hwa = hwa_keras.to_hwa(model, rules=rules, verbose=0)
    [(_, reason)] = folded_equal(randomized(hwa)).unfolded
    assert "ADC" in reason


def test_a_chip_of_a_folded_model_holds_the_folded_weights(tmp_path):
    model = randomized(residual())
    model.compile("adam", "mse", metrics=["mae"])
    folded = folded_equal(model)
    x = inputs_of(model)
    y = model.predict(x, verbose=0)
    assert folded.evaluate(x, y, verbose=0)[0] < 1e-9
    perfect = hwa_keras.devices.PCM(programming_scale=0, drift_scale=0, read_scale=0)
    chip = hwa_keras.program(folded, perfect, seed=0, verbose=0)
    np.testing.assert_allclose(chip.predict(x, verbose=0), y, atol=1e-4)
    found = hwa_keras.drift_sweep(
        folded, "pcm", (x, y), times=[1.0, 3600.0], chips=1, verbose=0
    )
    assert found.metric == "mae"
    fresh.assert_loads_equal({"folded": folded}, {"folded": x}, tmp_path)
    assert folded.fit(x, y, verbose=0).history["loss"][0] < 1.0


def test_bad_input_is_told():
    with pytest.raises(TypeError, match="Keras model"):
        hwa_keras.fold_batchnorm(layers.Dense(3))
    with pytest.raises(ValueError, match="not built"):
        hwa_keras.fold_batchnorm(keras.Sequential([normalization()]))
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="no BatchNormalization"):
        hwa_keras.fold_batchnorm(plain)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3), normalization()])
    with pytest.raises(ValueError, match="is a chip"):
        hwa_keras.fold_batchnorm(hwa_keras.program(model, "pcm", seed=0, verbose=0))
    model.layers[1].moving_variance.assign(-np.ones(3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        hwa_keras.fold_batchnorm(model)
