"""Wide residual networks."""

import keras
from keras import layers

from hwa_keras.core.types import Shape


def wide_resnet(
    depth: int = 16,
    width: int = 4,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    dropout: float = 0.0,
) -> keras.Model:
    """A wide residual network for small images, ending in logits.

    Args:
        depth: Integer 6n + 4: number of convolutions on the longest path, plus the
            classifier. Defaults to `16`.
        width: Integer ≥ 1, the widening factor k. Defaults to `4`.
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.
        dropout: Rate between the convolutions of a block. Defaults to `0.0`.

    Returns:
        A functional Keras model.

    Raises:
        ValueError: If the depth is not of the form 6n + 4.

    Example:
        >>> model = hwa_keras.models.wide_resnet(10, 1)
        >>> model.output_shape
        (None, 10)

    Reference:
        - Zagoruyko and Komodakis, "Wide residual networks", 2016, arXiv:1605.07146.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"`depth` must be 6n + 4 with n ≥ 1: 10, 16, 22, 28, ... Received: {depth}."
        )
    inputs = keras.Input(input_shape)
    x = _convolution(inputs, 16, 3)
    for group, filters in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            strides = 2 if group > 0 and block == 0 else 1
            x = _block(x, filters, strides, dropout)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(classes)(x)
    return keras.Model(inputs, outputs, name=f"wide_resnet_{depth}_{width}")


def _convolution(x, filters, size, strides=1):
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)


def _block(x, filters, strides, dropout):
    activated = layers.Activation("relu")(layers.BatchNormalization()(x))
    shortcut = x
    if x.shape[-1] != filters or strides != 1:
        shortcut = _convolution(activated, filters, 1, strides)
    y = _convolution(activated, filters, 3, strides)
    y = layers.Activation("relu")(layers.BatchNormalization()(y))
    if dropout:
        y = layers.Dropout(dropout)(y)
    return layers.Add()([_convolution(y, filters, 3), shortcut])
