"""TensorFlow: compilation, `tf.distribute` replicas, `tf.data` batches."""

import functools

import tensorflow as tf

# Batches of one compiled call in an evaluation: all. It loops until the data ends.
STEPS_PER_EVALUATION = 2**30


def fuse(function):
    """Compile a pure tensor function with XLA, also inside a graph that is not."""

    # One for each combination of shapes, each of a function of its own: TensorFlow
    # warns of functions that are traced again.
    @functools.cache
    def compiled(_):
        own = functools.partial(function)
        return tf.function(own, jit_compile=True, autograph=False)

    # A plain closure: an attribute that is a tf.function would be exported with every
    # SavedModel of the layer that holds it.
    def call(*args):
        args = _read(args)
        signature = tf.nest.map_structure(tf.type_spec_from_value, args)
        return compiled(tuple(tf.nest.flatten(signature)))(*args)

    return call


def traced(function):
    """Run a pure tensor function as one graph, traced once for all sizes."""

    # One for each combination of ranks: a graph for several of them knows none.
    @functools.cache
    def graph(_):
        own = functools.partial(function)
        return tf.function(own, autograph=False, reduce_retracing=True)

    def call(*args):
        args = _read(args)
        flat = tf.nest.flatten(args)
        ranks = tuple(None if x is None else x.shape.rank for x in flat)
        return graph(ranks)(*args)

    return call


def _read(args):
    """Variables as their values: as arguments each would be traced anew."""
    return tf.nest.map_structure(
        lambda arg: None if arg is None else tf.convert_to_tensor(arg), args
    )


def replica_id():
    """Index of the current replica under `tf.distribute`, None on one device."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context.replica_id_in_sync_group


def replicas():
    """How many replicas train together under `tf.distribute`."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def bitcast(x, dtype):
    """The bits of a tensor as those of another type of the same width."""
    return tf.bitcast(x, dtype)


def batched(data, batch_size):
    """Keyword arguments for `evaluate` that make batches of arrays only once.

    Args:
        data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        batch_size: Integer.
    """
    if any(part is None for part in data):
        names = ("x", "y", "sample_weight")
        parts = dict(zip(names, data, strict=False))
        return {**parts, "batch_size": batch_size}
    dataset = tf.data.Dataset.from_tensor_slices(_as_tuples(tuple(data)))
    return {"x": dataset.batch(batch_size).cache().prefetch(2)}


def _as_tuples(data):
    """Lists as tuples: `tf.data` takes a list for one array."""
    if isinstance(data, dict):
        return {key: _as_tuples(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return tuple(_as_tuples(value) for value in data)
    return data


def value_and_gradient(function, tensors):
    """The value of `function(tensors)`, which is a pair (loss, rest), and gradients.

    Returns:
        A pair: what the function returns, and a list of the gradients of its first
        part with respect to the tensors, None where it does not depend on one.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value = function(tensors)
    gradients = tape.gradient(value[0], tensors)
    # Gathers, as in embeddings, give a sparse gradient.
    return value, [None if g is None else tf.convert_to_tensor(g) for g in gradients]


def container_wrapper(x):
    """What wraps lists and dictionaries that are attributes, as it did x, or None."""
    tracking = tf.__internal__.tracking
    wrapped = type(x).__module__.startswith("tensorflow")
    return tracking.wrap if wrapped else None


def is_symbolic(x):
    """Whether a tensor belongs to a graph that is being traced."""
    return tf.is_symbolic_tensor(x)
