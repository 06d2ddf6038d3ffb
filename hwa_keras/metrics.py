"""Metrics of quantized networks and of language models."""

from functools import partial
from typing import Any

import keras
from keras import ops

from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Self, Shape, Tensor

__all__ = ["FlipRatio", "Perplexity"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class FlipRatio(keras.metrics.Metric):
    """The mean share of values that changed from one update to the next.

    Of binary weights it tells how many change their sign in a step: a network whose
    ratio stays high does not settle. Quantizers follow it with
    `metrics=["flip_ratio"]`. Same arguments and values as Larq's.

    Args:
        values_dtype: The dtype in which values are kept and compared. Defaults to
            `"int8"`.
        name: String. Defaults to `"flip_ratio"`.
        dtype: The dtype of the result.

    Example:
        >>> metric = hwa_keras.metrics.FlipRatio()
        >>> for values in ([1, 1], [2, 2], [1, 2]):
        ...     metric.update_state(values)
        >>> float(metric.result())
        0.75
    """

    def __init__(
        self, values_dtype: str = "int8", name: str = "flip_ratio", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.values_dtype = keras.backend.standardize_dtype(values_dtype)
        self.previous_values = None
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def build(self, shape: Shape) -> Any:
        """Make room for values of a shape; the first update does it too."""
        if None in shape:
            raise ValueError(
                "FlipRatio compares values one by one and needs their shape. "
                f"Received: shape={tuple(shape)}. It serves kernels, not activations."
            )
        self.previous_values = self.add_variable(
            tuple(shape), "zeros", dtype=self.values_dtype, name="previous_values"
        )
        return self.previous_values

    def update_state(self, values: Tensor, sample_weight: Any = None) -> None:
        values = ops.cast(values, self.values_dtype)
        previous = self.previous_values
        if previous is None:
            previous = self.build(values.shape)
        changed = ops.cast(ops.not_equal(previous.value, values), self.dtype)
        # The first update has nothing to compare with.
        self.total.assign_add(ops.mean(changed) * ops.sign(self.count))
        self.count.assign_add(1)
        previous.assign(values)

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total.value, self.count - 1)

    def reset_state(self) -> None:
        """Start a new mean; the last values stay, to compare the next ones with."""
        self.total.assign(0)
        self.count.assign(0)

    def get_config(self) -> Config:
        return {**super().get_config(), "values_dtype": self.values_dtype}


@keras.saving.register_keras_serializable(package=PACKAGE)
class Perplexity(keras.metrics.MeanMetricWrapper):
    """Perplexity of a language model: exp of the mean cross-entropy of its tokens.

    The mean is over all tokens of an evaluation. Padded tokens have weight 0: give the
    metric as one of `weighted_metrics`. It is computed in its own dtype, whatever the
    dtype of the model.

    Args:
        from_logits: Bool. Whether predictions are logits, not probabilities. Defaults
            to `False`.
        name: String. Defaults to `"perplexity"`.
        dtype: The dtype of the computation. Defaults to `"float32"`.

    Call arguments:
        y_true: Integer tensor `[...]`, the tokens.
        y_pred: Tensor `[..., vocabulary]`.
        sample_weight: Tensor that broadcasts with `y_true`, or None.

    Example:
        >>> metric = hwa_keras.metrics.Perplexity()
        >>> metric.update_state([[0, 1]], [[[0.5, 0.5], [0.875, 0.125]]])
        >>> round(float(metric.result()), 4)  # √(2 · 8)
        4.0
    """

    def __init__(
        self,
        from_logits: bool = False,
        name: str = "perplexity",
        dtype: Any = "float32",
    ) -> None:
        super().__init__(
            partial(_cross_entropy, dtype=dtype), name, dtype, from_logits=from_logits
        )
        self.from_logits = from_logits

    def result(self) -> Tensor:
        return ops.exp(super().result())

    def get_config(self) -> Config:
        own = {"from_logits": self.from_logits}
        return {**own, "name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


def _cross_entropy(y_true, y_pred, from_logits, dtype):
    return keras.losses.sparse_categorical_crossentropy(
        ops.convert_to_tensor(y_true), ops.cast(y_pred, dtype), from_logits=from_logits
    )
