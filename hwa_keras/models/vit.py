"""A Vision Transformer in its form for small images."""

import keras
from keras import layers, ops

from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Shape

__all__ = ["TokenPositions", "vit"]

_POOLINGS = ("token", "mean")


def vit(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    patch_size: int = 4,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    mlp_dim: int = 384,
    dropout: float = 0.0,
    pooling: str = "token",
) -> keras.Model:
    """Vision Transformer for small images, ending in logits.

    Patches of an image become tokens by one convolution. A class token goes before
    them, each gets a learned position, and pre-norm blocks of attention and a GELU
    network of two layers follow. All products, patches included, are layers that
    `hwa_keras.to_hwa` puts on hardware: 6·`depth` + 2 kernels.

    Args:
        input_shape: Height, width and channels. Defaults to `(32, 32, 3)`.
        classes: Number of logits. Defaults to `10`.
        patch_size: Integer, pixels along a side of a patch; height and width are
            multiples of it. Defaults to `4`, that is 64 patches.
        dim: Integer, the size of a token, a multiple of `heads`. Defaults to `192`,
            that of ViT-Tiny.
        depth: Integer, the number of blocks. Defaults to `6`.
        heads: Integer, attention heads of a block. Defaults to `3`.
        mlp_dim: Integer, hidden units of the network of a block. Defaults to `384`.
        dropout: Float in [0, 1), of what each half of a block adds. Defaults to `0.0`.
        pooling: `"token"`, the class token's output goes into the logits, or
            `"mean"`, the mean over patches does, without a class token. Defaults to
            `"token"`.

    Returns:
        A functional Keras model.

    Raises:
        ValueError: If the image is not whole patches, `dim` no multiple of `heads`, or
            `pooling` unknown.

    Example:
        >>> model = hwa_keras.models.vit(dim=32, depth=2, heads=4, mlp_dim=64)
        >>> model.output_shape
        (None, 10)
        >>> hwa = hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
        >>> len(hwa_keras.hardware_kernels(hwa))
        14

    Reference:
        - Dosovitskiy et al., "An image is worth 16x16 words: Transformers for image
          recognition at scale", 2021, arXiv:2010.11929.
    """
    sizes = {"patch_size": patch_size, "dim": dim, "depth": depth, "heads": heads}
    check_count("vit", **sizes, mlp_dim=mlp_dim)
    check_choice("vit", _POOLINGS, pooling=pooling)
    _check_shapes(input_shape, patch_size, dim, heads)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(dim, patch_size, patch_size, name="patches")(inputs)
    x = layers.Reshape((-1, dim), name="tokens")(x)
    x = TokenPositions(class_token=pooling == "token", name="positions")(x)
    for i in range(depth):
        x = _block(x, f"block_{i + 1}", heads, mlp_dim, dropout)
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    if pooling == "token":
        x = x[:, 0]
    else:
        x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="vit")


def _check_shapes(input_shape, patch_size, dim, heads):
    height, width = input_shape[:2]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"An image of {height} × {width} pixels is no whole number of patches of "
            f"`patch_size` {patch_size}. Give a size that divides both."
        )
    if dim % heads:
        raise ValueError(
            f"`dim` must be a multiple of `heads`. Received: dim={dim}, heads={heads}."
        )


def _block(x, name, heads, mlp_dim, dropout):
    dim = x.shape[-1]
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_attention_norm")(x)
    attention = layers.MultiHeadAttention(
        heads, dim // heads, name=f"{name}_attention", flash_attention=False
    )
    x = x + layers.Dropout(dropout)(attention(y, y))
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_mlp_norm")(x)
    y = layers.Dense(mlp_dim, "gelu", name=f"{name}_mlp_hidden")(y)
    y = layers.Dense(dim, name=f"{name}_mlp_output")(y)
    return x + layers.Dropout(dropout)(y)


@keras.saving.register_keras_serializable(package=PACKAGE)
class TokenPositions(layers.Layer):
    """Add a learned position to each token, and put a learned token before them.

    Args:
        class_token: Bool, whether to put the token. Defaults to `True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor `[batch, tokens, dim]`.

    Example:
        >>> from hwa_keras.models.vit import TokenPositions
        >>> tuple(TokenPositions()(ops.ones((2, 16, 8))).shape)
        (2, 17, 8)
    """

    def __init__(self, class_token=True, **kwargs):
        super().__init__(**kwargs)
        self.class_token = bool(class_token)

    def build(self, input_shape):
        _, tokens, dim = input_shape
        self.token = None
        if self.class_token:
            self.token = self.add_weight((1, 1, dim), "zeros", name="token")
        self.positions = self.add_weight(
            (1, tokens + self.class_token, dim),
            keras.initializers.RandomNormal(stddev=0.02),
            name="positions",
        )

    def call(self, inputs):
        x = inputs
        if self.class_token:
            shape = (ops.shape(x)[0], 1, x.shape[-1])
            token = ops.cast(ops.broadcast_to(self.token, shape), x.dtype)
            x = ops.concatenate([token, x], axis=1)
        return x + ops.cast(self.positions, x.dtype)

    def compute_output_shape(self, input_shape):
        batch, tokens, dim = input_shape
        return batch, tokens + self.class_token, dim

    def get_config(self):
        return {**super().get_config(), "class_token": self.class_token}
