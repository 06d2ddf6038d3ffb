"""A recurrent language model."""

from collections.abc import Callable

import keras
from keras.layers import Dropout, Embedding

from hwa_keras.core.types import Seed, Tensor
from hwa_keras.layers import HWALSTM, HWADense
from hwa_keras.noise import Noise
from hwa_keras.quantizers import Quantizer


def lstm_lm(
    vocabulary_size: int,
    embedding: int = 200,
    units: int = 200,
    depth: int = 2,
    dropout: float = 0.5,
    batch_size: int = 20,
    length: int = 35,
    kernel_quantizer: str | Quantizer | Callable[[Tensor], Tensor] | None = None,
    kernel_noise: str | Noise | Callable[[Tensor, Seed], Tensor] | None = None,
) -> keras.Model:
    """An LSTM language model for truncated back-propagation, ending in logits.

    A word embedding, `depth` LSTM layers and a dense decoder, with dropout after each
    but the decoder. The LSTM layers are stateful: a batch goes on where the one before
    it ended, as `hwa_keras.datasets.Windows` cuts a text, and gradients end at its
    beginning. `training.ResetStates` has them begin anew at each epoch and evaluation.
    LSTM layers and decoder are hardware layers, plain ones if neither quantizer nor
    noise is given; the embedding, a table that is looked up, stays digital.

    Args:
        vocabulary_size: Integer, number of words, and of logits.
        embedding: Integer, width of the embedding. Defaults to `200`.
        units: Integer, width of each LSTM layer. Defaults to `200`.
        depth: Integer ≥ 1, number of LSTM layers. Defaults to `2`.
        dropout: Rate. Defaults to `0.5`.
        batch_size: Integer, number of texts read side by side. Defaults to `20`.
        length: Integer, number of words in a window. Defaults to `35`.
        kernel_quantizer: A quantizer or its name, or None.
        kernel_noise: A noise or its name, or None. Each layer gets a copy.

    Returns:
        A functional Keras model from word numbers of shape `(batch_size, length)` to
        logits of shape `(batch_size, length, vocabulary_size)`.

    Example:
        >>> model = hwa_keras.models.lstm_lm(100, batch_size=4, length=7)
        >>> model.output_shape
        (4, 7, 100)

    Reference:
        - Zaremba et al., "Recurrent neural network regularization", 2014,
          arXiv:1409.2329.
        - Merity et al., "Pointer sentinel mixture models", 2016, arXiv:1609.07843
          (WikiText-2).
    """
    if depth < 1:
        raise ValueError(f"`depth` must be at least 1. Received: depth={depth}.")
    small = keras.initializers.RandomUniform(-0.1, 0.1)
    words = keras.Input(batch_shape=(batch_size, length), dtype="int32")
    hardware = {"kernel_quantizer": kernel_quantizer, "kernel_noise": kernel_noise}
    x = Embedding(vocabulary_size, embedding, embeddings_initializer=small)(words)
    x = Dropout(dropout)(x)
    for _ in range(depth):
        x = HWALSTM(units, return_sequences=True, stateful=True, **hardware)(x)
        x = Dropout(dropout)(x)
    decoder = HWADense(
        vocabulary_size, kernel_initializer=small, name="decoder", **hardware
    )
    logits = decoder(x)
    return keras.Model(words, logits, name="lstm_lm")
