"""What hwa_keras needs of one backend's own API: compilation, gradients, replicas and
batches.

Everything else is written in `keras.ops`. Each backend has a file of its own
with the same functions.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from hwa_keras.backend.tensorflow import (
        STEPS_PER_EVALUATION,
        batched,
        bitcast,
        container_wrapper,
        fuse,
        is_symbolic,
        replica_id,
        replicas,
        traced,
        value_and_gradient,
    )
elif keras.backend.backend() == "jax":
    from hwa_keras.backend.jax import (
        STEPS_PER_EVALUATION,
        batched,
        bitcast,
        container_wrapper,
        fuse,
        is_symbolic,
        replica_id,
        replicas,
        traced,
        value_and_gradient,
    )
else:
    raise ImportError(
        "hwa_keras runs on the TensorFlow and JAX backends of Keras, and the "
        f"backend in use is '{keras.backend.backend()}'. Set the environment "
        "variable KERAS_BACKEND to 'tensorflow' or 'jax' before the first import "
        "of keras."
    )

__all__ = [
    "STEPS_PER_EVALUATION",
    "batched",
    "bitcast",
    "container_wrapper",
    "fuse",
    "is_symbolic",
    "replica_id",
    "replicas",
    "traced",
    "value_and_gradient",
]
