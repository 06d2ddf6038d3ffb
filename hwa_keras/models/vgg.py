"""VGG networks in their form for small images."""

import keras
from keras import layers

from hwa_keras.core.types import Shape

__all__ = ["vgg13"]


def vgg13(input_shape: Shape = (32, 32, 3), classes: int = 10) -> keras.Model:
    """VGG-13 for small images, ending in logits.

    The ten convolutions of the published network, each with batch normalization, and
    one dense layer instead of its three, as is usual for CIFAR.

    Args:
        input_shape: Height, width and channels; at least 32 × 32. Defaults to
            `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.

    Returns:
        A functional Keras model.

    Example:
        >>> hwa_keras.models.vgg13().output_shape
        (None, 10)

    Reference:
        - Simonyan and Zisserman, "Very deep convolutional networks for large-scale
          image recognition", 2014, arXiv:1409.1556.
    """
    inputs = x = keras.Input(input_shape)
    for filters in (64, 128, 256, 512, 512):
        for _ in range(2):
            x = layers.Conv2D(
                filters, 3, padding="same", kernel_initializer="he_normal"
            )(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="vgg13")
