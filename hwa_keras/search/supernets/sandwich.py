"""The sandwich rule: the gradient of a training step, as a pure function."""

from typing import NamedTuple

from keras import ops

from hwa_keras import backend
from hwa_keras.core.substitution import stateless

__all__ = ["Sandwich", "sandwich", "state_variables"]


class Sandwich(NamedTuple):
    """What a step found.

    Args:
        gradients: List of the summed gradients, in the order of the trainable
            variables.
        loss: Scalar tensor, the loss of the largest network.
        y_pred: The outputs of the largest network.
        state: List of tensors, in the order of `state_variables`.
    """

    gradients: list
    loss: object
    y_pred: object
    state: list


def state_variables(model):
    """What a step changes beside the weights: statistics, seeds, metrics."""
    return [*model.non_trainable_variables, *model.metrics_variables]


def sandwich(model, weights, state, batch, scale_loss):
    """Add up the gradients of the largest, the smallest and random networks.

    Args:
        model: A `Supernet`.
        weights: List of tensors, the values of its trainable variables.
        state: List of tensors, the values of its `state_variables`.
        batch: Triple of inputs, targets and sample weights.
        scale_loss: Function from a loss to the one to differentiate.

    Returns:
        A `Sandwich`.
    """

    largest = ops.convert_to_tensor(model.space.encode(model.space.largest), "int32")

    def of_largest(points):
        (loss, y_pred, students), after = _run(
            model, points, state, largest, lambda: _teach(model, batch)
        )
        return scale_loss(loss), (loss, y_pred, students, after)

    (_, found), gradients = backend.value_and_gradient(of_largest, weights)
    loss, y_pred, students, after = found
    teacher = ops.softmax(ops.cast(ops.stop_gradient(y_pred), "float32"))

    def body(i, totals):
        def of_student(points):
            own, _ = _run(
                model, points, state, students[i], lambda: _learn(model, batch, teacher)
            )
            return scale_loss(own), None

        _, own = backend.value_and_gradient(of_student, weights)
        return [
            total if g is None else total + g
            for total, g in zip(totals, own, strict=True)
        ]

    # A loop: the graph has one student, however many there are.
    gradients = ops.fori_loop(0, model.students + 1, body, gradients)
    return Sandwich(list(gradients), loss, y_pred, after)


def _run(model, weights, state, genes, function):
    """What a function of a model gives at other weights and genes, and its states."""
    variables = state_variables(model)
    values = [
        *zip(model.trainable_variables, weights, strict=True),
        *zip(variables, state, strict=True),
        (model.genes, genes),
    ]
    outputs, updates, _ = stateless(
        model, values, function, others=model.metrics_variables
    )
    new = {id(variable): value for variable, value in updates}
    after = [new.get(id(v), old) for v, old in zip(variables, state, strict=True)]
    return outputs, after


def _teach(model, batch):
    """Loss and outputs of the largest network, and the genes of the students."""
    x, y, sample_weight = batch
    y_pred = model(x, training=True)
    loss = model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
    )
    return loss, y_pred, model.draw_students()


def _learn(model, batch, teacher):
    """The loss of a network that learns from the largest."""
    x, y, sample_weight = batch
    y_pred = model(x, training=True)
    logits = ops.cast(y_pred, "float32")
    each = -ops.sum(teacher * ops.log_softmax(logits), axis=-1)
    if sample_weight is not None:
        each = each * ops.cast(ops.reshape(sample_weight, (-1,)), each.dtype)
    loss = model.distillation * ops.mean(each)
    if model.distillation < 1.0:
        own = model._compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )
        loss = loss + (1.0 - model.distillation) * own
    return loss
