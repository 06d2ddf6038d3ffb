"""MobileNetV2 in its form for small images."""

import keras
from keras import layers

__all__ = ["mobilenet_v2"]

# Expansion, channels, blocks and stride of the first block. The strides of the stem
# and of the second group are 1 where the published network, for images of 224 × 224,
# has 2.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(input_shape=(32, 32, 3), classes=10):
    """MobileNetV2 for small images, ending in logits.

    The blocks of the published network, with fewer strides, as is usual for CIFAR.

    Args:
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.

    Returns:
        A functional Keras model.

    Example:
        >>> hwa_keras.models.mobilenet_v2().output_shape
        (None, 10)

    Reference:
        - Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks",
          2018, arXiv:1801.04381.
    """
    inputs = keras.Input(input_shape)
    x = _activated(_convolution(inputs, 32, 3))
    for expansion, filters, blocks, strides in _GROUPS:
        for i in range(blocks):
            x = _block(x, expansion, filters, strides if i == 0 else 1)
    x = _activated(_convolution(x, 1280, 1))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="mobilenet_v2")


def _convolution(x, filters, size):
    x = layers.Conv2D(
        filters, size, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return layers.BatchNormalization()(x)


def _activated(x):
    return layers.ReLU(max_value=6.0)(x)


def _block(x, expansion, filters, strides):
    y = x
    if expansion > 1:
        y = _activated(_convolution(y, expansion * x.shape[-1], 1))
    y = layers.DepthwiseConv2D(
        3,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
    )(y)
    y = _activated(layers.BatchNormalization()(y))
    y = _convolution(y, filters, 1)
    if strides == 1 and x.shape[-1] == filters:
        return layers.Add()([x, y])
    return y
