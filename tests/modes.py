"""The ways in which a backend runs a function."""

import keras
import pytest

MODES = ("eager", pytest.param("graph", marks=pytest.mark.tensorflow_only), "xla")


def in_mode(mode, function):
    """A function of tensors as it runs eagerly, in a graph or compiled by XLA."""
    if mode == "eager":
        return function
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=mode == "xla", autograph=False)
    import jax

    return jax.jit(function)
