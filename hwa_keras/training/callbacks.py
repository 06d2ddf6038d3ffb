"""Callbacks that steer the hardware while a model trains."""

import math

import keras

from hwa_keras.layers import HardwareLayer
from hwa_keras.model import HWAModel
from hwa_keras.noise import Noise, leaves

__all__ = ["NoiseRamp", "noises_of"]


def noises_of(model):
    """All elementary noises of a model: of `HWAModel`s, hardware layers and layers."""
    layers = list(model._flatten_layers())
    owners = [a for a in layers if isinstance(a, (HWAModel, HardwareLayer))]
    found = leaves(layers) + [noise for owner in owners for noise in owner.noises()]
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
        epochs: Integer ≥ 1, the length of the ramp. Defaults to `10`.
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

    def __init__(self, start=0.0, stop=3.0, epochs=10, schedule="linear", only=None):
        super().__init__()
        for name, value in (("start", start), ("stop", stop)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(
                    f"`{name}` must be finite and not negative. Received: "
                    f"{name}={value}."
                )
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(
                f"`epochs` must be an integer ≥ 1. Received: epochs={epochs!r}."
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

    def value(self, epoch):
        """The scale in an epoch, counted from 0."""
        schedule = _SCHEDULES.get(self.schedule, self.schedule)
        factor = float(schedule(min(epoch / self.epochs, 1.0)))
        return self.start + (self.stop - self.start) * factor

    def on_train_begin(self, logs=None):
        wanted = Noise if self.only is None else self.only
        self._noises = [n for n in noises_of(self.model) if isinstance(n, wanted)]
        if not self._noises:
            raise ValueError(
                f"NoiseRamp found no {'noise' if self.only is None else self.only} in "
                f"the model '{self.model.name}'. Give its kernels one: "
                "to_hwa(model, kernel_noise=...)."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._current = self.value(epoch)
        for noise in self._noises:
            noise.scale.assign(self._current)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["noise_scale"] = self._current


_SCHEDULES = {
    "linear": lambda x: x,
    "cosine": lambda x: (1.0 - math.cos(math.pi * x)) / 2.0,
}
