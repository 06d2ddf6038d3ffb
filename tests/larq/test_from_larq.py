"""Models of Larq's layers, trained there, compute the same after `from_larq`."""

import functools

import keras
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import hwa_keras
from hwa_keras import constraints, quantizers
from hwa_keras import layers as hwa
from tests import fresh
from tests.larq.test_quantizers import CASES

k2 = tf.keras.layers
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
}
SEPARABLE = {
    "input_quantizer": "approx_sign",
    "depthwise_quantizer": "ste_tern",
    "pointwise_quantizer": "ste_tern",
    "depthwise_constraint": lq.constraints.WeightClip(0.7),
    "pointwise_constraint": "weight_clip",
}


def mlp():
    return tf.keras.Sequential(
        [
            lq.layers.QuantDense(
                16, kernel_quantizer=lq.quantizers.DoReFa(4, mode="weights")
            ),
            k2.BatchNormalization(momentum=0.8),
            lq.quantizers.SwishSign(beta=3.0),
            lq.layers.QuantDense(
                12, activation=lq.activations.hard_tanh, use_bias=False, **BINARY
            ),
            k2.LeakyReLU(0.2),
            k2.Dropout(0.3),
            k2.Activation(lq.quantizers.SteHeaviside(clip_value=1.3)),
            lq.layers.QuantDense(
                10,
                kernel_quantizer=lq.quantizers.MagnitudeAwareSign(),
                kernel_regularizer="l2",
                activation="softmax",
            ),
        ],
        name="mlp",
    ), (9,)


def convolutions():
    """Every layer of Larq's that is carried over, but the dense and the 3-D one."""
    x = inputs = k2.Input((12, 12, 3))
    x = lq.layers.QuantConv2D(8, 3, padding="same", kernel_quantizer="ste_sign")(x)
    skip = x = k2.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(8, 3, padding="same", groups=2, **BINARY)(x)
    x = k2.BatchNormalization(scale=False)(x)
    x = k2.Add()([x, skip])
    x = lq.layers.QuantDepthwiseConv2D(
        3, strides=2, input_quantizer="ste_sign", depthwise_quantizer="swish_sign"
    )(x)
    x = lq.layers.QuantSeparableConv2D(10, 3, padding="same", **SEPARABLE)(x)
    x = k2.MaxPooling2D(2, padding="same")(x)
    x = lq.layers.QuantConv2DTranspose(
        6, 3, strides=2, padding="same", kernel_quantizer="magnitude_aware_sign"
    )(x)
    x = k2.PReLU(shared_axes=[1, 2])(x)
    x = k2.Reshape((-1, 6))(x)
    x = lq.layers.QuantConv1D(7, 3, padding="causal", dilation_rate=2, **BINARY)(x)
    outputs = k2.Dense(4)(k2.GlobalAveragePooling1D()(x))
    return tf.keras.Model(inputs, outputs, name="convolutions"), (12, 12, 3)


def volumes():
    x = inputs = k2.Input((6, 6, 6, 2))
    x = lq.layers.QuantConv3D(4, 3, **BINARY)(x)
    x = k2.AveragePooling3D(2)(x)
    return tf.keras.Model(inputs, k2.Dense(3)(k2.Flatten()(x))), (6, 6, 6, 2)


def nested_and_shared():
    shared = lq.layers.QuantDense(6, **BINARY)
    block = tf.keras.Sequential(
        [lq.layers.QuantDense(6, input_shape=(6,), **BINARY), k2.LayerNormalization()]
    )
    inputs = k2.Input((6,))
    x = block(inputs)
    x = k2.Concatenate()([shared(x), shared(inputs)])
    return tf.keras.Model(inputs, k2.Dense(2)(x)), (6,)


def sequences():
    inputs = k2.Input((5,), dtype="int32")
    x = k2.Embedding(10, 8)(inputs)
    x = k2.LSTM(6, return_sequences=True)(x)
    x = k2.MultiHeadAttention(2, 3)(x, x)
    x = k2.GRU(4)(x)
    return tf.keras.Model(
        inputs, lq.layers.QuantDense(3, kernel_quantizer="ste_sign")(x)
    ), (5,)


@functools.cache
def trained(make):
    """A model after some training in Keras 2, and inputs of it."""
    tf.keras.utils.set_random_seed(0)
    model, shape = make()
    random = np.random.default_rng(0)
    if make is sequences:
        x = random.integers(10, size=(64, *shape))
    else:
        x = random.normal(size=(64, *shape)).astype("float32")
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    y = random.uniform(size=model(x).shape)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    return model, x


MODELS = (mlp, convolutions, volumes, nested_and_shared, sequences)


@pytest.mark.parametrize("make", MODELS)
def test_outputs_are_larqs(make):
    larqs, x = trained(make)
    expected = larqs(x, training=False).numpy()
    model = hwa_keras.from_larq(larqs)
    found = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.01  # Not a constant.
    assert model.name == larqs.name
    assert {layer.name for layer in model.layers} >= {
        layer.name for layer in larqs.layers
    }
    assert model.count_params() == larqs.count_params()


def test_result_is_saved_and_loaded(tmp_path):
    made = {make.__name__: trained(make) for make in MODELS}
    models = {name: hwa_keras.from_larq(larqs) for name, (larqs, _) in made.items()}
    fresh.assert_loads_equal(
        models, {name: x for name, (_, x) in made.items()}, tmp_path
    )


def test_layers_quantizers_and_constraints():
    model = hwa_keras.from_larq(convolutions()[0])
    by_type = {type(layer): layer for layer in model.layers}
    depthwise = by_type[hwa.HWADepthwiseConv2D]
    assert isinstance(depthwise.kernel_quantizer, quantizers.SwishSign)
    assert isinstance(depthwise.input_quantizer, quantizers.SteSign)
    separable = by_type[hwa.HWASeparableConv2D]
    assert isinstance(separable.kernel_quantizer, quantizers.SteTern)
    # Larq quantizes what comes in, and not what goes from one kernel to the other.
    assert isinstance(separable.input_quantizer.quantizer, quantizers.ApproxSign)
    assert separable.depthwise_constraint.clip_value == 0.7
    assert isinstance(separable.pointwise_constraint, constraints.WeightClip)
    assert by_type[hwa.HWAConv1D].padding == "causal"
    assert isinstance(by_type[hwa.HWAConv1D].kernel_constraint, constraints.WeightClip)
    assert by_type[hwa.HWAConv2D].groups == 2
    assert hwa.HWAConv2DTranspose in by_type


def test_arguments_of_quantizers_and_layers():
    model = hwa_keras.from_larq(trained(mlp)[0])
    first, norm, swish, binary, leaky, dropout, activation, last = model.layers
    assert (first.kernel_quantizer.k_bit, first.kernel_quantizer.mode) == (4, "weights")
    assert norm.momentum == 0.8
    assert binary.activation is keras.activations.hard_tanh
    assert leaky.negative_slope == pytest.approx(0.2)
    assert dropout.rate == 0.3
    assert activation.activation.clip_value == 1.3
    assert swish.beta == 3.0
    assert isinstance(last.kernel_regularizer, keras.regularizers.L2)


def test_training_goes_on_as_in_larq():
    """One step of gradient descent moves both alike, constraints included."""
    larqs, x = trained.__wrapped__(volumes)  # Trained further: not the shared one.
    model = hwa_keras.from_larq(larqs)
    y = np.zeros((64, 3), "float32")
    larqs.compile(tf.keras.optimizers.SGD(1.0), "mse")
    model.compile(keras.optimizers.SGD(1.0), "mse")
    start = larqs.get_weights()
    for trainee in (larqs, model):
        trainee.fit(x, y, batch_size=64, verbose=0)
    for before, ours, theirs in zip(
        start, model.get_weights(), larqs.get_weights(), strict=True
    ):
        assert np.abs(theirs - before).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(model.get_weights()[0]).max() <= 1


def test_latent_weights_are_carried_where_larq_shows_quantized_ones():
    larqs, _ = trained(nested_and_shared)
    expected = larqs.get_weights()
    with lq.context.quantized_scope(True):
        model = hwa_keras.from_larq(larqs)
    for found, latent in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, latent)


def test_slashes_in_names():
    inputs = k2.Input((4,), name="in/puts")
    layer = lq.layers.QuantDense(3, name="block/dense", kernel_quantizer="ste_sign")
    quantized = lq.quantizers.SteSign(name="block/sign")(layer(inputs))
    larqs = tf.keras.Model(inputs, quantized, name="model/s")
    model = hwa_keras.from_larq(larqs)
    assert [made.name for made in model.layers] == [
        "in_puts",
        "block_dense",
        "block_sign",
    ]
    assert model.name == "model_s"


@pytest.fixture
def mixed_precision():
    """Globally, for Larq's layers follow no policy of their own."""
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


def test_mixed_precision_is_carried(mixed_precision):
    inputs = k2.Input((8,))
    outputs = k2.Dense(3, dtype="float32")(lq.layers.QuantDense(16, **BINARY)(inputs))
    larqs = tf.keras.Model(inputs, outputs)
    model = hwa_keras.from_larq(larqs)
    policies = [layer.dtype_policy.name for layer in model.layers[1:]]
    assert policies == ["mixed_float16", "float32"]
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    # Sums of ones are exact in half precision.
    np.testing.assert_allclose(np.asarray(model(x)), larqs(x).numpy(), rtol=1e-6)


def test_flip_ratio_is_carried():
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lq.layers.QuantDense(3, kernel_quantizer="ste_sign", input_shape=(4,))
        larqs = tf.keras.Sequential([layer])
    model = hwa_keras.from_larq(larqs)
    config = model.layers[0].kernel_quantizer.get_config()
    assert config["metrics"] == ["flip_ratio"]


@pytest.mark.parametrize("name, arguments", CASES)
def test_every_quantizer(name, arguments):
    larqs = getattr(lq.quantizers, name)(**arguments)
    layer = lq.layers.QuantDense(
        3, input_quantizer=larqs, kernel_quantizer=larqs, input_shape=(4,)
    )
    (made,) = hwa_keras.from_larq(tf.keras.Sequential([layer])).layers
    for ours in (made.input_quantizer, made.kernel_quantizer):
        assert type(ours) is getattr(quantizers, name)
        assert arguments.items() <= ours.get_config().items()


def functional(layer, shape=(8, 8, 4)):
    inputs = k2.Input(shape)
    return tf.keras.Model(inputs, layer(inputs))


def own_activation(x):
    return 2 * x


class OwnSign(lq.quantizers.SteSign):
    pass


class OwnModel(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = lq.layers.QuantDense(3)

    def call(self, inputs):
        return self.dense(inputs)


def built_own_model():
    model = OwnModel()
    model(np.ones((1, 4), "float32"))
    return model


REFUSED = {
    "pad_values": (
        lambda: functional(
            lq.layers.QuantConv2D(3, 3, padding="same", pad_values=1.0, name="padded")
        ),
        "'padded' .QuantConv2D. has pad_values=1.0.* Train it with pad_values=0",
    ),
    "own quantizer class": (
        lambda: functional(lq.layers.QuantDense(3, kernel_quantizer=OwnSign())),
        "'quant_dense.*' .* has kernel_quantizer=.*OwnSign.*hardware layer yourself",
    ),
    "own quantizer function": (
        lambda: functional(lq.layers.QuantDense(3, input_quantizer=tf.sign)),
        "has input_quantizer=.*sign.*takes any callable",
    ),
    "two quantizers": (
        lambda: functional(
            lq.layers.QuantSeparableConv2D(3, 3, pointwise_quantizer="ste_sign")
        ),
        "different quantizers for its two kernels .*Use the same for both",
    ),
    "two quantizers of one class": (
        lambda: functional(
            lq.layers.QuantSeparableConv2D(
                3,
                3,
                depthwise_quantizer=lq.quantizers.SteSign(clip_value=0.5),
                pointwise_quantizer="ste_sign",
            )
        ),
        "different quantizers for its two kernels .*Use the same for both",
    ),
    "locally connected": (
        lambda: functional(lq.layers.QuantLocallyConnected2D(3, 3, name="local")),
        "'local' .QuantLocallyConnected2D. has no equal .*Replace it",
    ),
    "own layer": (
        lambda: functional(type("Own", (lq.layers.QuantDense,), {})(3, name="own")),
        "'own' .Own. has no equal",
    ),
    "lambda": (
        lambda: functional(k2.Lambda(lambda x: 2 * x, name="doubled")),
        "'doubled' .Lambda. holds Python code",
    ),
    "operation": (
        lambda: functional(lambda x: x + x),
        "TFOpLambda. is a TensorFlow operation .* such as Add",
    ),
    "wrapper": (
        lambda: functional(k2.TimeDistributed(lq.layers.QuantDense(3), name="wrapped")),
        "'wrapped' .TimeDistributed. has no equal",
    ),
    "hard_sigmoid": (
        lambda: functional(k2.Dense(3, activation="hard_sigmoid")),
        "activation='hard_sigmoid', which is another function in Keras 3",
    ),
    "leaky_tanh": (
        lambda: functional(k2.Dense(3, activation=lq.activations.leaky_tanh)),
        "has activation=.*leaky_tanh",
    ),
    "own activation": (
        lambda: functional(k2.Dense(3, activation=own_activation)),
        "has activation=.*own_activation.*not Keras's own",
    ),
    "time_major": (
        lambda: functional(k2.LSTM(3, time_major=True), shape=(8, 4)),
        "has time_major=True, .* Train it with time_major=False",
    ),
    "sparse input": (
        lambda: tf.keras.Model(x := k2.Input((4,), sparse=True), k2.Dense(3)(x)),
        "is sparse or ragged.* Make it a dense input",
    ),
    "sparse input of a sequential": (
        lambda: tf.keras.Sequential([k2.Input((4,), sparse=True), k2.Dense(3)]),
        "is sparse or ragged",
    ),
    "unbuilt": (
        lambda: tf.keras.Sequential([lq.layers.QuantDense(3)], name="fresh"),
        "'fresh' is not built.* Call it once",
    ),
    "subclassed": (built_own_model, "is a OwnModel, a subclass .* Rewrite it"),
    "subclassed inside": (
        lambda: functional(built_own_model(), (4,)),
        "is a OwnModel, a subclass .* Rewrite it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_where_what_and_the_way_out(case):
    make, message = REFUSED[case]
    model = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        hwa_keras.from_larq(model)


@pytest.mark.parametrize("given", (keras.Sequential(), None, k2.Dense(3)))
def test_only_models_of_keras_2(given):
    with pytest.raises(TypeError, match="TF_USE_LEGACY_KERAS=1"):
        hwa_keras.from_larq(given)
