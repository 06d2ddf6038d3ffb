"""On what both can express, `summary` counts as Larq does."""

import larq as lq
import pytest
import tensorflow as tf
from larq.models import ModelProfile

import hwa_keras

k2 = tf.keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
TERNARY = {
    "input_quantizer": "ste_tern",
    "depthwise_quantizer": "ste_sign",
    "pointwise_quantizer": "ste_sign",
}


def mlp():
    return tf.keras.Sequential(
        [
            lq.layers.QuantDense(32, kernel_quantizer="ste_sign", input_shape=(20,)),
            k2.BatchNormalization(),
            lq.layers.QuantDense(16, use_bias=False, **BINARY),
            k2.BatchNormalization(scale=False),
            lq.layers.QuantDense(
                8,
                input_quantizer=lq.quantizers.DoReFa(4),
                kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
            ),
            lq.layers.QuantDense(
                8, kernel_quantizer=lq.quantizers.NoOp(precision=8), trainable=False
            ),
            k2.Dense(3, activation="softmax"),
        ]
    )


def cnn():
    x = inputs = k2.Input((16, 16, 3))
    x = lq.layers.QuantConv2D(
        8, 3, padding="same", kernel_quantizer="ste_tern", use_bias=False
    )(x)
    x = skip = k2.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(8, 3, padding="same", **BINARY)(x)
    x = k2.MaxPooling2D(2)(k2.Add()([x, skip]))
    x = k2.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(8, 3, strides=2, groups=2, **BINARY)(x)
    return tf.keras.Model(inputs, k2.Dense(4)(k2.Flatten()(x)))


def separable():
    x = inputs = k2.Input((12, 10, 4))
    x = lq.layers.QuantDepthwiseConv2D(
        3, depth_multiplier=2, depthwise_quantizer="ste_sign"
    )(x)
    x = k2.BatchNormalization()(x)
    x = lq.layers.QuantSeparableConv2D(6, 3, padding="same", **TERNARY)(x)
    x = k2.Reshape((-1, 6))(k2.AveragePooling2D(2)(x))
    x = lq.layers.QuantConv1D(5, 3, **BINARY)(x)
    return tf.keras.Model(inputs, k2.Dense(2)(x))


@pytest.mark.parametrize("make", (mlp, cnn, separable))
def test_figures_are_larqs(make):
    larqs = make()
    theirs = ModelProfile(larqs)
    ours = hwa_keras.summary(hwa_keras.from_larq(larqs), verbose=0)
    assert ours.total_params == theirs.weight_count()
    assert ours.trainable_params == theirs.weight_count(trainable=True)
    assert ours.non_trainable_params == theirs.weight_count(trainable=False)
    assert list(ours.params) == theirs.unique_param_bidtwidths
    for bits, count in ours.params.items():
        assert count == theirs.weight_count(bits)
    assert ours.memory_bits == theirs.memory
    assert ours.memory_bits_with_8_bit_floats == theirs.int8_fp_weights_memory
    assert ours.float32_memory_bits == theirs.fp_equivalent_memory
    rows = dict(theirs.generate_summary())
    assert ours.compression_ratio == rows["Compression Ratio of Memory"]
    assert ours.total_macs == theirs.op_count("mac") > 0
    assert list(ours.macs) == theirs.unique_op_precisions
    for bits, count in ours.macs.items():
        assert count == theirs.op_count("mac", bits) > 0
    binarized = rows.get("Ratio of MACs that are binarized", "0.0000")
    ternarized = rows.get("Ratio of MACs that are ternarized", "0.0000")
    assert f"{ours.macs_share(1):.4f}" == binarized
    assert f"{ours.macs_share(2):.4f}" == ternarized
    assert ours.uncounted == []


@pytest.mark.parametrize("make", (mlp, cnn, separable))
def test_layers_are_larqs(make):
    larqs = make()
    ours = hwa_keras.summary(hwa_keras.from_larq(larqs), verbose=0)
    theirs = {layer.name: layer for layer in ModelProfile(larqs).layer_profiles}
    for row in ours.layers:
        layer = theirs[row.name]
        assert row.input_precision == layer.input_precision
        assert [-1, *row.output_shape[1:]] == list(layer.output_shape)
        assert row.total_params == layer.weight_count()
        assert row.trainable_params == layer.weight_count(trainable=True)
        assert row.memory_bits == layer.memory
        assert sum(row.macs.values()) == (layer.op_count("mac") or 0)
    inputs = {layer.name for layer in larqs.layers if isinstance(layer, k2.InputLayer)}
    assert {row.name for row in ours.layers} == set(theirs) - inputs
