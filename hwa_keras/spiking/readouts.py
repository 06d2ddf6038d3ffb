"""Readouts: from spikes or membranes over time to a score for each class."""

from typing import Any

import keras
from keras import ops

from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Shape, Tensor

__all__ = [
    "FirstSpike",
    "MembraneReadout",
    "RateReadout",
    "SpikeCount",
    "class_counts",
]


@keras.saving.register_keras_serializable(package=PACKAGE)
class SpikeCount(keras.layers.Layer):
    """Counts the spikes of each class: Σ over time, and over the class's neurons.

    Counts are logits: `SparseCategoricalCrossentropy(from_logits=True)` trains on them.

    Args:
        population: Integer ≥ 1, neurons for each class: class c has those from
            c·population on. Defaults to `1`.
        rate: Bool. Whether to return the mean in place of the sum: spikes a step and
            neuron. Defaults to `False`.

    Call arguments:
        inputs: Tensor of spikes `[batch, time, neurons]`.

    Returns:
        Tensor `[batch, classes]`.

    Raises:
        ValueError: If `population` is out of its range or does not divide the number
            of neurons.

    Example:
        >>> readout = hwa_keras.spiking.SpikeCount(population=2)
        >>> spikes = np.array([[[1, 0, 0, 1], [1, 1, 0, 0]]], "float32")
        >>> ops.convert_to_numpy(readout(spikes)).tolist()
        [[3.0, 1.0]]
    """

    def __init__(self, population: int = 1, rate: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.population = check_count("SpikeCount", population=population)
        self.rate = bool(rate)

    def call(self, inputs: Tensor) -> Tensor:
        counts = class_counts("SpikeCount", inputs, self.population)
        if not self.rate:
            return counts
        steps = ops.cast(ops.shape(inputs)[1], counts.dtype)
        return counts / (steps * self.population)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1] // self.population)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "population": self.population,
            "rate": self.rate,
        }


def class_counts(owner, spikes, population):
    """The spikes `[batch, time, neurons]` of each class, `[batch, classes]`."""
    _check_traces(owner, spikes)
    neurons = spikes.shape[-1]
    if neurons % population:
        raise ValueError(
            f"`population` of {owner} must divide the number of neurons. Received: "
            f"population={population} for {neurons} neurons."
        )
    counts = ops.sum(spikes, axis=1)
    if population == 1:
        return counts
    classes = ops.reshape(counts, (-1, neurons // population, population))
    return ops.sum(classes, axis=-1)


@keras.saving.register_keras_serializable(package=PACKAGE)
class FirstSpike(keras.layers.Layer):
    """Scores each neuron by its first spike: minus the number of steps before it.

    The class whose neuron spikes first has the largest score. A neuron that is silent
    in all T steps has the score −T. The gradient is that of −Σ_t Π_{s≤t}(1 − z_s),
    which is the score of spikes z of 0 and 1 and differentiable: a spike before the
    first one would raise the score by the steps it is earlier, the loss of the first
    one lower it by the steps to the second.

    Call arguments:
        inputs: Tensor of spikes `[batch, time, neurons]`, zeros and ones.

    Returns:
        Tensor `[batch, neurons]`.

    Example:
        >>> readout = hwa_keras.spiking.FirstSpike()
        >>> spikes = np.array([[[0, 0], [0, 1], [0, 1]]], "float32")
        >>> ops.convert_to_numpy(readout(spikes)).tolist()
        [[-3.0, -1.0]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        _check_traces("FirstSpike", inputs)
        return _first_spike(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])


@ops.custom_gradient
def _first_spike(spikes):
    """−t of the first spike; by hand, as cumulative products of zeros have no slope."""
    counts = ops.cumsum(spikes, axis=1)
    silent = ops.cast(counts < 0.5, spikes.dtype)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        once = ops.cast(counts < 1.5, spikes.dtype) - silent
        fires = spikes > 0.5
        later = ops.where(fires, _from_here_on(once), _from_here_on(silent))
        until_first = ops.cast(counts - spikes < 0.5, spikes.dtype)
        return ops.expand_dims(upstream, 1) * later * until_first

    return -ops.sum(silent, axis=1), gradient


def _from_here_on(x):
    return ops.flip(ops.cumsum(ops.flip(x, axis=1), axis=1), axis=1)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MembraneReadout(keras.layers.Layer):
    """Scores each neuron by its membrane: at the end, at its largest, or on average.

    For neurons that integrate without spiking, `LIF(reset="none",
    return_membrane=True)`: scores without the rounding of counts.

    Args:
        mode: `"last"`, `"max"` or `"mean"` over time. Defaults to `"last"`.

    Call arguments:
        inputs: Tensor of membranes `[batch, time, neurons]`.

    Returns:
        Tensor `[batch, neurons]`.

    Raises:
        ValueError: If `mode` is none of these.

    Example:
        >>> membrane = np.array([[[0.5], [2.0], [1.0]]], "float32")
        >>> [
        ...     float(hwa_keras.spiking.MembraneReadout(mode)(membrane)[0, 0])
        ...     for mode in ("last", "max", "mean")
        ... ]
        [1.0, 2.0, 1.16...]
    """

    def __init__(self, mode: str = "last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        modes = ("last", "max", "mean")
        self.mode = check_choice("MembraneReadout", modes, mode=mode)

    def call(self, inputs: Tensor) -> Tensor:
        _check_traces("MembraneReadout", inputs)
        if self.mode == "last":
            return inputs[:, -1]
        reduce = ops.max if self.mode == "max" else ops.mean
        return reduce(inputs, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package=PACKAGE)
class RateReadout(keras.layers.Layer):
    """The mean over time, times a scale: what spikes or currents stand for.

    Args:
        scale: Float > 0, what one spike in each step stands for. Defaults to `1.0`.

    Call arguments:
        inputs: Tensor `[batch, time, ...]`.

    Returns:
        Tensor `[batch, ...]`.

    Raises:
        ValueError: If `scale` is not positive.

    Example:
        >>> readout = hwa_keras.spiking.RateReadout(scale=4.0)
        >>> spikes = np.array([[[0, 1], [1, 0], [0, 0], [0, 1]]], "float32")
        >>> ops.convert_to_numpy(readout(spikes)).tolist()
        [[1.0, 2.0]]
    """

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive("RateReadout", scale=scale)
        self.scale = float(scale)

    def call(self, inputs: Tensor) -> Tensor:
        return self.scale * ops.mean(inputs, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *input_shape[2:])

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale}


def _check_traces(owner, x):
    if len(x.shape) != 3:
        raise ValueError(
            f"{owner} takes [batch, time, neurons]. Received a tensor of shape "
            f"{tuple(x.shape)}."
        )
