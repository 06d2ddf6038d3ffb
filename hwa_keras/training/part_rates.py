"""PartRates: optimizers with a learning rate for each part of a model."""

import fnmatch
from typing import Any

import keras

from hwa_keras.core.checks import check_not_negative
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Mixin, Tensor

__all__ = ["PartRates", "PartwiseAdam", "PartwiseSGD"]


class PartRates(Mixin):
    """Mixin of optimizers that multiply the learning rate by a factor of each part.

    It stands before a Keras optimizer among the bases of a class. Keras's optimizers
    have one learning rate for all; a factor on gradients would not do, as Adam divides
    it out. With the learning rate, schedules and `learning_rate` callbacks act on all
    parts alike.

    Args:
        *args: Positional arguments of the optimizer.
        parts: Dictionary from patterns of paths, in which `*` and `?` are wildcards, to
            factors ≥ 0. A pattern means the variables whose path it matches, or whose
            layers' names it matches: `"frontend"` is that layer, wherever it is. The
            first that matches a variable counts, and where none does the factor is 1.
        **kwargs: Keyword arguments of the optimizer.

    Raises:
        TypeError: If `parts` is no dictionary.
        ValueError: If a factor is negative or not finite, or with `weight_decay`, which
            Keras applies at one learning rate; when it is built, if a pattern matches
            no trainable variable.
    """

    def __init__(
        self, *args: Any, parts: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        name = type(self).__name__
        if not isinstance(parts or {}, dict):
            raise TypeError(
                f"`parts` of {name} must be a dictionary from patterns of paths to "
                f"factors, such as {{'frontend': 0.01}}. Received: parts={parts!r}."
            )
        self.parts = {k: float(v) for k, v in (parts or {}).items()}
        for pattern, factor in self.parts.items():
            check_not_negative(name, **{f"parts['{pattern}']": factor})
        if self.parts and self.weight_decay:
            raise ValueError(
                f"{name} has no `weight_decay` beside `parts`: Keras applies it at one "
                "learning rate. Give kernels a regularizer, keras.regularizers.L2(...)."
                f" Received: weight_decay={self.weight_decay!r}."
            )

    def build(self, variables: list[Any]) -> None:
        paths = [variable.path for variable in variables]
        for pattern in self.parts:
            if not any(_matches(pattern, path) for path in paths):
                raise ValueError(
                    f"`parts` of {type(self).__name__} has '{pattern}', which no "
                    f"trainable variable matches. Trainable variables: "
                    f"{', '.join(paths)}."
                )
        self._factors = [self._factor(path) for path in paths]
        super().build(variables)

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        factor = self._factors[self._get_variable_index(variable)]
        if factor != 1.0:
            learning_rate = learning_rate * factor
        super().update_step(gradient, variable, learning_rate)

    def _factor(self, path):
        found = (f for pattern, f in self.parts.items() if _matches(pattern, path))
        return next(found, 1.0)

    def get_config(self) -> Config:
        return {**super().get_config(), "parts": dict(self.parts)}


def _matches(pattern, path):
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, *path.split("/")))


@keras.saving.register_keras_serializable(package=PACKAGE)
class PartwiseAdam(PartRates, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with a learning rate for each part of a model.

    Takes the arguments of `keras.optimizers.Adam`, and `parts`: see `PartRates`.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((13,)),
        ...     keras.layers.Dense(13, name="frontend"),
        ...     keras.layers.Dense(2),
        ... ])
        >>> adam = hwa_keras.training.PartwiseAdam(1e-3, parts={"frontend": 0.01})
        >>> model.compile(adam, "mse")
        >>> before = ops.copy(model.layers[0].kernel)
        >>> history = model.fit(np.ones((4, 13)), np.ones((4, 2)), verbose=0)
        >>> step = ops.max(ops.abs(model.layers[0].kernel - before))
        >>> round(float(step), 6)  # Adam's first step, 1e-3·0.01
        1e-05
    """


@keras.saving.register_keras_serializable(package=PACKAGE)
class PartwiseSGD(PartRates, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a learning rate for each part of a model.

    Takes the arguments of `keras.optimizers.SGD`, and `parts`: see `PartRates`.

    Example:
        >>> sgd = hwa_keras.training.PartwiseSGD(0.1, momentum=0.9, parts={"*bias": 2})
        >>> sgd.parts
        {'*bias': 2.0}
    """
