"""Callbacks that set something anew in each epoch: noise, neighborhood, error rate."""

import math
from collections.abc import Callable
from typing import Any

import keras

from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.core.types import Logs
from hwa_keras.devices.bits import check_error_rate
from hwa_keras.noise import BitFlip, Noise, leaves
from hwa_keras.training.sharpness_aware import SharpnessAwareSteps

__all__ = ["NoiseRamp", "RhoSchedule", "UniformNoise", "noises_of"]


def noises_of(model: keras.Model) -> list[Noise]:
    """All elementary noises of a model: of kernels, of their outputs, and layers."""
    found = leaves(model._flatten_layers())
    found += [noise for kernel in hardware_kernels(model) for noise in kernel.noises()]
    return list({id(noise): noise for noise in found}.values())


class NoiseRamp(keras.callbacks.Callback):
    """Ramps the `scale` of a model's noises over the first epochs of a fit.

    In epoch e (counted from 0) the scale is start + (stop − start)·s(min(e/epochs, 1)),
    so that the full strength is reached in epoch `epochs` and stays. It depends on the
    epoch alone: a resumed fit (`initial_epoch=`) goes on where it was. The value is
    written into `logs` as `noise_scale`.

    Args:
        start: Float ≥ 0, the scale in the first epoch. Defaults to `0.0`.
        stop: Float ≥ 0, the scale at the end of the ramp. Defaults to `3.0`.
        epochs: Integer ≥ 0, the length of the ramp; with 0 the scale is `stop` from
            the first epoch on. Defaults to `10`.
        schedule: What s is: `"linear"`, `"cosine"` ((1 − cos πx)/2) or a function
            from [0, 1] to a factor. Defaults to `"linear"`.
        only: A noise class, or a tuple of them: ramp these and leave other noises
            alone. Defaults to all.

    Raises:
        ValueError: At the start of the fit, if the model has no such noise.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> hwa = hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
        >>> hwa.compile("adam", "mse")
        >>> history = hwa.fit(
        ...     np.ones((4, 8)), np.ones((4, 3)), epochs=3, verbose=0,
        ...     callbacks=[hwa_keras.training.NoiseRamp(stop=3.0, epochs=2)],
        ... )
        >>> history.history["noise_scale"]
        [0.0, 1.5, 3.0]

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469: 0 to 3 times the programming noise in
          the first 10 epochs.
    """

    def __init__(
        self,
        start: float = 0.0,
        stop: float = 3.0,
        epochs: int = 10,
        schedule: str | Callable[[float], float] = "linear",
        only: type | tuple[type, ...] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("start", start), ("stop", stop)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(
                    f"`{name}` must be finite and not negative. Received: "
                    f"{name}={value}."
                )
        if not isinstance(epochs, int) or epochs < 0:
            raise ValueError(
                f"`epochs` must be an integer ≥ 0. Received: epochs={epochs!r}."
            )
        if schedule not in _SCHEDULES and not callable(schedule):
            raise ValueError(
                f"`schedule` must be one of {', '.join(map(repr, _SCHEDULES))} or a "
                f"function from [0, 1] to a factor. Received: schedule={schedule!r}."
            )
        self.start = float(start)
        self.stop = float(stop)
        self.epochs = epochs
        self.schedule = schedule
        self.only = only
        self._noises = []

    def value(self, epoch: int) -> float:
        """The scale in an epoch, counted from 0."""
        schedule = _SCHEDULES.get(self.schedule, self.schedule)
        ramped = epoch / self.epochs if epoch < self.epochs else 1.0
        return self.start + (self.stop - self.start) * float(schedule(ramped))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        wanted = Noise if self.only is None else self.only
        self._noises = [n for n in noises_of(self.model) if isinstance(n, wanted)]
        if not self._noises:
            raise ValueError(
                f"NoiseRamp found no {'noise' if self.only is None else self.only} in "
                f"the model '{self.model.name}'. Give its kernels one: "
                "to_hwa(model, kernel_noise=...)."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._current = self.value(epoch)
        for noise in self._noises:
            noise.scale.assign(self._current)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["noise_scale"] = self._current


class RhoSchedule(keras.callbacks.Callback):
    """Sets the neighborhood of a `SharpnessAwareModel` at the start of each epoch.

    The value is written into `logs` as `rho`. Nothing is compiled again.

    Args:
        schedule: Function from an epoch, counted from 0, and the current ρ to the ρ
            of that epoch, a float > 0. One that does not look at the current ρ has a
            resumed fit (`initial_epoch=`) go on where it was.

    Raises:
        TypeError: If `schedule` is no function, or at the start of the fit, if the
            model is not sharpness-aware.
        ValueError: If the schedule returns something else than a positive number.

    Example:
        >>> inputs = keras.Input((8,))
        >>> model = hwa_keras.training.SharpnessAwareModel(
        ...     inputs, keras.layers.Dense(3)(inputs)
        ... )
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(
        ...     np.ones((4, 8)), np.ones((4, 3)), epochs=3, verbose=0,
        ...     callbacks=[
        ...         hwa_keras.training.RhoSchedule(lambda epoch, rho: (epoch + 1) / 20)
        ...     ],
        ... )
        >>> [round(rho, 2) for rho in history.history["rho"]]
        [0.05, 0.1, 0.15]
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                "`schedule` must be a function from an epoch and the current rho to "
                f"the next. Received: {schedule!r}."
            )
        self.schedule = schedule

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not isinstance(self.model, SharpnessAwareSteps):
            raise TypeError(
                f"RhoSchedule needs a SharpnessAwareModel, and '{self.model.name}' is "
                f"a {type(self.model).__name__}. Wrap it: "
                "SharpnessAwareModel.wrap(model)."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.model.rho = self.schedule(epoch, self.model.rho)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["rho"] = self.model.rho


class UniformNoise(keras.callbacks.Callback):
    """Gives every kernel of a model the same bit error rate: the baseline of `LaNMax`.

    The value is written into `logs` as `error_rate`. Nothing is compiled again.

    Args:
        p: Float in [0, ½], or a function from an epoch, counted from 0, to one: the
            `p` of every `noise.BitFlip` of the model.

    Raises:
        ValueError: If p is out of its range, or at the start of the fit, if the model
            has no `BitFlip`.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), hwa_keras.layers.HWADense(
        ...     3, kernel_quantizer="ste_sign", kernel_noise=hwa_keras.noise.BitFlip(0)
        ... )])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(
        ...     np.ones((4, 8)), np.ones((4, 3)), epochs=2, verbose=0,
        ...     callbacks=[hwa_keras.training.UniformNoise(lambda epoch: epoch / 100)],
        ... )
        >>> [round(p, 2) for p in history.history["error_rate"]]
        [0.0, 0.01]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.3.1.
    """

    def __init__(self, p: float | Callable[[int], float]) -> None:
        super().__init__()
        if not callable(p):
            check_error_rate("UniformNoise", p=p)
        self.p = p
        self._noises = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._noises = [n for n in noises_of(self.model) if isinstance(n, BitFlip)]
        if not self._noises:
            raise ValueError(
                f"UniformNoise found no BitFlip in the model '{self.model.name}'. Give "
                "its kernels one: kernel_noise=hwa_keras.noise.BitFlip(0.01)."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._current = float(self.p(epoch) if callable(self.p) else self.p)
        check_error_rate("UniformNoise", p=self._current)
        for noise in self._noises:
            noise.p.assign(self._current)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["error_rate"] = self._current


_SCHEDULES: dict[Any, Any] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1.0 - math.cos(math.pi * x)) / 2.0,
}
