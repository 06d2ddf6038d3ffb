"""Encoders: images and signals as spikes."""

from typing import Any

import keras
from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.checks import check_count, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.spiking.membrane import scan

__all__ = ["ConstantEncoder", "DeltaEncoder", "LatencyEncoder", "RateEncoder"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConstantEncoder(keras.layers.Layer):
    """Encodes intensities as constant currents: the same in each step.

    The first layer of synapses then computes with numbers, not with spikes, and its
    neurons are exact to a spike.

    Args:
        steps: Integer ≥ 1, the number of time steps.

    Call arguments:
        inputs: Tensor `[batch, ...]`.

    Returns:
        Tensor `[batch, steps, ...]`.

    Example:
        >>> encoder = hwa_keras.spiking.ConstantEncoder(steps=3)
        >>> ops.convert_to_numpy(encoder(np.array([[0.5]]))).ravel().tolist()
        [0.5, 0.5, 0.5]
    """

    def __init__(self, steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = check_count("ConstantEncoder", steps=steps)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.repeat(ops.expand_dims(inputs, 1), self.steps, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.steps, *input_shape[1:])

    def get_config(self) -> Config:
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable(package=PACKAGE)
class RateEncoder(SavesSeeds, keras.layers.Layer):
    """Encodes intensities as rates: a spike in each step with probability x·max_rate.

    Draws of all steps are independent (a Bernoulli process, the Poisson process of
    discrete time), anew at each call, in training and at inference. Probabilities
    beyond 0 and 1 count as 0 and 1. No gradient passes.

    Args:
        steps: Integer ≥ 1, the number of time steps.
        max_rate: Float in (0, 1], the probability of a spike at intensity 1. Defaults
            to `1.0`.
        seed: Integer, the seed of the spikes, or None for a random one. Defaults to
            `None`.

    Call arguments:
        inputs: Tensor `[batch, ...]` of intensities from 0 to 1.

    Returns:
        Tensor `[batch, steps, ...]` of zeros and ones.

    Example:
        >>> encoder = hwa_keras.spiking.RateEncoder(steps=1000, seed=1)
        >>> spikes = encoder(np.array([[0.0, 0.25, 1.0]], "float32"))
        >>> [round(float(rate), 2) for rate in ops.mean(spikes, axis=1)[0]]
        [0.0, 0.24, 1.0]
    """

    def __init__(
        self, steps: int, max_rate: float = 1.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.steps = check_count("RateEncoder", steps=steps)
        check_positive("RateEncoder", max_rate=max_rate)
        if max_rate > 1:
            raise ValueError(
                "`max_rate` of RateEncoder is a probability, from 0 to 1. Received: "
                f"max_rate={max_rate!r}."
            )
        self.max_rate = float(max_rate)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.expand_dims(ops.cast(inputs, "float32"), 1)
        shape = (ops.shape(inputs)[0], self.steps, *inputs.shape[1:])
        seed = random.next_seed(self.seed_generator)
        spikes = random.bernoulli(shape, seed, x * self.max_rate)
        return ops.cast(spikes, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.steps, *input_shape[1:])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "steps": self.steps,
            "max_rate": self.max_rate,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class LatencyEncoder(keras.layers.Layer):
    """Encodes each intensity as the time of one spike: the larger, the earlier.

    An intensity x above the threshold θ spikes in the step nearest to

        t(x) = (steps − 1)·(1 − x)/(1 − θ)           without `tau`,
        t(x) = τ·ln(x/(x − θ))                       with it,

    the second being when a membrane of time constant τ, charged by a constant current
    x, reaches θ. What would spike after the last step spikes in it; what is not above θ
    does not spike. Intensities above 1 count as 1. No gradient passes.

    Args:
        steps: Integer ≥ 1, the number of time steps.
        threshold: Float in (0, 1), θ. Defaults to `0.01`.
        tau: Float > 0, τ in steps, or None for times linear in x. Defaults to `None`.

    Call arguments:
        inputs: Tensor `[batch, ...]` of intensities from 0 to 1.

    Returns:
        Tensor `[batch, steps, ...]` of zeros and ones.

    Example:
        >>> encoder = hwa_keras.spiking.LatencyEncoder(steps=5)
        >>> spikes = encoder(np.array([[0.0, 0.5, 1.0]], "float32"))
        >>> ops.convert_to_numpy(spikes[0]).astype(int).T.tolist()
        [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    """

    def __init__(
        self,
        steps: int,
        threshold: float = 0.01,
        tau: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.steps = check_count("LatencyEncoder", steps=steps)
        check_positive("LatencyEncoder", threshold=threshold)
        if threshold >= 1:
            raise ValueError(
                "`threshold` of LatencyEncoder must be below 1, the largest intensity. "
                f"Received: threshold={threshold!r}."
            )
        if tau is not None:
            check_positive("LatencyEncoder", tau=tau)
        self.threshold = float(threshold)
        self.tau = None if tau is None else float(tau)

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.minimum(ops.cast(inputs, "float32"), 1.0)
        spikes = x > self.threshold
        x = ops.where(spikes, x, 1.0)
        last = self.steps - 1
        if self.tau is None:
            t = last * (1.0 - x) / (1.0 - self.threshold)
        else:
            t = self.tau * ops.log(x / (x - self.threshold))
        step = ops.cast(ops.round(ops.minimum(t, float(last))), "int32")
        step = ops.where(spikes, step, self.steps)
        times = ops.reshape(ops.arange(self.steps), (-1, *(1 for _ in x.shape[1:])))
        return ops.cast(ops.expand_dims(step, 1) == times, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.steps, *input_shape[1:])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "steps": self.steps,
            "threshold": self.threshold,
            "tau": self.tau,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class DeltaEncoder(keras.layers.Layer):
    """Encodes changes: a spike for each step of a threshold up or down.

    Asynchronous delta modulation, as in event cameras. A reference r starts at the
    first value. Where x_t ≥ r + θ there is an ON spike and r moves up by θ, where
    x_t ≤ r − θ an OFF spike and r moves down by θ: slow changes are not lost, and
    r₀ + θ·(sum of ON − sum of OFF) follows the signal within θ, as long as it moves by
    no more than θ in a step. No gradient passes.

    Args:
        threshold: Float > 0, θ in the units of the signal.
        off: Bool. Whether there are channels for OFF spikes. Defaults to `True`.

    Call arguments:
        inputs: Tensor `[batch, time, ..., channels]`, signals or frames.

    Returns:
        Tensor `[batch, time, ..., channels]` of zeros and ones, with `off` of
        `2·channels`: ON spikes, then OFF spikes.

    Example:
        >>> encoder = hwa_keras.spiking.DeltaEncoder(threshold=1.0)
        >>> x = np.array([0.0, 0.5, 1.0, 1.5, 0.0], "float32").reshape(1, 5, 1)
        >>> ops.convert_to_numpy(encoder(x)[0]).astype(int).T.tolist()
        [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    """

    def __init__(self, threshold: float, off: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive("DeltaEncoder", threshold=threshold)
        self.threshold = float(threshold)
        self.off = bool(off)

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.stop_gradient(ops.cast(inputs, "float32"))
        x = ops.moveaxis(x, 1, 0)

        def step(reference, value):
            change = value - reference
            on = ops.cast(change >= self.threshold, "float32")
            down = ops.cast(change <= -self.threshold, "float32")
            signed = on - down
            return reference + self.threshold * signed, signed

        _, signed = scan(step, x[0], x)
        signed = ops.moveaxis(signed, 0, 1)
        spikes = [signed > 0, signed < 0] if self.off else [signed > 0]
        return ops.concatenate(
            [ops.cast(each, self.compute_dtype) for each in spikes], axis=-1
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels: Any
        *outer, channels = input_shape
        return (*outer, 2 * channels if self.off else channels)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "off": self.off,
        }
