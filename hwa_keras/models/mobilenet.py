"""MobileNetV2 and MobileNetV3-Small in their forms for small images."""

import keras
from keras import layers

from hwa_keras.core.checks import check_positive
from hwa_keras.core.types import Shape

__all__ = ["mobilenet_v2", "mobilenet_v3_small"]

# MobileNetV2: expansion, channels, blocks and stride of the first block. The strides of
# the stem and of the second group are 1 where the published network, for images of
# 224 × 224, has 2.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# MobileNetV3-Small: size of the depthwise kernel, expanded channels, channels, whether
# it squeezes and excites, activation, stride. The strides of the stem and of the first
# block are 1 where the published network has 2.
_BLOCKS = (
    (3, 16, 16, True, "relu", 1),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)


def mobilenet_v2(input_shape: Shape = (32, 32, 3), classes: int = 10) -> keras.Model:
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
            step = strides if i == 0 else 1
            x = _block(x, 3, expansion * x.shape[-1], filters, step, _activated)
    x = _activated(_convolution(x, 1280, 1))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="mobilenet_v2")


def mobilenet_v3_small(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    dropout: float = 0.2,
) -> keras.Model:
    """MobileNetV3-Small for small images, ending in logits.

    The blocks of the published network, squeeze-and-excitation and hard swish
    included, with two strides of 2 fewer, as is usual for CIFAR.

    Args:
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.
        width: Float, what all numbers of channels are multiplied by, rounded to
            multiples of 8. Defaults to `1.0`.
        dropout: Float in [0, 1), before the logits. Defaults to `0.2`.

    Returns:
        A functional Keras model.

    Raises:
        ValueError: If `width` is not positive.

    Example:
        >>> hwa_keras.models.mobilenet_v3_small(width=0.25).output_shape
        (None, 10)

    Reference:
        - Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244, table 2.
    """
    check_positive("mobilenet_v3_small", width=width)
    inputs = keras.Input(input_shape)
    x = _hard_swish(_convolution(inputs, _rounded(16 * width), 3))
    for size, expanded, filters, squeeze, activation, strides in _BLOCKS:
        expanded, filters = _rounded(expanded * width), _rounded(filters * width)
        activated = _relu if activation == "relu" else _hard_swish
        x = _block(x, size, expanded, filters, strides, activated, squeeze)
    x = _hard_swish(_convolution(x, _rounded(576 * width), 1))
    x = layers.GlobalAveragePooling2D()(x)
    x = _hard_swish(layers.Dense(_rounded(1024 * width))(x))
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="mobilenet_v3_small")


def _convolution(x, filters, size):
    x = layers.Conv2D(
        filters, size, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return layers.BatchNormalization()(x)


def _activated(x):
    return layers.ReLU(max_value=6.0)(x)


def _relu(x):
    return layers.ReLU()(x)


def _hard_swish(x):
    return layers.Activation("hard_swish")(x)


def _rounded(channels):
    """The multiple of 8 that is nearest, but not below nine tenths of what is given."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _block(x, size, expanded, filters, strides, activated, squeeze=False):
    """An inverted residual: expansion, depthwise convolution, linear bottleneck."""
    y = x
    if expanded != x.shape[-1]:
        y = activated(_convolution(y, expanded, 1))
    y = layers.DepthwiseConv2D(
        size,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
    )(y)
    y = activated(layers.BatchNormalization()(y))
    if squeeze:
        y = _excited(y)
    y = _convolution(y, filters, 1)
    if strides == 1 and x.shape[-1] == filters:
        return layers.Add()([x, y])
    return y


def _excited(x):
    """Squeeze and excitation: each channel times a gate of all channels' means."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(_rounded(channels / 4), 1, activation="relu")(gate)
    gate = layers.Conv2D(channels, 1, activation="hard_sigmoid")(gate)
    return layers.Multiply()([x, gate])
