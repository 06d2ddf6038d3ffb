"""Spectra: the singular values of kernels."""

import numbers

import keras
import numpy as np
import scipy.linalg
from keras import ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.kernels import check_selector, distinct, kernels_of, matches
from hwa_keras.core.types import Selector, Tensor

__all__ = ["singular_values", "spectrum", "unfold"]


def unfold(tensor: Tensor, mode: int = -1) -> np.ndarray:
    """Unfold a tensor into a matrix whose rows are its slices along one axis.

    The mode-k unfolding puts the fibers of axis k, the vectors along it, side by side:
    of a tensor of N elements, n_k of them along the axis, it makes a matrix of shape
    (n_k, N/n_k). Its columns stand in the order of NumPy, the last of the other axes
    varying fastest; no singular value depends on that order.

    Args:
        tensor: Tensor or array of one dimension or more.
        mode: Integer, the axis k, counted from 0, or with a negative number from the
            end. Defaults to `-1`: for a Keras kernel, the outputs.

    Returns:
        A `float64` NumPy array.

    Raises:
        ValueError: If the tensor has no such axis.

    Example:
        >>> hwa_keras.analysis.unfold(np.zeros((3, 3, 16, 32)), mode=2).shape
        (16, 288)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.5; its modes
          are counted from 1. Kolda and Bader, "Tensor decompositions and
          applications", SIAM Review 51(3), 2009.
    """
    array = np.asarray(ops.convert_to_numpy(tensor), "float64")
    if not isinstance(mode, numbers.Integral) or not -array.ndim <= mode < array.ndim:
        raise ValueError(
            f"`mode` is an axis of the tensor, of {array.ndim} dimensions: an integer "
            f"from {-array.ndim} to {array.ndim - 1}. Received: mode={mode!r}."
        )
    return np.moveaxis(array, mode, 0).reshape(array.shape[mode], -1)


def singular_values(tensor: Tensor, mode: int = -1, count: int = 10) -> np.ndarray:
    """Compute the leading singular values of an unfolded tensor, in double precision.

    Args:
        tensor: Tensor or array.
        mode: Integer, the axis to unfold along, as in `unfold`.
        count: Integer ≥ 1, how many. Defaults to `10`.

    Returns:
        A `float64` NumPy array, the largest first: `count` values, or as many as the
        matrix has, the smaller of its two sizes.

    Raises:
        ValueError: If the tensor holds NaN or infinite values, or an argument is out
            of its range.

    Example:
        >>> w = np.diag([3.0, 1.0, 2.0])
        >>> [float(s) for s in hwa_keras.analysis.singular_values(w, count=2)]
        [3.0, 2.0]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.5.
    """
    check_count("singular_values", count=count)
    matrix = unfold(tensor, mode)
    if not np.all(np.isfinite(matrix)):
        raise ValueError(
            "A tensor that holds NaN or infinite values has no singular values. Look "
            "for a diverged training run."
        )
    return scipy.linalg.svdvals(matrix)[:count]


def spectrum(
    model: keras.Model,
    layer: Selector | None = None,
    mode: int = -1,
    count: int = 10,
    quantized: bool = False,
) -> dict[str, np.ndarray]:
    """Compute the leading singular values of the kernels of a model.

    Args:
        model: A built Keras model, its layers on hardware or not.
        layer: Which kernels: a layer's name or path, in which `*` and `?` are
            wildcards; a layer class; a function from a layer to a bool; or None for
            all.
        mode: Integer, the axis to unfold along, as in `unfold`. The default, −1, is
            that of the outputs, in which a kernel of a convolution has as many
            singular values as filters; modes 0 and 1 are the height and width of the
            filters, which give three of a 3×3 kernel.
        count: Integer ≥ 1, how many values. Defaults to `10`.
        quantized: Bool. Whether to take the weights that the network computes with,
            quantized where it has quantizers, in place of the trained ones in full
            precision. Defaults to `False`.

    Returns:
        A dictionary from the paths of kernels, in the order of the model, to `float64`
        arrays, as `singular_values` gives them; of one kernel, too.

    Raises:
        TypeError: If `layer` is nothing that selects layers.
        ValueError: If the model has no such kernels, none of them is quantized where
            that is asked for, one holds NaN or has no such axis, or an argument is out
            of its range.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(4, name="hidden"),
        ...     keras.layers.Dense(3, name="head"),
        ... ])
        >>> found = hwa_keras.analysis.spectrum(model)
        >>> {path: values.shape for path, values in found.items()}
        {'hidden/kernel': (4,), 'head/kernel': (3,)}

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.5 and figure
          4.7.
    """
    kernels = named_kernels(model)
    chosen = selected(list(kernels.values()), layer)
    kernels = {name: k for name, k in kernels.items() if k in chosen}
    found = spectra_of(model, kernels.values(), mode, count, quantized)
    return dict(zip(kernels, found, strict=True))


def named_kernels(model):
    """{name: `Kernel`} of a model, or of the one inside it, or a `ValueError`."""
    kernels = kernels_of(model)
    names = distinct(kernel.path for kernel in kernels)
    return dict(zip(names, kernels, strict=True))


def selected(kernels, layer):
    """The kernels that a selector means."""
    if layer is None:
        return kernels
    check_selector(layer, kernels)
    found = [kernel for kernel in kernels if matches(layer, kernel)]
    if not found:
        raise ValueError(
            f"`layer` selects no layer with a kernel. Received: layer={layer!r}. "
            f"Kernels: {', '.join(kernel.path for kernel in kernels)}."
        )
    return found


def spectra_of(model, kernels, mode, count, quantized):
    """The singular values of each of some kernels of a model."""
    check_count("spectrum", count=count)
    if quantized and not any(kernel.quantizer is not None for kernel in kernels):
        raise ValueError(
            f"None of the kernels asked for of the model '{model.name}' has a "
            "quantizer. Leave `quantized` at False, or give a model whose layers are "
            "on hardware with quantizers."
        )
    found = []
    for kernel in kernels:
        tensor = kernel.target() if quantized else kernel.variable.value
        try:
            found.append(singular_values(tensor, mode, count))
        except ValueError as error:
            raise ValueError(f"The kernel '{kernel.path}': {error}") from error
    return found
