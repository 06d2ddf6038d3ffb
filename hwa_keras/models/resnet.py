"""Residual networks in their form for small images."""

import keras
from keras import layers

from hwa_keras.core.types import Shape

__all__ = ["resnet18", "resnet34", "resnet50"]


def resnet18(input_shape: Shape = (32, 32, 3), classes: int = 10) -> keras.Model:
    """ResNet-18 for small images, ending in logits.

    The blocks of the published network; the first convolution is 3 × 3 with stride 1
    and no pooling follows it, as is usual for CIFAR.

    Args:
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.

    Returns:
        A functional Keras model.

    Example:
        >>> hwa_keras.models.resnet18().output_shape
        (None, 10)

    Reference:
        - He et al., "Deep residual learning for image recognition", 2015,
          arXiv:1512.03385.
    """
    return _resnet("resnet18", _basic, (2, 2, 2, 2), input_shape, classes)


def resnet34(input_shape: Shape = (32, 32, 3), classes: int = 10) -> keras.Model:
    """ResNet-34 for small images, ending in logits; see `resnet18`."""
    return _resnet("resnet34", _basic, (3, 4, 6, 3), input_shape, classes)


def resnet50(input_shape: Shape = (32, 32, 3), classes: int = 10) -> keras.Model:
    """ResNet-50, of bottleneck blocks, for small images; see `resnet18`."""
    return _resnet("resnet50", _bottleneck, (3, 4, 6, 3), input_shape, classes)


def _resnet(name, block, depths, input_shape, classes):
    inputs = keras.Input(input_shape)
    x = layers.ReLU()(_convolution(inputs, 64, 3))
    for group, depth in enumerate(depths):
        for i in range(depth):
            strides = 2 if group > 0 and i == 0 else 1
            x = block(x, 64 * 2**group, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name=name)


def _convolution(x, filters, size, strides=1):
    x = layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    return layers.BatchNormalization()(x)


def _basic(x, filters, strides):
    y = layers.ReLU()(_convolution(x, filters, 3, strides))
    return _joined(x, _convolution(y, filters, 3), strides)


def _bottleneck(x, filters, strides):
    y = layers.ReLU()(_convolution(x, filters, 1))
    y = layers.ReLU()(_convolution(y, filters, 3, strides))
    return _joined(x, _convolution(y, 4 * filters, 1), strides)


def _joined(x, y, strides):
    if x.shape[-1] != y.shape[-1] or strides != 1:
        x = _convolution(x, y.shape[-1], 1, strides)
    return layers.ReLU()(layers.Add()([x, y]))
