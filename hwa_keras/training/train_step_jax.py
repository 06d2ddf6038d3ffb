"""The sharpness-aware training step on JAX."""

from typing import Any

import jax
import keras
from jax import numpy as jnp
from keras import ops, tree

from hwa_keras.core.types import Data, Mixin, Tensor
from hwa_keras.training.ascent import Look, look
from hwa_keras.training.sharpness import check_trainable, state_variables, statistics


class TrainStep(Mixin):
    """Mixin of sharpness-aware models: `train_step` for JAX."""

    def train_step(self, state: Any, data: Data) -> tuple[dict[str, Tensor], Any]:
        check_trainable(self)
        self._check_devices()
        trainable, non_trainable, optimizer_variables, metrics = state
        batch = keras.utils.unpack_x_y_sample_weight(data)
        *_, rho = non_trainable
        looked = [*non_trainable[:-1], *metrics]
        found = self._look_at(trainable, looked, batch, optimizer_variables, rho)
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(g)) for g in found.gradients]))
        after = found.state
        kept = {id(v) for v in statistics(self)}
        for i, (variable, old) in enumerate(
            zip(state_variables(self), looked, strict=True)
        ):
            if id(variable) in kept and after[i] is not old:
                after[i] = jnp.where(finite, after[i], old)
        count = len(non_trainable) - 1
        non_trainable, metrics = [*after[:count], rho], after[count:]

        def update():
            return self.optimizer.stateless_apply(
                optimizer_variables, found.gradients, trainable
            )

        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            trainable, optimizer_variables = update()  # Which looks by itself.
        else:
            trainable, optimizer_variables = ops.cond(
                finite, update, lambda: (trainable, optimizer_variables)
            )
        x, y, sample_weight = batch
        logs, metrics = self._update_metrics_variables(
            metrics, found.loss, x, y, found.y_pred, sample_weight
        )
        return logs, (trainable, non_trainable, optimizer_variables, metrics)

    def _look_at(self, trainable, state, batch, optimizer_variables, rho):
        """A `Look` at a batch, or the average of those at each m examples of it."""
        mapping = list(zip(self.optimizer.variables, optimizer_variables, strict=True))
        with keras.StatelessScope(mapping):
            iterations = ops.convert_to_tensor(self.optimizer.iterations)
            ahead = self.sharpness.looks_ahead(iterations)

        def scale_loss(loss):
            with keras.StatelessScope(mapping):
                return self.optimizer.scale_loss(loss)

        def look_at(state, batch):
            return look(
                self, trainable, state, batch, ahead, rho, scale_loss, lambda g: g
            )

        if self.sharpness.m is None:
            return look_at(state, batch)
        return self._average(look_at, state, batch)

    def _average(self, look_at, state, batch):
        size = len(next(t for t in tree.flatten(batch) if t is not None))
        m = self.sharpness.m
        averaged = [id(v) for v in statistics(self)]
        is_averaged = [id(v) in averaged for v in state_variables(self)]
        first, looks = state, []
        for start in range(0, size, m):
            part = tree.map_structure(
                lambda t, i=start: None if t is None else t[i : i + m], batch
            )
            found = look_at(state, part)
            looks.append((min(m, size - start) / size, found))
            # Seeds and metrics go on; statistics start from the same values.
            state = [
                old if fixed else new
                for fixed, old, new in zip(is_averaged, first, found.state, strict=True)
            ]
        moves = [
            old + sum(w * (f.state[i] - old) for w, f in looks) if fixed else state[i]
            for i, (fixed, old) in enumerate(zip(is_averaged, first, strict=True))
        ]
        return Look(
            [
                sum(w * g for (w, _), g in zip(looks, column, strict=True))
                for column in zip(*(f.gradients for _, f in looks), strict=True)
            ],
            sum(w * f.loss for w, f in looks),
            tree.map_structure(
                lambda *ys: jnp.concatenate(ys), *(f.y_pred for _, f in looks)
            ),
            moves,
        )

    def _check_devices(self):
        distributed = keras.distribution.distribution() and jax.device_count() > 1
        if self.sharpness.synchronized is False and distributed:
            raise ValueError(
                "`synchronized=False` asks for one ε per replica, and JAX runs one "
                "program on all devices, without replicas. Leave `synchronized` out, "
                "and give m=batch_size // devices for an ε of that many examples."
            )
