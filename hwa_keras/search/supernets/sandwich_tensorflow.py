"""The training step of a supernet on TensorFlow."""

from typing import Any

import keras
import tensorflow as tf

from hwa_keras import backend
from hwa_keras.core.types import Data, Mixin, Tensor
from hwa_keras.search.supernets.sandwich import sandwich, state_variables


class SandwichStep(Mixin):
    """Mixin of supernets: `train_step` for TensorFlow."""

    def make_train_function(self, force: bool = False) -> Any:
        # Else the first trace of a step builds the optimizer, and a second follows.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, data: Data) -> dict[str, Tensor]:
        x, y, sample_weight = batch = keras.utils.unpack_x_y_sample_weight(data)
        variables = state_variables(self)
        state = [tf.convert_to_tensor(v.value) for v in variables]
        found = sandwich(
            self,
            [tf.convert_to_tensor(v.value) for v in self.trainable_variables],
            state,
            batch,
            self.optimizer.scale_loss,
        )
        for variable, old, new in zip(variables, state, found.state, strict=True):
            if new is not old:
                variable.assign(new)
        # Keras has divided the loss by the number of replicas.
        self._loss_tracker.update_state(
            found.loss * backend.replicas(), sample_weight=tf.shape(x)[0]
        )
        self.optimizer.apply(found.gradients, self.trainable_variables)
        return self.compute_metrics(x, y, found.y_pred, sample_weight=sample_weight)
