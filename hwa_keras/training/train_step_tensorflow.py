"""The sharpness-aware training step on TensorFlow, `tf.distribute` included."""

import keras
import tensorflow as tf
from keras import ops, tree

from hwa_keras import backend
from hwa_keras.core.types import Data, Mixin, Tensor
from hwa_keras.training.ascent import look
from hwa_keras.training.sharpness import check_trainable, state_variables, statistics


class TrainStep(Mixin):
    """Mixin of sharpness-aware models: `train_step` for TensorFlow."""

    def train_step(self, data: Data) -> dict[str, Tensor]:
        check_trainable(self)
        batch = keras.utils.unpack_x_y_sample_weight(data)
        self._make_trackers(batch)
        if self.sharpness.m is None:
            gradients, moves, logs = self._look_at(batch)
        else:
            gradients, moves = self._look_at_parts(batch)
            logs = self.get_metrics_result()
        finite = _all_finite(gradients)
        for variable, move in zip(statistics(self), moves, strict=True):
            if move is not None:
                old = variable.value
                variable.assign(tf.where(finite, old + move, old))
        self._apply_if(finite, gradients)
        return logs

    def _make_trackers(self, batch):
        """Have Keras make the metrics that track a loss for each of several outputs.

        It makes them when it first sees targets: too late for a step whose state is
        read before.
        """
        loss, y = self._compile_loss, batch[1]
        if loss is not None and not loss.built and len(tree.flatten(y)) > 1:
            self._symbolic_build(data_batch=batch)

    def _look_at(self, batch):
        """Gradients, moves of the statistics, and logs.

        Seeds and metrics are updated for real.
        """
        x, y, sample_weight = batch
        variables = state_variables(self)
        state = [tf.convert_to_tensor(v.value) for v in variables]
        found = look(
            self,
            [tf.convert_to_tensor(v.value) for v in self.trainable_variables],
            state,
            batch,
            self.sharpness.looks_ahead(self.optimizer.iterations),
            self.sharpness.perturbation.radius.value,
            self.optimizer.scale_loss,
            self._shared,
        )
        moves = {id(v): None for v in statistics(self)}
        for variable, old, new in zip(variables, state, found.state, strict=True):
            if new is old:
                continue
            if id(variable) in moves:
                moves[id(variable)] = new - old
            else:
                variable.assign(new)
        # Keras has divided the loss by the number of replicas.
        self._loss_tracker.update_state(
            found.loss * backend.replicas(), sample_weight=_batch_size(x)
        )
        logs = self.compute_metrics(x, y, found.y_pred, sample_weight=sample_weight)
        return found.gradients, list(moves.values()), logs

    def _look_at_parts(self, batch):
        """Gradients and moves of the statistics, averaged over each m examples."""
        size = _batch_size(batch)
        part = _cut(batch, self.sharpness.m, equally=self.jit_compile)

        def body(i, done, gradients, moves):
            examples = part(i)
            count = _batch_size(examples)
            gradients_i, moved, _ = self._look_at(examples)
            weight = count / size
            return (
                i + 1,
                done + count,
                _add(gradients, gradients_i, weight),
                _add(moves, moved, weight),
            )

        zeros = [
            [tf.zeros_like(v.value) for v in variables]
            for variables in (self.trainable_variables, statistics(self))
        ]
        *_, gradients, moves = tf.while_loop(
            lambda i, done, *_: done < size,
            body,
            (tf.constant(0), tf.constant(0), *zeros),
        )
        return gradients, moves

    def _shared(self, gradients):
        if not self.sharpness.synchronized or backend.replicas() == 1:
            return gradients
        known = [g for g in gradients if g is not None]
        context = tf.distribute.get_replica_context()
        found = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, known))
        return [None if g is None else next(found) for g in gradients]

    def _apply_if(self, finite, gradients):
        """Let the optimizer move the weights, if all gradients are finite."""
        variables, optimizer = self.trainable_variables, self.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # It leaves the weights by itself; every replica must have it do so.
            factor = tf.where(finite, 1.0, float("nan"))
            gradients = [
                g if g is None else g * tf.cast(factor, g.dtype) for g in gradients
            ]
            optimizer.apply(gradients, variables)
            return
        if not optimizer.built:
            optimizer.build(variables)
        if backend.replicas() == 1:
            ops.cond(
                finite, lambda: optimizer.apply(gradients, variables), lambda: None
            )
            return

        def across(strategy, gradients, finite):
            # A condition around an update must stand outside of the replicas.
            def update():
                strategy.extended.call_for_each_replica(
                    optimizer.apply, args=(gradients, variables)
                )

            first = strategy.experimental_local_results(finite)[0]
            ops.cond(first, update, lambda: None)

        context = tf.distribute.get_replica_context()
        context.merge_call(across, args=(gradients, finite))


def _batch_size(tensors):
    first = next(t for t in tree.flatten(tensors) if t is not None)
    return tf.shape(first)[0]


def _cut(batch, m, equally):
    """A function from i to the i-th m examples of a batch; the last may be fewer.

    Args:
        batch: Nested tensors with examples along the first axis.
        m: Integer.
        equally: Bool. XLA needs sizes that it knows: all parts of m examples.
    """
    if equally:
        stacked = _map(lambda t: tf.reshape(t, (-1, m, *t.shape[1:])), batch)
        return lambda i: _map(lambda t: t[i], stacked)
    return lambda i: _map(lambda t: t[i * m : (i + 1) * m], batch)


def _map(function, batch):
    return tree.map_structure(lambda t: None if t is None else function(t), batch)


def _add(totals, values, weight):
    return [
        total if value is None else total + value * tf.cast(weight, total.dtype)
        for total, value in zip(totals, values, strict=True)
    ]


def _all_finite(gradients):
    """Whether all gradients on all replicas are finite."""
    bad = tf.add_n(
        [
            tf.cast(tf.reduce_any(~tf.math.is_finite(g)), "float32")
            for g in gradients
            if g is not None
        ]
    )
    if backend.replicas() > 1:
        context = tf.distribute.get_replica_context()
        bad = context.all_reduce(tf.distribute.ReduceOp.SUM, bad)
    return tf.equal(bad, 0)
