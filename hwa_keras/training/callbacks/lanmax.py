"""LaNMax: learn how unreliable each kernel's memory may be, while the weights learn."""

import math

import keras
import numpy as np
from keras import ops

from hwa_keras.core.checks import check_not_negative, check_positive
from hwa_keras.core.types import Logs
from hwa_keras.devices.bits import check_error_rate
from hwa_keras.devices.sram import relative_energy
from hwa_keras.profile.stored_kernels import stored_kernels

__all__ = ["LaNMax"]


class LaNMax(keras.callbacks.Callback):
    r"""Layerwise noise maximization: trades bit errors for energy, kernel by kernel.

    Every kernel with a `noise.BitFlip` has an error rate pᵢ of its own. In each batch
    the rates are perturbed, p̃ = clip(p + ε) with each εᵢ one of −h, 0 and h, and the
    batch's own loss L is noted. At the end of an epoch the slopes of

        L/L* + α·√E(p̃) + λ·Σᵢp̃ᵢ

    over p̃ are estimated by one multivariate least-squares regression, normalized to
    length 1, and p takes one step of Nesterov's descent. L* is the smallest batch loss
    up to the end of the epoch (one for all its batches: if it fell from batch to batch,
    the regression would take that for an effect of p), and E(p) is the energy of the
    memory relative to a reliable one, Σᵢ bits·nᵢ·η(pᵢ) / Σᵢ bits·nᵢ. After the share
    `until` of the epochs p stays, so that the weights settle with it.

    Written into `logs` at the end of each epoch: `memory_energy`, E(p); `p/<kernel>`;
    and, while p is learned, `p_slope/<kernel>`, the normalized slope. What is needed
    to go on is kept in the model: a fit resumed with `initial_epoch=` or
    `BackupAndRestore` goes on as if it had not been interrupted. Put the callback
    before those that save. With `steps_per_execution=k` one measurement is the mean
    loss of k batches. Nothing is compiled again.

    Args:
        alpha: Float ≥ 0, α, the weight of the energy. Defaults to `0.01`.
        p: Float in [p_min, p_max], the error rate that each kernel begins with in
            epoch 0; None for those of the `BitFlip`s. Defaults to `0.01`.
        p_min: Float > 0, the smallest error rate. Defaults to `1e-4`.
        p_max: Float ≤ ½, the largest. Defaults to `0.5`.
        h: Float > 0, the size of the perturbations. Defaults to `0.01`.
        momentum: Float in [0, 1), Nesterov's momentum. Defaults to `0.2`.
        decay: Float ≥ 0, λ, which keeps rates from growing. Defaults to `5e-4`.
        until: Float in (0, 1], the share of the epochs in which p is learned.
            Defaults to `0.8`.
        learning_rate: Float > 0, the step size of p; None for the learning rate that
            the optimizer of the weights has at the end of the epoch.
        a: Float > 0, the constant of the technology in η. Defaults to `12.8`.
        seed: Integer, the seed of the perturbations. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range; at the start of the fit, if the
            model has no `BitFlip` or there is no epoch to learn in; if an epoch has
            too few batches for the regression (it takes two more than there are rates
            to learn); or if a fit is resumed from weights that LaNMax has not left
            after the epoch before.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), hwa_keras.layers.HWADense(
        ...     3, kernel_quantizer="binary_connect",
        ...     kernel_noise=hwa_keras.noise.BitFlip(0.01),
        ... )])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> history = model.fit(
        ...     np.ones((64, 8)), np.ones((64, 3)), batch_size=8, epochs=2, verbose=0,
        ...     callbacks=[hwa_keras.training.LaNMax(alpha=0.1)],
        ... )
        >>> len(history.history["memory_energy"])
        2

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, algorithm 1, equations
          4.4 to 4.7 and section 4.4.1 (the defaults).
    """

    def __init__(
        self,
        alpha: float = 0.01,
        p: float | None = 0.01,
        p_min: float = 1e-4,
        p_max: float = 0.5,
        h: float = 0.01,
        momentum: float = 0.2,
        decay: float = 5e-4,
        until: float = 0.8,
        learning_rate: float | None = None,
        a: float = 12.8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_not_negative("LaNMax", alpha=alpha, decay=decay, momentum=momentum)
        check_positive("LaNMax", p_min=p_min, h=h, until=until, a=a)
        check_error_rate("LaNMax", p_max=p_max)
        if learning_rate is not None:
            check_positive("LaNMax", learning_rate=learning_rate)
        if momentum >= 1 or until > 1:
            raise ValueError(
                "`momentum` must be below 1, and `until` a share of the epochs, 1 at "
                f"most. Received: momentum={momentum}, until={until}."
            )
        if not p_min < p_max or not (p is None or p_min <= p <= p_max):
            raise ValueError(
                "`p` must lie from `p_min` to `p_max`. Received: "
                f"p={p}, p_min={p_min}, p_max={p_max}."
            )
        self.alpha, self.p, self.p_min, self.p_max = alpha, p, p_min, p_max
        self.h, self.momentum, self.decay = h, momentum, decay
        self.until, self.learning_rate, self.a = until, learning_rate, a
        self.seed = seed

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._kernels = [k for k in stored_kernels(self.model) if k.noise is not None]
        if not self._kernels:
            raise ValueError(
                f"LaNMax found no BitFlip in the model '{self.model.name}'. Give its "
                "kernels a quantizer and one: to_hwa(model, kernel_quantizer="
                "'binary_connect', kernel_noise=hwa_keras.noise.BitFlip(0.01))."
            )
        self._noises = [kernel.noise for kernel in self._kernels]
        for kernel in self._kernels:
            if kernel.noise.total_scale != 1:
                raise ValueError(
                    "LaNMax learns p itself, so the scale of each BitFlip must be 1. "
                    f"That of '{kernel.path}' is {kernel.noise.total_scale}."
                )
        if not self._learns(0):
            raise ValueError(
                f"LaNMax learns in the first {self.until:g} of the epochs, which is "
                f"not one of {self.params['epochs']}. Take more epochs, or until=1.0."
            )
        self._memory = _Memory(self._kernels, self.a)
        steps = (self.params or {}).get("steps")
        if steps is not None:
            self._check_count(math.ceil(steps / self.model.steps_per_execution))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch == 0:
            for noise in self._noises:
                noise.search.assign([0.0, math.inf, 0.0])
                if self.p is not None:
                    noise.p.assign(self.p)
            self._write_rates(np.clip(self._read_rates(), self.p_min, self.p_max))
        self._check_resumed(epoch)
        self._rates = self._read_rates()
        self._best = self._search()[0, 1]
        self._learning = self._learns(epoch)
        self._random = np.random.default_rng([self.seed, epoch])
        self._measured = []  # Pairs (rates tried, batch loss).
        self._seen = np.zeros(2)  # Sum of losses, and their weight, in this epoch.

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self._learning:
            epsilon = self.h * self._random.integers(-1, 2, len(self._noises))
            self._tried = np.clip(self._rates + epsilon, self.p_min, self.p_max)
            self._write_rates(self._tried)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._learning:
            loss = self._batch_loss()
            self._best = min(self._best, loss)
            self._measured.append((self._tried, loss))
            self._write_rates(self._rates)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        slopes = None
        if self._learning:
            self._check_count(len(self._measured))
            slopes = self._step()
        velocity = self._search()[:, 0] if slopes is None else self._velocity
        for noise, v in zip(self._noises, velocity, strict=True):
            noise.search.assign([v, self._best, epoch + 1])
        if logs is not None:
            logs["memory_energy"] = self._memory.energy(self._rates)
            for i, kernel in enumerate(self._kernels):
                logs[f"p/{kernel.path}"] = float(self._rates[i])
                if slopes is not None:
                    logs[f"p_slope/{kernel.path}"] = float(slopes[i])

    def _step(self):
        """Estimate the slopes of the epoch, and move p against them."""
        tried, losses = (np.array(x) for x in zip(*self._measured, strict=True))
        energies = np.array([self._memory.energy(rates) for rates in tried])
        outer = losses / max(self._best, keras.config.epsilon())
        outer += self.alpha * np.sqrt(energies) + self.decay * tried.sum(axis=1)
        slopes = regression_slopes(tried, outer)
        length = np.linalg.norm(slopes)
        slopes = slopes / length if length > 0 else slopes
        rate = self.learning_rate
        if rate is None:
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._velocity = self.momentum * self._search()[:, 0] + slopes
        moved = self._rates - rate * (slopes + self.momentum * self._velocity)
        self._write_rates(np.clip(moved, self.p_min, self.p_max))
        self._rates = self._read_rates()
        return slopes

    def _batch_loss(self):
        """The loss of the batch alone: Keras's own is the mean of the epoch so far."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        tracker = next((m for m in self.model.metrics if m.name == "loss"), None)
        if not isinstance(tracker, keras.metrics.Mean):
            raise ValueError(
                f"LaNMax reads the loss of each batch from the metric 'loss' of "
                f"'{self.model.name}', a keras.metrics.Mean, which is not there. Call "
                "`compute_loss` and update such a metric in `train_step`."
            )
        seen = np.array([_number(tracker.total), _number(tracker.count)])
        total, count = seen - self._seen
        self._seen = seen
        loss = total / count
        if not (math.isfinite(loss) and loss >= 0):
            raise ValueError(
                "LaNMax compares losses by their ratio, so they must be finite and not "
                f"negative. The loss of a batch was {loss}. Look for a diverged "
                "training run, or for a loss that rewards with negative values."
            )
        return loss

    def _read_rates(self):
        return np.array([_number(noise.p) for noise in self._noises])

    def _write_rates(self, rates):
        for noise, rate in zip(self._noises, rates, strict=True):
            noise.p.assign(rate)

    def _search(self):
        """Per kernel: velocity, best batch loss, epochs done."""
        return np.array([ops.convert_to_numpy(n.search) for n in self._noises], float)

    def _learns(self, epoch):
        return epoch + 1 <= self.until * self.params["epochs"]

    def _check_count(self, count):
        needed = len(self._noises) + 2
        if count < needed:
            raise ValueError(
                f"LaNMax has {len(self._noises)} error rates to learn, for which its "
                f"regression needs at least {needed} batches an epoch (executions, "
                f"with steps_per_execution). There are {count}. Take smaller batches."
            )

    def _check_resumed(self, epoch):
        done = self._search()[:, 2]
        if np.any(done != epoch):
            raise ValueError(
                f"The fit begins with epoch {epoch}, and the model's weights are from "
                f"after epoch {int(done[0])} of a search by LaNMax. Put LaNMax before "
                "the callbacks that save weights, and resume with the weights of the "
                "epoch before. With initial_epoch=0 a new search begins."
            )


class _Memory:
    """The memory of some kernels, for the energy of many vectors of rates."""

    def __init__(self, kernels, a):
        self.a = a
        # Where the bits of a weight differ in p, each counts on its own.
        entries = [
            (i, factor, kernel.weights * kernel.bits / len(factors))
            for i, kernel in enumerate(kernels)
            for factors in [kernel.noise.bit_factors or (1.0,)]
            for factor in factors
        ]
        self._owners, self._factors, self._bits = map(
            np.array, zip(*entries, strict=True)
        )

    def energy(self, rates):
        """E(p), relative to a memory that is reliable."""
        p = np.minimum(rates[self._owners] * self._factors, 0.5)
        relative = relative_energy(p, self.a)
        return float(np.sum(self._bits * relative) / np.sum(self._bits))


def regression_slopes(x, y):
    """Slopes of the least-squares plane through measurements.

    Args:
        x: Array of shape `(measurements, variables)`.
        y: Array of shape `(measurements,)`.

    Returns:
        An array of shape `(variables,)`: 0 for a variable that was not varied.
    """
    centered = x - x.mean(axis=0)
    return np.linalg.lstsq(centered, y - y.mean(), rcond=None)[0]


def _number(variable):
    return float(ops.convert_to_numpy(variable))
