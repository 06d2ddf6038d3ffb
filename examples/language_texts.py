"""Pretrained language models and windows of text: what the studies start from."""

import warnings
from pathlib import Path
from typing import NamedTuple

import keras
import keras_hub
import numpy as np

from hwa_keras import metrics, recipes

__all__ = ["Windows", "load_model", "windows_of"]

_CHARACTERS = 16  # Read for each token: few tokens are longer.


class Windows(NamedTuple):
    """Windows of a text: inputs of a `CausalLM`, and the tokens that come next."""

    inputs: dict
    targets: np.ndarray


def load_model(path, weights=None):
    """A causal language model, compiled to measure its perplexity on tokens.

    `model.evaluate` would tokenize its inputs: `keras.Model.evaluate(model, ...)` takes
    tokens.

    Args:
        path: Folder of a pretrained model, in the format of keras-hub or of Hugging
            Face, or a `.keras` file.
        weights: Path of a `.weights.h5` file to load into it, or None.

    Raises:
        ValueError: If there is no such model, or the weights are those of another one.
    """
    model = _read(Path(path))
    if not isinstance(model, keras_hub.models.CausalLM):
        raise ValueError(
            f"{path} must hold a CausalLM of keras-hub, which has `generate`. It holds "
            f"a {type(model).__name__}."
        )
    if weights is not None:
        _load_weights(model, path, weights)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[metrics.Perplexity(from_logits=True)],
        sampler="greedy",
        jit_compile=False,  # XLA would compile for minutes.
    )
    return model


def windows_of(model, path, count, length):
    """The first windows of a text file.

    Args:
        model: A `CausalLM` with a preprocessor.
        path: Of the text file.
        count: Integer, how many windows.
        length: Integer, tokens in a window.

    Raises:
        ValueError: If the text is too short, or the tokenizer of the model is that of
            another one.
    """
    with Path(path).open(encoding="utf-8") as text:
        tokens = recipes.tokens_of(model, text.read(_CHARACTERS * count * length))
    wanted = count * length + 1
    if len(tokens) < wanted:
        raise ValueError(
            f"{path} has {len(tokens)} tokens, and {count} windows of {length} need "
            f"{wanted}. Take fewer or shorter windows, or a longer text."
        )
    shape = count, length
    inputs = tokens[: wanted - 1].reshape(shape)
    masked = {"token_ids": inputs, "padding_mask": np.ones(shape, "int32")}
    return Windows(masked, tokens[1:wanted].reshape(shape))


def _read(path):
    if path.suffix == ".keras":
        return keras.saving.load_model(path, compile=False)
    if not path.is_dir():
        raise ValueError(f"{path} is neither the folder of a model nor a .keras file.")
    return keras_hub.models.CausalLM.from_preset(str(path))


def _load_weights(model, path, weights):
    if not Path(weights).is_file():
        raise ValueError(f"There is no file {weights}.")
    try:
        with warnings.catch_warnings():
            # Keras warns of what a file lacks, and goes on.
            warnings.filterwarnings("error", "Skipping nested container")
            model.load_weights(weights)
    except (ValueError, UserWarning) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"{weights} holds the weights of another model than {path}, or of one of "
            f"another size. {reason}"
        ) from error
