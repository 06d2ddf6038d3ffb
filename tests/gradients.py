"""Derivatives, on the backend in use."""

import keras
from keras import ops


def gradient(function, *arrays):
    """The gradient of the sum of what a function returns.

    Args:
        function: Callable from tensors to a tensor.
        *arrays: Where to differentiate.

    Returns:
        A NumPy array, or a list of them, one per argument, if there are several.
    """
    tensors = [ops.convert_to_tensor(x) for x in arrays]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = ops.sum(function(*tensors))
        found = tape.gradient(total, tensors)
    else:
        import jax

        positions = tuple(range(len(tensors)))
        differentiate = jax.grad(lambda *xs: ops.sum(function(*xs)), positions)
        found = jax.jit(differentiate)(*tensors)
    found = [ops.convert_to_numpy(g) for g in found]
    return found if len(found) > 1 else found[0]
