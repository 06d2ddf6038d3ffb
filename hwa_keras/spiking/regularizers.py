"""Regularizers of what a neuromorphic chip limits: rates, magnitudes and signs."""

import keras
from keras import ops

from hwa_keras.core.checks import check_not_negative, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.sign_groups import check_group, grouped
from hwa_keras.core.types import Config, Tensor

__all__ = ["FiringRate", "FiringRateRange", "SignTopology", "WeightMagnitude"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class FiringRate(keras.regularizers.Regularizer):
    """Draws the firing rate of each neuron to a target: Σ((rate − target)·multiplier)².

    The rate of a neuron is the mean of its spikes over batch and time, in spikes a
    step; the sum is over neurons. To be the `activity_regularizer` of a layer of
    spikes: Keras divides what such a regularizer returns by the batch size, so that it
    returns that many times the sum.

    Args:
        target: Float from 0 to 1, spikes a step: 0.3 in 3 of 10 steps.
        multiplier: Float ≥ 0. Defaults to `1.0`.

    Call arguments:
        x: Tensor of spikes `[batch, time, ...]`.

    Raises:
        ValueError: If an argument is out of its range, or what comes has no time axis.

    Example:
        >>> layer = keras.layers.Activation(
        ...     "relu", activity_regularizer=hwa_keras.spiking.FiringRate(0.25, 10.0)
        ... )
        >>> spikes = np.array([[[1, 0], [0, 0]], [[1, 0], [0, 0]]], "float32")
        >>> _ = layer(spikes)  # Rates 0.5 and 0.
        >>> float(layer.losses[0])  # ((0.5 - 0.25)·10)² + ((0 - 0.25)·10)²
        12.5
    """

    def __init__(self, target: float, multiplier: float = 1.0) -> None:
        self.target = _rate("FiringRate", target=target)
        check_not_negative("FiringRate", multiplier=multiplier)
        self.multiplier = float(multiplier)

    def __call__(self, x: Tensor) -> Tensor:
        rates, batch = _rates("FiringRate", x)
        return batch * ops.sum(ops.square((rates - self.target) * self.multiplier))

    def get_config(self) -> Config:
        return {"target": self.target, "multiplier": self.multiplier}


@keras.saving.register_keras_serializable(package=PACKAGE)
class FiringRateRange(keras.regularizers.Regularizer):
    """Keeps the firing rate of each neuron in a range: Σ(excess·multiplier)².

    The excess is how far the rate is below `low` or above `high`, 0 between them. As
    `FiringRate` otherwise.

    Args:
        low: Float from 0 to 1, the lowest rate in spikes a step.
        high: Float from `low` to 1, the highest.
        multiplier: Float ≥ 0. Defaults to `1.0`.

    Call arguments:
        x: Tensor of spikes `[batch, time, ...]`.

    Raises:
        ValueError: If an argument is out of its range, or what comes has no time axis.

    Example:
        >>> layer = keras.layers.Activation(
        ...     "relu",
        ...     activity_regularizer=hwa_keras.spiking.FiringRateRange(0.25, 0.75, 4.0),
        ... )
        >>> spikes = np.array([[[1, 0], [0, 0]], [[1, 0], [0, 0]]], "float32")
        >>> _ = layer(spikes)  # Rates 0.5 and 0.
        >>> float(layer.losses[0])  # ((0.25 - 0)·4)²
        1.0
    """

    def __init__(self, low: float, high: float, multiplier: float = 1.0) -> None:
        self.low = _rate("FiringRateRange", low=low)
        self.high = _rate("FiringRateRange", high=high)
        if self.low > self.high:
            raise ValueError(
                "`low` of FiringRateRange must not be above `high`. Received: "
                f"low={low!r}, high={high!r}."
            )
        check_not_negative("FiringRateRange", multiplier=multiplier)
        self.multiplier = float(multiplier)

    def __call__(self, x: Tensor) -> Tensor:
        rates, batch = _rates("FiringRateRange", x)
        below = ops.maximum(self.low - rates, 0.0)
        above = ops.maximum(rates - self.high, 0.0)
        return batch * ops.sum(ops.square((below + above) * self.multiplier))

    def get_config(self) -> Config:
        return {"low": self.low, "high": self.high, "multiplier": self.multiplier}


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightMagnitude(keras.regularizers.Regularizer):
    """Penalizes weights beyond a limit: strength·mean(max(|w| − limit, 0)²).

    Analog memories hold weights in a limited range. Behind a quantizer that clips, a
    weight beyond it has no gradient from the task; this one brings it back.

    Args:
        limit: Float > 0. Defaults to `0.9`.
        strength: Float ≥ 0. Defaults to `1.0`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> regularizer = hwa_keras.spiking.WeightMagnitude(0.5)
        >>> float(regularizer(np.array([[1.0, -0.25]], "float32")))
        0.125
        >>> layer = hwa_keras.layers.HWADense(64, kernel_regularizer=regularizer)
    """

    def __init__(self, limit: float = 0.9, strength: float = 1.0) -> None:
        check_positive("WeightMagnitude", limit=limit)
        check_not_negative("WeightMagnitude", strength=strength)
        self.limit = float(limit)
        self.strength = float(strength)

    def __call__(self, x: Tensor) -> Tensor:
        beyond = ops.maximum(ops.abs(ops.convert_to_tensor(x)) - self.limit, 0.0)
        return self.strength * ops.mean(ops.square(beyond))

    def get_config(self) -> Config:
        return {"limit": self.limit, "strength": self.strength}


@keras.saving.register_keras_serializable(package=PACKAGE)
class SignTopology(keras.regularizers.Regularizer):
    """Penalizes groups of synapses of both signs: λ·mean over groups of min(Σw⁺, Σw⁻).

    Groups are contiguous inputs of one column, as in
    `hwa_keras.constraints.SignGroups`; w⁺ and w⁻ are the magnitudes of the positive
    and of the negative weights among them. A group of one sign costs nothing. The
    penalty alone leaves groups of both signs: `SignGroups` is the projection to be
    used before deployment.

    Args:
        strength: Float ≥ 0, λ. Defaults to `0.05`.
        group: Integer ≥ 1, synapses in a group. Defaults to `5`.
        partial: Bool. Whether the last group of a column may be smaller, where the
            fan-in is no multiple of the group. Defaults to `False`.

    Raises:
        ValueError: If an argument is out of its range; when it is applied, if `group`
            does not divide the fan-in of the kernel (all axes but the last).

    Example:
        >>> regularizer = hwa_keras.spiking.SignTopology(strength=1.0, group=2)
        >>> w = np.array([[0.5], [-0.25], [-0.5], [-0.125]], "float32")
        >>> float(regularizer(w))  # (0.25 + 0)/2
        0.125
    """

    def __init__(
        self, strength: float = 0.05, group: int = 5, partial: bool = False
    ) -> None:
        check_not_negative("SignTopology", strength=strength)
        self.strength = float(strength)
        self.group = check_group("SignTopology", group)
        self.partial = bool(partial)

    def __call__(self, x: Tensor) -> Tensor:
        w = ops.convert_to_tensor(x)
        groups = grouped("SignTopology", w, self.group, self.partial)
        positive = ops.sum(ops.maximum(groups, 0.0), axis=1)
        negative = ops.sum(ops.maximum(-groups, 0.0), axis=1)
        return self.strength * ops.mean(ops.minimum(positive, negative))

    def get_config(self) -> Config:
        return {
            "strength": self.strength,
            "group": self.group,
            "partial": self.partial,
        }


def _rate(owner, **named):
    ((name, value),) = named.items()
    check_not_negative(owner, **named)
    if value > 1:
        raise ValueError(
            f"`{name}` of {owner} is a rate in spikes a step, from 0 to 1. Received: "
            f"{name}={value!r}."
        )
    return float(value)


def _rates(owner, spikes):
    """The rate of each neuron, and the batch size as a float."""
    spikes = ops.convert_to_tensor(spikes)
    if len(spikes.shape) < 3:
        raise ValueError(
            f"{owner} is of spikes [batch, time, ...]. Received an output of shape "
            f"{tuple(spikes.shape)}: make it the activity regularizer of a layer that "
            "returns its spikes in time."
        )
    spikes = ops.cast(spikes, "float32")
    return ops.mean(spikes, axis=(0, 1)), ops.cast(ops.shape(spikes)[0], "float32")
