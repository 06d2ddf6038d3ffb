"""The training step of a supernet on JAX."""

from typing import Any

import keras

from hwa_keras.core.types import Data, Mixin, Tensor
from hwa_keras.search.supernets.sandwich import sandwich


class SandwichStep(Mixin):
    """Mixin of supernets: `train_step` for JAX."""

    def train_step(self, state: Any, data: Data) -> tuple[dict[str, Tensor], Any]:
        trainable, non_trainable, optimizer_variables, metrics = state
        x, y, sample_weight = batch = keras.utils.unpack_x_y_sample_weight(data)
        mapping = list(zip(self.optimizer.variables, optimizer_variables, strict=True))

        def scale_loss(loss):
            with keras.StatelessScope(mapping):
                return self.optimizer.scale_loss(loss)

        found = sandwich(self, trainable, [*non_trainable, *metrics], batch, scale_loss)
        count = len(non_trainable)
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, found.gradients, trainable
        )
        logs, metrics = self._update_metrics_variables(
            found.state[count:], found.loss, x, y, found.y_pred, sample_weight
        )
        after = trainable, found.state[:count], optimizer_variables, metrics
        return logs, after
