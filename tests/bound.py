"""Quantizers and noises that belong to a kernel, without a layer around it."""

from types import SimpleNamespace

import keras

from hwa_keras.core.views import MatrixView
from hwa_keras.crossbar import Tiling


def kernel_of(w, columns=(-1,), quantizer=None, noise=None):
    """What quantizers and noises see of a kernel."""
    view = MatrixView(w.shape, columns)
    return SimpleNamespace(
        variable=keras.Variable(w, name="kernel"),
        path="dense/kernel",
        view=view,
        tiling=Tiling(*view.matrix_shape),
        quantizer=quantizer,
        noise=noise,
    )


def bound_to(quantizer, w, columns=(-1,)):
    """A quantizer that serves a kernel."""
    quantizer.bind(kernel_of(w, columns))
    return quantizer
