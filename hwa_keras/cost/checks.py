"""Which models have costs that can be told."""

import keras

from hwa_keras.deployment import Chip

__all__ = ["check_model"]


def check_model(owner, model):
    """Raise an error that names the function `owner` unless it is a built model."""
    if not isinstance(model, keras.Model) or isinstance(model, Chip):
        raise TypeError(
            f"`{owner}` takes a Keras model; of a chip, give it the model that was "
            f"programmed. Received: {model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights yet. Call it "
            "once on a batch of inputs, or begin it with keras.Input(shape)."
        )
