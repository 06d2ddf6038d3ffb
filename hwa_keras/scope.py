"""quantized_scope: read a model's kernels as the hardware gets them."""

import contextlib

import keras

from hwa_keras.kernels import quantized_kernels

__all__ = ["quantized_scope"]


@contextlib.contextmanager
def quantized_scope(model):
    """Within the scope, the kernels of a model read as their quantized values.

    `get_weights`, `save_weights`, `layer.kernel` and calls all see them; the weights
    in full precision are not touched, and are there again after the scope. Variables
    cannot be made and training does not work inside.

    Args:
        model: A built `HWAModel`, a hardware layer or a model with hardware layers.

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
    pairs = quantized_kernels(model)
    if not pairs:
        raise ValueError(
            f"Nothing in '{model.name}' quantizes kernels. Convert it with to_hwa, or "
            "build it of hardware layers, and build it first."
        )
    with keras.StatelessScope(state_mapping=pairs):
        yield
