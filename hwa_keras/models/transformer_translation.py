"""An encoder–decoder Transformer, of keras-hub's blocks."""

from typing import Any

import keras
from keras import layers

from hwa_keras.core.checks import check_count

__all__ = ["transformer_translation"]


def transformer_translation(
    source_vocabulary: int,
    target_vocabulary: int,
    source_length: int,
    target_length: int,
    dim: int = 512,
    depth: int = 6,
    heads: int = 4,
    mlp_dim: int = 1024,
    dropout: float = 0.1,
) -> keras.Model:
    """Encoder–decoder Transformer for translation, ending in logits.

    `keras_hub.layers.TransformerEncoder` and `TransformerDecoder`, pre-norm, with
    learned positions. The defaults are the Transformer of 12 layers that the thesis
    trains on IWSLT'14, except that source, target and head have weights of their own.

    It is trained by teacher forcing. Its inputs are a dictionary: `"source"` and
    `"target"`, the latter shifted by one token, so that the logits at position i
    predict token i of the translation from those before. Token 0 is padding, which
    attention leaves out; have the loss leave it out with `ignore_class=0`.

    Args:
        source_vocabulary: Integer, number of source tokens, padding included.
        target_vocabulary: Integer, number of target tokens, padding included.
        source_length: Integer, the longest source in tokens.
        target_length: Integer, the longest target in tokens.
        dim: Integer, the size of a token, a multiple of `heads`. Defaults to `512`.
        depth: Integer, blocks of the encoder, and of the decoder. Defaults to `6`.
        heads: Integer, attention heads of a block. Defaults to `4`.
        mlp_dim: Integer, hidden units of a block. Defaults to `1024`.
        dropout: Float in [0, 1). Defaults to `0.1`.

    Returns:
        A functional Keras model.

    Raises:
        ImportError: If keras-hub is not installed.
        ValueError: If a size is no positive integer, or `dim` no multiple of `heads`.

    Example:
        >>> model = hwa_keras.models.transformer_translation(
        ...     40, 60, 16, 20, dim=32, depth=1, heads=2, mlp_dim=64
        ... )
        >>> model.output_shape
        (None, 20, 60)

    Reference:
        - Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762.
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.3.3.
    """
    sizes = {"dim": dim, "depth": depth, "heads": heads, "mlp_dim": mlp_dim}
    lengths = {"source_length": source_length, "target_length": target_length}
    check_count("transformer_translation", **sizes, **lengths)
    vocabularies = {"source_vocabulary": source_vocabulary}
    vocabularies["target_vocabulary"] = target_vocabulary
    check_count("transformer_translation", 2, **vocabularies)
    if dim % heads:
        raise ValueError(
            f"`dim` must be a multiple of `heads`. Received: dim={dim}, heads={heads}."
        )
    hub_layers = _keras_hub_layers()
    source = keras.Input((source_length,), dtype="int32", name="source")
    target = keras.Input((target_length,), dtype="int32", name="target")
    options: dict[str, Any] = {
        "num_heads": heads,
        "intermediate_dim": mlp_dim,
        "dropout": dropout,
    }
    options |= {"activation": "relu", "normalize_first": True}

    def embedded(tokens, name, vocabulary, length):
        embed = hub_layers.TokenAndPositionEmbedding(
            vocabulary, length, dim, name=f"{name}_embedding"
        )
        return layers.Dropout(dropout)(embed(tokens))

    masks = [keras.ops.not_equal(tokens, 0) for tokens in (source, target)]
    memory = embedded(source, "source", source_vocabulary, source_length)
    for i in range(depth):
        encoder = hub_layers.TransformerEncoder(**options, name=f"encoder_{i + 1}")
        memory = encoder(memory, padding_mask=masks[0])
    memory = layers.LayerNormalization(epsilon=1e-5, name="encoder_norm")(memory)
    x = embedded(target, "target", target_vocabulary, target_length)
    for i in range(depth):
        decoder = hub_layers.TransformerDecoder(**options, name=f"decoder_{i + 1}")
        x = decoder(
            x, memory, decoder_padding_mask=masks[1], encoder_padding_mask=masks[0]
        )
    x = layers.LayerNormalization(epsilon=1e-5, name="decoder_norm")(x)
    logits = layers.Dense(target_vocabulary, name="logits")(x)
    inputs = {"source": source, "target": target}
    return keras.Model(inputs, logits, name="transformer_translation")


def _keras_hub_layers():
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "transformer_translation is made of keras-hub's blocks. Install them with "
            "pip install 'hwa_keras[nlp]'."
        ) from error
    return keras_hub.layers
