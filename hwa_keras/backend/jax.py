"""JAX: `jax.jit`; one program runs on all devices."""

import jax

# Batches of one call in an evaluation: Keras gathers them in memory before it.
STEPS_PER_EVALUATION = 1


def fuse(function):
    """Compile a pure tensor function with XLA."""
    return jax.jit(function)


def traced(function):
    """Run a pure tensor function as one graph, compiled for each size."""
    return jax.jit(function)


def replica_id():
    """None: under JAX one program, and so one draw, spans all devices."""
    return None


def replicas():
    """One: a program spans all devices."""
    return 1


def bitcast(x, dtype):
    """The bits of a tensor as those of another type of the same width."""
    return jax.lax.bitcast_convert_type(x, dtype)


def batched(data, batch_size):
    """Keyword arguments for `evaluate`: slicing arrays costs nothing here.

    Args:
        data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        batch_size: Integer.
    """
    parts = dict(zip(("x", "y", "sample_weight"), data, strict=False))
    return {**parts, "batch_size": batch_size}


def value_and_gradient(function, tensors):
    """The value of `function(tensors)`, which is a pair (loss, rest), and gradients.

    Returns:
        A pair: what the function returns, and a list of the gradients of its first
        part with respect to the tensors.
    """
    return jax.value_and_grad(function, has_aux=True)(tensors)


def container_wrapper(x):
    """None: lists and dictionaries that are attributes stay as they are."""
    return None


def is_symbolic(x):
    """Whether a tensor belongs to a function that is being traced."""
    return isinstance(x, jax.core.Tracer)
