"""Densely connected networks for small images."""

import keras
from keras import layers

from hwa_keras.core.types import Shape

__all__ = ["densenet40"]


def densenet40(
    input_shape: Shape = (32, 32, 3), classes: int = 10, growth: int = 12
) -> keras.Model:
    """DenseNet-40 without bottlenecks, ending in logits.

    Args:
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.
        growth: Integer ≥ 1, the channels that each layer adds. Defaults to `12`.

    Returns:
        A functional Keras model.

    Example:
        >>> hwa_keras.models.densenet40().output_shape
        (None, 10)

    Reference:
        - Huang et al., "Densely connected convolutional networks", 2016,
          arXiv:1608.06993.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(
        16, 3, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(inputs)
    for block in range(3):
        if block > 0:
            x = _convolution(x, x.shape[-1], 1)
            x = layers.AveragePooling2D(2)(x)
        for _ in range(12):
            x = layers.Concatenate()([x, _convolution(x, growth, 3)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="densenet40")


def _convolution(x, filters, size):
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.Conv2D(
        filters, size, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
