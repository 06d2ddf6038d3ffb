"""Distillation from the few most likely classes of a teacher, computed beforehand."""

from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import ArrayLike, Config, Tensor

__all__ = ["TopKDistillation", "with_top_k"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class TopKDistillation(keras.losses.Loss):
    """Cross-entropy with labels, and with what a teacher found most likely.

    (1 − weight)·L + weight·D, where L is the cross-entropy of the label and D = KL(p ‖
    s) with the student's probabilities s and the teacher's p, of which the k largest
    are known; the rest of both is one class more. The teacher need not run while the
    student trains, and of a vocabulary of V classes 2·k + 1 numbers a position are
    kept in place of V.

    Args:
        weight: Float in [0, 1], the share of D. Defaults to `0.5`.
        **kwargs: Arguments of `keras.losses.Loss`.

    Call arguments:
        y_true: Float tensor `[..., 2·k + 1]`, as `with_top_k` makes it: the label, k
            classes, and their log-probabilities.
        y_pred: Logits `[..., V]`.

    Example:
        >>> logits = np.log([[0.7, 0.2, 0.1]]).astype("float32")
        >>> y = with_top_k(np.array([0]), logits, k=2)
        >>> loss = hwa_keras.training.TopKDistillation(weight=1.0)
        >>> round(abs(float(loss(y, logits))), 6)
        0.0

    Reference:
        - Hinton et al., 2015, arXiv:1503.02531, on the classes that are kept.
    """

    def __init__(
        self, weight: float = 0.5, name: str = "top_k_distillation", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        if isinstance(weight, bool) or not 0 <= weight <= 1:
            raise ValueError(
                f"`weight` of TopKDistillation must be in [0, 1]. Received: {weight!r}."
            )
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        k = (y_true.shape[-1] - 1) // 2
        label = ops.cast(y_true[..., :1], "int32")
        classes = ops.cast(y_true[..., 1 : k + 1], "int32")
        teacher = y_true[..., k + 1 :]
        total = ops.logsumexp(y_pred, axis=-1, keepdims=True)
        loss = (total - ops.take_along_axis(y_pred, label, axis=-1))[..., 0]
        if self.weight == 0:
            return loss
        student = ops.take_along_axis(y_pred, classes, axis=-1) - total
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        rest, own = _rest(teacher), _rest(student)
        divergence = divergence + rest * (ops.log(rest) - ops.log(own))
        return (1 - self.weight) * loss + self.weight * divergence

    def get_config(self) -> Config:
        return {**super().get_config(), "weight": self.weight}


def _rest(log_probabilities):
    """The probability of all other classes."""
    known = ops.sum(ops.exp(log_probabilities), axis=-1)
    return ops.maximum(1.0 - known, 1e-6)


def with_top_k(labels: ArrayLike, logits: ArrayLike, k: int) -> np.ndarray:
    """Labels together with the k most likely classes of a teacher.

    Args:
        labels: Integer array `[...]`.
        logits: Array `[..., V]`, what the teacher puts out.
        k: Integer from 1 to V.

    Returns:
        A `float32` array `[..., 2·k + 1]`, in which classes are exact below 2²⁴.

    Raises:
        ValueError: If there are not so many classes, or more than that.
    """
    logits = np.asarray(logits, "float32")
    vocabulary = logits.shape[-1]
    if check_count("with_top_k", k=k) > vocabulary or vocabulary >= 2**24:
        raise ValueError(
            f"`k` of with_top_k must be at most the number of classes, {vocabulary}, "
            f"which must be below 2**24. Received: k={k}."
        )
    classes = np.argpartition(logits, vocabulary - k, axis=-1)[..., vocabulary - k :]
    largest = logits.max(-1, keepdims=True)
    total = largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True))
    known = np.take_along_axis(logits, classes, -1) - total
    return np.concatenate(
        [np.asarray(labels)[..., None].astype("float32"), classes, known], -1
    ).astype("float32")
