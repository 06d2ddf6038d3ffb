"""Budget: a learning rate that comes to its end with the steps or with the time."""

import math
import time

import keras

from hwa_keras.core.checks import check_count, check_positive
from hwa_keras.core.types import Logs

__all__ = ["Budget"]


class Budget(keras.callbacks.Callback):
    """Warms the learning rate up, lets it fall to zero, and stops the fit in time.

    At progress s, the share of the steps or of the minutes that is used, whichever is
    more, the rate is peak·(1 + cos πs)/2, and in the first steps peak·step/warmup if
    that is less. With minutes alone nothing need be known of the speed of the machine;
    a fit with minutes is not repeatable to the bit. The number of tokens, or of
    whatever an example has, that were trained on in a second is logged at the end of
    each epoch.

    Args:
        peak: Float > 0, the largest learning rate.
        steps: Integer ≥ 1, updates of the whole training.
        minutes: Float > 0, the most time that it takes, or None. Defaults to `None`.
        warmup: Integer ≥ 0, steps until the peak. Defaults to `10`.
        per_step: Integer ≥ 1, what one step trains on, for the speed. Defaults to `1`.
        done: Pair (steps, seconds) that were used before. Defaults to none.

    Attributes:
        step: Integer, steps that were taken.
        seconds: Float, the time used.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> budget = hwa_keras.training.Budget(1e-3, steps=4, warmup=0)
        >>> history = model.fit(np.ones((4, 8)), np.ones((4, 3)), batch_size=1,
        ...                     verbose=0, callbacks=[budget])
        >>> budget.step, round(float(model.optimizer.learning_rate), 6)
        (4, 0.000146)
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        minutes: float | None = None,
        warmup: int = 10,
        per_step: int = 1,
        done: tuple[int, float] = (0, 0.0),
    ) -> None:
        super().__init__()
        check_positive("Budget", peak=peak)
        check_count("Budget", steps=steps, per_step=per_step)
        check_count("Budget", least=0, warmup=warmup)
        if minutes is not None:
            check_positive("Budget", minutes=minutes)
        self.peak = float(peak)
        self.steps = steps
        self.minutes = minutes
        self.warmup = warmup
        self.per_step = per_step
        self.step, self._before = done
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        now = 0.0 if self._start is None else time.monotonic() - self._start
        return self._before + now

    def progress(self) -> float:
        """The share of the budget that is used, from 0 to 1."""
        used = self.step / self.steps
        if self.minutes is not None:
            used = max(used, self.seconds / (60.0 * self.minutes))
        return min(used, 1.0)

    def learning_rate(self) -> float:
        """The rate of the next step."""
        rate = self.peak * (1.0 + math.cos(math.pi * self.progress())) / 2.0
        if self.step < self.warmup:
            rate = min(rate, self.peak * (self.step + 1) / self.warmup)
        return rate

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = self.step, time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self._rate = self.learning_rate()
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        # The first step compiles, which is no training.
        self._start = self._start or time.monotonic()
        self.step += 1
        if self.progress() >= 1.0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        step, start = self._epoch
        if logs is not None:
            elapsed = time.monotonic() - start
            logs["per_second"] = (self.step - step) * self.per_step / elapsed
            logs["learning_rate"] = self._rate
