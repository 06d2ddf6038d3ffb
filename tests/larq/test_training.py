"""Larq's metric and constraint against ours, and its quantizers in our layers."""

import keras
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from hwa_keras.constraints import WeightClip
from hwa_keras.layers import HWAConv2D, HWADense
from hwa_keras.metrics import FlipRatio
from hwa_keras.quantizers import SteSign

QUANTIZERS = {
    "SteSign": lq.quantizers.SteSign,
    "ApproxSign": lq.quantizers.ApproxSign,
    "SwishSign": lq.quantizers.SwishSign,
    "MagnitudeAwareSign": lq.quantizers.MagnitudeAwareSign,
    "SteTern": lambda: lq.quantizers.SteTern(ternary_weight_networks=True),
    "SteHeaviside": lq.quantizers.SteHeaviside,
    "DoReFa": lambda: lq.quantizers.DoReFa(4, mode="weights"),
    "NoOp": lambda: lq.quantizers.NoOp(precision=8),
    "a function": lambda: lq.quantizers.ste_sign,
}


def test_flip_ratio_over_a_sequence_of_updates():
    random = np.random.default_rng(0)
    ours, larqs = FlipRatio(), lq.metrics.FlipRatio()
    for step in range(20):
        values = random.choice([-1, 0, 1], size=(5, 7)).astype("float32")
        ours.update_state(values)
        larqs.update_state(tf.constant(values))
        # The same mean, from the share that changed rather than one less the rest.
        assert float(ours.result()) == pytest.approx(float(larqs.result()), abs=1e-6)
        if step == 9:
            ours.reset_state()
            larqs.reset_state()
            assert float(ours.result()) == float(larqs.result()) == 0
    assert 0.5 < float(ours.result()) < 0.8
    assert ours.get_config()["values_dtype"] == larqs.get_config()["values_dtype"]


def test_flip_ratio_of_a_kernel_in_training():
    """The same start and the same batches flip the same weights in both."""
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6)).astype("float32")
    y = random.normal(size=(64, 4)).astype("float32")
    kernel = random.normal(size=(6, 4), scale=0.1).astype("float32")
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lq.layers.QuantDense(4, kernel_quantizer="ste_sign", input_shape=(6,))
        larqs = tf.keras.Sequential([layer])
    layer = HWADense(4, kernel_quantizer=SteSign(metrics=["flip_ratio"]))
    ours = keras.Sequential([keras.Input((6,)), layer])
    histories = []
    for model, sgd in ((larqs, tf.keras.optimizers.SGD), (ours, keras.optimizers.SGD)):
        model.set_weights([kernel, np.zeros(4, "float32")])
        model.compile(sgd(0.05), "mse")
        history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        (name,) = [name for name in history.history if "flip_ratio" in name]
        histories.append(history.history[name])
    np.testing.assert_allclose(histories[1], histories[0], atol=1e-6)
    assert max(histories[0]) > 0


@pytest.mark.parametrize("clip_value", (0.5, 1, 2.0))
def test_weight_clip(clip_value):
    w = np.random.default_rng(0).normal(size=(50, 40), scale=2).astype("float32")
    expected = lq.constraints.WeightClip(clip_value)(tf.constant(w)).numpy()
    found = np.asarray(WeightClip(clip_value)(w))
    np.testing.assert_array_equal(found, expected)
    config = lq.constraints.WeightClip(clip_value).get_config()
    assert WeightClip.from_config(config).get_config() == config
    assert np.abs(found).max() == clip_value


def trained(layers, x, y):
    """Kernels before and after a training, and its losses."""
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    before = [w.numpy() for layer in layers for w in layer.trainable_weights]
    history = model.fit(x, y, batch_size=32, epochs=8, verbose=0)
    after = [w.numpy() for layer in layers for w in layer.trainable_weights]
    return before, after, history.history["loss"]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_larqs_quantizers_train_in_hardware_layers(name):
    make = QUANTIZERS[name]
    random = np.random.default_rng(0)
    y = random.integers(3, size=128)
    centers = random.normal(size=(3, 6, 6, 2))
    x = (centers[y] + 0.5 * random.normal(size=(128, 6, 6, 2))).astype("float32")
    layers = [
        HWAConv2D(8, 3, kernel_quantizer=make()),
        keras.layers.BatchNormalization(),
        HWAConv2D(8, 3, kernel_quantizer=make(), input_quantizer=make()),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        HWADense(16, kernel_quantizer=make(), input_quantizer=make()),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    before, after, losses = trained(layers, x, y)
    assert losses[-1] < 0.7 * losses[0]
    moved = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert all(moved)


def test_larqs_quantizers_compute_in_hardware_layers():
    """q(x)·q(W), as Larq's own layer computes it from the same weights."""
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
    settings = {"filters": 5, "kernel_size": 3, "padding": "same", "strides": 2}
    larqs = lq.layers.QuantConv2D(
        **settings, input_quantizer="approx_sign", kernel_quantizer="ste_tern"
    )
    ours = HWAConv2D(
        **settings,
        input_quantizer=lq.quantizers.ApproxSign(),
        kernel_quantizer=lq.quantizers.SteTern(),
    )
    expected = larqs(x).numpy()
    ours.build(x.shape)
    ours.set_weights(larqs.get_weights())
    np.testing.assert_allclose(np.asarray(ours(x)), expected, rtol=1e-6)
