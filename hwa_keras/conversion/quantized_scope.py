"""quantized_scope: read a model's kernels as the hardware gets them."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops

from hwa_keras.core.keras_private import compiled_apart
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.core.modes import hardware_mode

__all__ = ["quantized_scope"]


@contextlib.contextmanager
def quantized_scope(model: keras.Model) -> Iterator[None]:
    """Within the scope, the kernels of a model are their quantized values.

    `get_weights`, `save_weights`, `layer.kernel` and calls all see them; after the
    scope the weights in full precision are there again. What is compiled inside is
    forgotten with it. Training does not work inside.

    Args:
        model: A built model that `to_hwa` converted, a hardware layer or a model with
            hardware layers.

    Raises:
        ValueError: If nothing in the model quantizes kernels.

    Example:
        >>> layer = hwa_keras.layers.HWADense(3, kernel_quantizer="ste_sign")
        >>> layer.build((None, 4))
        >>> with hwa_keras.quantized_scope(layer):
        ...     kernel, bias = layer.get_weights()
        >>> np.unique(kernel).tolist()
        [-1.0, 1.0]
    """
    kernels = [k for k in hardware_kernels(model) if k.quantizer is not None]
    if not kernels:
        raise ValueError(
            f"Nothing in '{model.name}' quantizes kernels. Convert it with to_hwa, or "
            "build it of hardware layers, and build it first."
        )
    latent = [ops.copy(k.variable.value) for k in kernels]
    quantized = [k.quantized() for k in kernels]
    with compiled_apart(model), hardware_mode(kernels="final"):
        try:
            for kernel, value in zip(kernels, quantized, strict=True):
                kernel.variable.assign(value)
            yield
        finally:
            for kernel, value in zip(kernels, latent, strict=True):
                kernel.variable.assign(value)
