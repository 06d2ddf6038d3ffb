"""Losses on spikes over time, and their targets."""

from typing import Any

import keras
from keras import ops

from hwa_keras.core.checks import check_count, check_not_negative, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Tensor
from hwa_keras.spiking.readouts import class_counts

__all__ = ["CountCrossEntropy", "population_targets"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class CountCrossEntropy(keras.losses.Loss):
    """Cross-entropy of spike counts: −ln softmax(scale·counts)[label].

    For a model that returns spikes over time; one that ends in `SpikeCount` returns
    logits, which Keras has losses for.

    Args:
        population: Integer ≥ 1, neurons for each class, as in `SpikeCount`. Defaults
            to `1`.
        scale: Float > 0, a factor on the counts. Defaults to `1.0`.
        **kwargs: `reduction`, `name` and `dtype` of `keras.losses.Loss`.

    Call arguments:
        y_true: Integer tensor `[batch]` of labels.
        y_pred: Tensor of spikes `[batch, time, classes·population]`.

    Raises:
        ValueError: If an argument is out of its range, or `population` does not divide
            the number of neurons.

    Example:
        >>> loss = hwa_keras.spiking.CountCrossEntropy()
        >>> spikes = np.array([[[1, 0], [1, 1]]], "float32")  # Counts 2 and 1.
        >>> round(float(loss(np.array([0]), spikes)), 4)  # ln(1 + 1/e)
        0.3133
    """

    def __init__(self, population: int = 1, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**{"name": "count_cross_entropy", **kwargs})
        self.population = check_count("CountCrossEntropy", population=population)
        check_positive("CountCrossEntropy", scale=scale)
        self.scale = float(scale)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        counts = class_counts("CountCrossEntropy", y_pred, self.population)
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        return ops.sparse_categorical_crossentropy(
            labels, counts * self.scale, from_logits=True
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "population": self.population,
            "scale": self.scale,
        }


def population_targets(
    labels: Tensor, classes: int, population: int = 1, on: float = 1.0, off: float = 0.0
) -> Tensor:
    """The rates that populations of neurons are to fire at, for a squared error.

    To be compared with `SpikeCount(rate=True)` of all neurons.

    Args:
        labels: Integer tensor `[batch]`, from 0 to `classes − 1`.
        classes: Integer ≥ 1.
        population: Integer ≥ 1, neurons for each class: class c has those from
            c·population on. Defaults to `1`.
        on: Float from 0 to 1, the rate of the neurons of the label's class, in spikes a
            step. Defaults to `1.0`.
        off: Float from 0 to 1, the rate of the others. Defaults to `0.0`.

    Returns:
        `float32` tensor `[batch, classes·population]`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> targets = hwa_keras.spiking.population_targets([1], 2, population=2, on=0.5)
        >>> ops.convert_to_numpy(targets).tolist()
        [[0.0, 0.0, 0.5, 0.5]]
    """
    check_count("population_targets", classes=classes, population=population)
    check_not_negative("population_targets", on=on, off=off)
    if max(on, off) > 1:
        raise ValueError(
            "`on` and `off` of population_targets are rates in spikes a step, from 0 "
            f"to 1. Received: on={on!r}, off={off!r}."
        )
    labels = ops.cast(labels, "int32")
    if not ops.all((labels >= 0) & (labels < classes)):
        raise ValueError(
            f"`labels` of population_targets must be from 0 to {classes - 1}, as there "
            f"are classes={classes}. Received: labels from {int(ops.min(labels))} to "
            f"{int(ops.max(labels))}."
        )
    is_on = ops.repeat(ops.one_hot(labels, classes), population, axis=-1)
    return off + (on - off) * is_on
