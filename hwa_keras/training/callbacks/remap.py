"""WeightRemap: let kernels use the whole range of their devices again."""

import keras
from keras import ops

from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.types import Logs
from hwa_keras.quantizers import Uniform

__all__ = ["WeightRemap"]


class WeightRemap(keras.callbacks.Callback):
    """Rescales what a crossbar holds of each kernel, now and then, to its whole range.

    A kernel with crossbar-aware weight scaling, `Uniform(scale="caws")`, is held as
    Ŵ = W/α in [−1, 1], and the products are multiplied by α. Every `interval` batches

        α ← max|W|, and with it Ŵ ← W/max|W|,

    so that the largest weight takes the largest conductance. W stays as it is, to the
    bit. What changes is its rounding, and that weights beyond the former α are no
    longer clipped. A kernel of zeros, or with a weight that is not finite, keeps its
    α, and so does a kernel that is not trainable, such as those of the teacher in a
    distillation.

    Batches are counted on from the optimizer's `iterations` at the start of the fit,
    which a saved model has too: a resumed fit goes on where it was. (They are updates:
    with `gradient_accumulation_steps` the interval is kept, and starts anew.) With
    `steps_per_execution=k` kernels are remapped at the end of an execution. Nothing is
    compiled again. Put the callback before those that save.

    Args:
        interval: Integer ≥ 0, the number of batches from one remapping to the next. 0
            turns it off, as in the published recipe: the callback does nothing then.
            Defaults to `0`.

    Raises:
        ValueError: If `interval` is no such integer; at the start of the fit, if there
            is an interval and the model has no kernel to remap.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(3, kernel_initializer="lecun_uniform"),
        ... ])
        >>> hwa = hwa_keras.to_hwa(
        ...     model, hwa_keras.quantizers.Uniform(scale="caws"), verbose=0
        ... )
        >>> hwa.compile("sgd", "mse")
        >>> history = hwa.fit(
        ...     np.ones((32, 8)), np.ones((32, 3)), batch_size=8, verbose=0,
        ...     callbacks=[hwa_keras.training.WeightRemap(interval=2)],
        ... )
        >>> alpha = hwa_keras.hardware_kernels(hwa)[0].quantizer.alpha
        >>> bool(alpha == ops.max(ops.abs(model.layers[0].kernel)))
        True

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469.
    """

    def __init__(self, interval: int = 0) -> None:
        super().__init__()
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 0:
            raise ValueError(
                "`interval` must be an integer ≥ 0, the number of batches from one "
                f"remapping to the next. Received: interval={interval!r}."
            )
        self.interval = interval
        self._scaled = []  # Pairs (kernel, the variable of its scale).

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.interval == 0:
            return
        self._scaled = list(_scaled_kernels(self.model))
        if not self._scaled:
            raise ValueError(
                "WeightRemap found no trainable kernel with crossbar-aware weight "
                f"scaling in the model '{self.model.name}'. Give its kernels one: "
                'to_hwa(model, kernel_quantizer=Uniform(scale="caws")).'
            )
        self._done = -1  # Batches; asked for when a `BackupAndRestore` has restored.

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.interval == 0:
            return
        if self._done < 0:
            iterations = ops.convert_to_numpy(self.model.optimizer.iterations)
            self._done = int(iterations)
        self._before_epoch = self._done

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.interval == 0:
            return
        done = self._before_epoch + batch + 1
        if done // self.interval > self._done // self.interval:
            self._remap()
        self._done = done

    def _remap(self):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        for kernel, alpha in self._scaled:
            w = kernel.value
            largest = ops.max(ops.abs(w))
            usable = ops.logical_and(largest > 0, ops.all(ops.isfinite(w)))
            largest = ops.cast(largest, alpha.dtype)
            alpha.assign(ops.where(usable, largest, alpha.value))


def _scaled_kernels(model):
    """Pairs (kernel, variable of α) of the trainable kernels with scale="caws"."""
    for kernel in find_kernels(model)[0]:
        quantizer = kernel.quantizer
        caws = isinstance(quantizer, Uniform) and quantizer.scale == "caws"
        if caws and kernel.variable.trainable:
            yield kernel.variable, quantizer.alpha
