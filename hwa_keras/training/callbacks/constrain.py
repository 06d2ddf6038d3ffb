"""ConstrainKernels: a constraint on every kernel, for the time of a fit."""

from collections.abc import Callable

import keras

from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.types import Logs, Tensor

__all__ = ["ConstrainKernels"]


class ConstrainKernels(keras.callbacks.Callback):
    """Applies a constraint to every kernel of a model, for the time of a fit.

    After each update of the weights each kernel W becomes constraint(W). A kernel
    with a constraint of its own keeps it: the layer's is applied first, then this
    one. Weights that are no kernels are left alone, and so are the weights that a fit
    starts from, until their first update. When the fit ends, the constraints are as
    they were before. After a fit that an exception has cut short they stay, until
    the callback is used again.

    Args:
        constraint: A `keras.constraints.Constraint`, such as
            `hwa_keras.constraints.AggressiveClip()`, or a function from a weight
            tensor to one of the same shape. One with a method `for_kernel(kernel)`
            is asked for its own constraint for each kernel, whose `view` tells rows and
            columns.

    Raises:
        TypeError: If `constraint` is neither.
        ValueError: At the start of the fit, if the model has no kernels.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile(keras.optimizers.SGD(10.0), "mse")
        >>> clip = hwa_keras.constraints.AggressiveClip(0.25)
        >>> history = model.fit(
        ...     np.ones((4, 8)), np.ones((4, 3)), verbose=0,
        ...     callbacks=[hwa_keras.training.ConstrainKernels(clip)],
        ... )
        >>> float(ops.max(ops.abs(model.layers[0].kernel)))
        0.25
    """

    def __init__(self, constraint: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if isinstance(constraint, type) or not callable(constraint):
            raise TypeError(
                "`constraint` must be a Keras constraint, such as "
                "hwa_keras.constraints.HistogramClip(alpha=2.0), or a function of a "
                f"tensor. Received: {constraint!r} of type {type(constraint).__name__}."
            )
        self.constraint = constraint
        self._placed = []  # Pairs (kernel, its constraint during the fit).

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._remove()  # What a fit that was cut short has left.
        kernels = find_kernels(self.model)[0]
        if not kernels:
            raise ValueError(
                f"ConstrainKernels found no kernels in the model '{self.model.name}'. "
                "Kernels are weights of two or more dimensions named '...kernel'."
            )
        for kernel in kernels:
            constraint = self.constraint
            if hasattr(constraint, "for_kernel"):
                constraint = constraint.for_kernel(kernel)
            variable = kernel.variable
            both = _DuringFit(variable.constraint, constraint)
            variable.constraint = both
            self._placed.append((variable, both))
        # A step that an earlier fit compiled does not know of the constraint.
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._remove()
        self.model.make_train_function(force=True)

    def _remove(self):
        for kernel, both in self._placed:
            kernel.constraint = _without(kernel.constraint, both)
        self._placed = []


class _DuringFit(keras.constraints.Constraint):
    """The constraint that a kernel had before, then another."""

    def __init__(self, before, constraint):
        self.before = before
        self.constraint = constraint

    def __call__(self, w):
        return self.constraint(w if self.before is None else self.before(w))


def _without(constraint, part):
    """A constraint without one `_DuringFit`, which others may have come upon."""
    if constraint is part:
        return part.before
    if isinstance(constraint, _DuringFit):
        constraint.before = _without(constraint.before, part)
    return constraint
