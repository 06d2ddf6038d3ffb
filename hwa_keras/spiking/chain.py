"""Models that are one chain of layers."""

import keras
from keras import layers

__all__ = ["PASSED", "chain_of"]

PASSED = (
    layers.ActivityRegularization,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.InputLayer,
)
"""Layers that only pass on at inference."""


def chain_of(owner, model):
    """The layers of a model in one chain, from inputs to outputs.

    Args:
        owner: String, the function that errors name.
        model: A built Keras model, also with models inside.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If its layers are not known, or not in one chain.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{owner}` takes a built Keras model or a chip. Received: {model!r} of "
            f"type {type(model).__name__}."
        )
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ValueError(
            f"The layers of '{model.name}' are not known: {owner} takes a Sequential "
            "or functional model that begins with keras.Input(shape)."
        )
    found: list = []
    tensors = outputs
    while tensors:
        if len(tensors) > 1:
            raise ValueError(
                f"{owner} takes one chain of layers. '{model.name}' has a place with "
                f"{len(tensors)} tensors side by side: "
                f"{', '.join(t._keras_history.operation.name for t in tensors)}."
            )
        layer, node, index = tensors[0]._keras_history
        if index:
            raise ValueError(
                f"What follows '{layer.name}' takes its output {index}, such as its "
                f"membrane. {owner} takes chains of layers with one output: neurons "
                "pass on their spikes alone."
            )
        nested = isinstance(layer, keras.Model)
        found = (chain_of(owner, layer) if nested else [layer]) + found
        tensors = layer._inbound_nodes[node].input_tensors
    return found
