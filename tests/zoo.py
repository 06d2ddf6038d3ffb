"""Small Keras models of every kind that a user may bring."""

import keras
import numpy as np
import pytest
from keras import layers


def mlp():
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, activation="relu"),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )


def residual_cnn():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    y = layers.BatchNormalization()(x)
    y = layers.Activation("relu")(y)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(y)
    y = layers.DepthwiseConv2D(3, padding="same")(y)
    x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


@keras.saving.register_keras_serializable(package="zoo")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, activation="relu")
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 12), "float32"))
    return model


def recurrent():
    return keras.Sequential(
        [
            keras.Input((6, 5)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4, activation="relu")),
            layers.GRU(4),
            layers.Dense(3),
        ]
    )


def nested():
    inner = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, activation="relu"), layers.Dense(6)],
        name="inner",
    )
    inputs = keras.Input((12,))
    return keras.Model(inputs, layers.Dense(3, name="outer")(inner(inputs)))


def attention():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(num_heads=2, key_dim=4)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def mobilenet():
    return keras.applications.MobileNetV2(
        (32, 32, 3), weights=None, classes=3, classifier_activation=None
    )


def resnet50():
    return keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=3, classifier_activation=None
    )


def bert():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=10,
    )
    return keras_hub.models.BertTextClassifier(backbone, num_classes=3, dropout=0.0)


SMALL = [mlp, residual_cnn, subclassed, recurrent, nested, attention]
# Slow to build or to compile.
LARGE = [mobilenet, resnet50, bert]


def inputs_for(model, batch=4, seed=0):
    """A batch of inputs for a model of this file."""
    rng = np.random.default_rng(seed)
    if isinstance(getattr(model, "input", None), dict):
        return {
            "token_ids": rng.integers(0, 50, (batch, 10)),
            "segment_ids": np.zeros((batch, 10), "int64"),
            "padding_mask": np.ones((batch, 10), "int64"),
        }
    shape = (12,) if isinstance(model, Subclassed) else model.input_shape[1:]
    return rng.normal(size=(batch, *shape)).astype("float32")


def digits_like(count=64, seed=0):
    """A separable three-class problem for `mlp`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centers = np.random.default_rng(99).normal(size=(3, 12))
    x = centers[labels] + 0.5 * rng.normal(size=(count, 12))
    return x.astype("float32"), labels
