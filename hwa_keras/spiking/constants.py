"""What neurons are made with: time constants, thresholds, and their mismatch."""

from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras import noise
from hwa_keras.core import modes, random
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.checks import (
    check_choice,
    check_not_negative,
    check_positive,
    is_number,
)
from hwa_keras.core.keras_private import unlocked
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import ArrayLike, Config, Seed, Self, Tensor
from hwa_keras.noise.base import Noise
from hwa_keras.noise.base import family as noises

__all__ = ["NeuronConstants", "decay"]

# The least that mismatch leaves of a leak rate or a threshold: both stay positive.
LEAST = 0.01
_MOST_STEPS = 5.0


def decay(tau: ArrayLike, dt: float) -> Any:
    """β = exp(−dt/τ): what a membrane keeps in one step.

    Args:
        tau: Float or array, τ, seconds; infinity for one that does not leak.
        dt: Float, the step, seconds.

    Example:
        >>> round(float(hwa_keras.spiking.decay(tau=64e-3, dt=8e-3)), 4)
        0.8825
    """
    return np.exp(-dt / np.asarray(tau, "float64"))


def check_tau(owner, name, value, dt):
    """Return time constants as an array, if they are positive and not too short."""
    tau = _as_array(owner, name, value)
    if np.isnan(tau).any() or (tau <= 0).any():
        raise ValueError(
            f"`{name}` of {owner} must be positive: a time constant in seconds, one or "
            f"one per neuron; infinity for no leak. Received: {name}={value!r}."
        )
    shortest = tau.min()
    if dt >= _MOST_STEPS * shortest:
        raise ValueError(
            f"`dt` of {owner} must be less than 5·{name}. In a step of dt={dt!r} s a "
            f"membrane with {name}={float(shortest)!r} s keeps exp(−dt/τ) = "
            f"{float(decay(shortest, dt)):.2g} of itself, so that no neuron would "
            "remember the step before. Are both in seconds? Make dt shorter, or "
            f"{name} longer."
        )
    return tau


def check_threshold(owner, value):
    """Return thresholds as an array, if they are positive and finite."""
    threshold = _as_array(owner, "threshold", value)
    if not (np.isfinite(threshold) & (threshold > 0)).all():
        raise ValueError(
            f"`threshold` of {owner} must be positive and finite, one or one per "
            f"neuron: at rest a neuron is silent. Received: threshold={value!r}."
        )
    return threshold


def _as_array(owner, name, value):
    try:
        array = np.asarray(value, "float64")
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.size == 0:
        raise ValueError(
            f"`{name}` of {owner} must be a number, or an array with one per neuron. "
            f"Received: {name}={value!r}."
        )
    return array


def as_mismatch(owner, name, value):
    """A noise of its own for one layer, from a standard deviation or a noise."""
    if is_number(value):
        check_not_negative(owner, **{name: value})
        return noise.ProcessVariation(float(value)) if value else None
    found = noises.get(value)
    if found is not None and not isinstance(found, Noise):
        raise TypeError(
            f"`{name}` of {owner} must be a standard deviation relative to the nominal "
            f"value, or a hwa_keras noise, which draws a chip. Received: {value!r}."
        )
    return found if found is None else replicate(found)


class NeuronConstants(SavesSeeds):
    """Mixin for layers of neurons: time constants and thresholds, and their mismatch.

    Neurons differ from chip to chip and across a chip: neuron i leaks at the rate
    (1 + σz)/τ and fires at θ·(1 + σz). A call that trains draws them, once per chip or
    anew each time, as the noise says that describes them; a chip holds one draw; and
    all else computes with the nominal values.

    Attributes:
        on_chip: Bool. Whether the neurons are those of a chip, drawn by `draw_chip`.
    """

    time_constants: tuple = ("tau",)
    _mismatch_seeds: Any = None
    tau_factor: Any = None
    threshold_factor: Any = None
    on_chip = False
    add_weight: Any
    built: bool
    compute_dtype: str
    name: str

    def _set_constants(
        self,
        dt,
        threshold=1.0,
        tau_levels=None,
        tau_noise=None,
        threshold_noise=None,
        learn_tau=False,
        mismatch_seed=None,
        **taus,
    ):
        owner = type(self).__name__
        check_positive(owner, dt=dt)
        check_choice(owner, (False, True), learn_tau=learn_tau)
        self.dt = float(dt)
        self._taus = {n: check_tau(owner, n, tau, dt) for n, tau in taus.items()}
        self._thresholds = check_threshold(owner, threshold)
        self._levels = None
        if tau_levels is not None:
            self._levels = np.ravel(check_tau(owner, "tau_levels", tau_levels, dt))
        self.learn_tau = learn_tau
        for name, tau in self._taus.items():
            if (learn_tau or tau_levels is not None) and not np.isfinite(tau).all():
                raise ValueError(
                    f"`{name}` of {owner} must be finite to be learned, or to be moved "
                    f"to the nearest of `tau_levels`. Received: {name}={taus[name]!r}."
                )
        self.tau_noise = as_mismatch(owner, "tau_noise", tau_noise)
        self.threshold_noise = as_mismatch(owner, "threshold_noise", threshold_noise)
        self.mismatch_seed = mismatch_seed
        if self.tau_noise is not None or self.threshold_noise is not None:
            self._mismatch_seeds = keras.random.SeedGenerator(mismatch_seed)

    @property
    def tau(self) -> np.ndarray:
        """τ as it was given, seconds: an array `[]` or one per neuron."""
        return self._taus["tau"]

    @property
    def threshold(self) -> np.ndarray:
        """θ as it was given: an array `[]` or one per neuron."""
        return self._thresholds

    @property
    def tau_levels(self) -> Any:
        """The time constants that there are, seconds, or None for any."""
        return self._levels

    @property
    def state_dtype(self) -> str:
        """What membranes are computed in: at least `float32`."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _build_constants(self, neurons):
        """Make the weights for neurons of a shape."""
        owner = type(self).__name__
        self._neurons = tuple(neurons)
        for name, value in {**self._taus, "threshold": self._thresholds}.items():
            shape = value.shape
            fits = len(shape) <= len(neurons) and all(
                a in (1, b) for a, b in zip(shape[::-1], neurons[::-1], strict=False)
            )
            if not fits:
                raise ValueError(
                    f"`{name}` of {owner} must be one number, or an array that "
                    f"broadcasts with the neurons, of shape {self._neurons}. Received "
                    f"an array of shape {shape}."
                )
        if self.learn_tau:
            self._learned = [self._log_tau(name) for name in self.time_constants]
        for i, each in enumerate((self.tau_noise, self.threshold_noise)):
            if each is not None:
                if None in self._neurons:
                    raise ValueError(
                        f"`tau_noise` and `threshold_noise` of {owner} draw a value "
                        "for each neuron, so that all axes but batch and time must be "
                        f"known. The neurons are of shape {self._neurons}."
                    )
                state = ops.cast(self._mismatch_seeds.state, "uint32")
                each.bind(self, random.fold_in(state, i))

    def _log_tau(self, name):
        tau = np.broadcast_to(
            self._taus[name], (*self._taus[name].shape[:-1], self._neurons[-1])
        )
        return self.add_weight(
            shape=tau.shape,
            initializer=lambda shape, dtype: ops.cast(np.log(tau), dtype),
            dtype=self.state_dtype,
            autocast=False,
            name=f"log_{name}",
        )

    def _mismatches(self):
        """{attribute: (noise, shape of its factors)}."""
        count = len(self.time_constants)
        found = {}
        if self.tau_noise is not None:
            found["tau_factor"] = self.tau_noise, (count, *self._neurons)
        if self.threshold_noise is not None:
            found["threshold_factor"] = self.threshold_noise, (1, *self._neurons)
        return found

    def _add_factors(self):
        with unlocked(self):
            for name, (_, shape) in self._mismatches().items():
                factor = self.add_weight(
                    shape=shape,
                    initializer="ones",
                    trainable=False,
                    dtype="float32",
                    autocast=False,
                    name=name,
                )
                setattr(self, name, factor)

    def draw_chip(self, seed: Seed) -> None:
        """Become the neurons of a chip, drawn from a seed.

        `Chip.write` calls this on all layers that have it.

        Args:
            seed: `uint32` tensor of shape `(2,)`: `hwa_keras.random.seed_from(7)`.
        """
        if not self.built:
            raise ValueError(
                f"'{self.name}' is not built: how many neurons to draw is not known. "
                "Call it once first."
            )
        if not self.on_chip:
            self._add_factors()
            self.on_chip = True
        for i, (name, (each, shape)) in enumerate(self._mismatches().items()):
            own = random.fold_in(seed, i)
            drawn = each.perturb(ops.ones(shape), own, each.strength(chip=own))
            getattr(self, name).assign(ops.maximum(drawn, LEAST))

    def constants(self, training: bool = False) -> tuple[list[Tensor], Tensor]:
        """What the neurons of a call compute with.

        Args:
            training: Bool. Whether the call trains: mismatch is drawn then. Defaults
                to `False`.

        Returns:
            A pair: the list of the decays exp(−dt/τ), β first, and θ. Tensors of
            `state_dtype` that broadcast with the neurons.
        """
        factors = self._factors(training)
        rates = [self._rate(i) for i in range(len(self.time_constants))]
        threshold = ops.cast(self._thresholds, self.state_dtype)
        if (leaks := factors.get("tau_factor")) is not None:
            rates = [rate * leaks[i] for i, rate in enumerate(rates)]
        if (levels := factors.get("threshold_factor")) is not None:
            threshold = threshold * levels[0]
        return [ops.exp(-rate) for rate in rates], threshold

    def _factors(self, training):
        """{attribute: factors} of the neurons of this call; empty for nominal ones."""
        mismatches = self._mismatches()
        if self.on_chip:
            found = {name: getattr(self, name).value for name in mismatches}
        elif mismatches and modes.current().is_noisy(training):
            seed = random.next_seed(self._mismatch_seeds)
            found = {
                name: ops.maximum(each(ops.ones(shape), random.fold_in(seed, i)), LEAST)
                for i, (name, (each, shape)) in enumerate(mismatches.items())
            }
        else:
            found = {}
        return {name: ops.cast(v, self.state_dtype) for name, v in found.items()}

    def _rate(self, i):
        """dt/τ of one of the time constants, nominal."""
        if not self.learn_tau:
            tau = self._taus[self.time_constants[i]]
            return ops.cast(self.dt / self._snapped(tau), self.state_dtype)
        tau = ops.exp(self._learned[i].value)
        if self._levels is not None:
            levels = ops.cast(self._levels, self.state_dtype)
            distances = ops.abs(ops.expand_dims(ops.stop_gradient(tau), -1) - levels)
            nearest = ops.take(levels, ops.argmin(distances, axis=-1))
            tau = tau + ops.stop_gradient(nearest - tau)
        return self.dt / tau

    def _snapped(self, tau):
        if self._levels is None:
            return tau
        distances = np.abs(tau[..., None] - self._levels)
        return self._levels[np.argmin(distances, axis=-1)]

    def _constants_config(self):
        config = {
            **{name: tau.tolist() for name, tau in self._taus.items()},
            "dt": self.dt,
            "threshold": self._thresholds.tolist(),
            "tau_levels": None if self._levels is None else self._levels.tolist(),
            "tau_noise": noises.serialize(self.tau_noise),
            "threshold_noise": noises.serialize(self.threshold_noise),
            "learn_tau": self.learn_tau,
            "mismatch_seed": self.mismatch_seed,
        }
        return {**config, "on_chip": True} if self.on_chip else config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        on_chip = config.pop("on_chip", False)
        layer = cls(**config)
        layer.on_chip = on_chip
        return layer
