"""One look at a batch: the gradient of a sharpness-aware step, as a pure function."""

from typing import NamedTuple

from keras import ops

from hwa_keras import backend
from hwa_keras.core import random
from hwa_keras.core.substitution import stateless
from hwa_keras.training.sharpness import state_variables

__all__ = ["Look", "look"]


class Look(NamedTuple):
    """What one look at a batch found.

    Args:
        gradients: List of the gradients of the (scaled) loss, in the order of the
            trainable variables; None where the loss does not depend on one.
        loss: Scalar tensor, the unscaled loss at the weights themselves.
        y_pred: The outputs at the weights themselves.
        state: List of tensors, in the order of `state_variables`.
    """

    gradients: list
    loss: object
    y_pred: object
    state: list


def look(model, weights, state, batch, ahead, rho, scale_loss, share):
    """Compute the gradient of a sharpness-aware step.

    Args:
        model: A sharpness-aware model.
        weights: List of tensors, the values of its trainable variables.
        state: List of tensors, the values of its `state_variables`.
        batch: Triple of inputs, targets and sample weights.
        ahead: Bool scalar, whether to look ahead in this step; True if in all.
        rho: Scalar tensor, the size of the neighborhood.
        scale_loss: Function from a loss to the one to differentiate.
        share: Function that adds up gradients over replicas.

    Returns:
        A `Look`.

    Raises:
        ValueError: If the loss depends on no trainable weight.
    """

    def look_from(state, points):
        def at(points):
            loss, y_pred, after = _loss_at(model, points, state, batch)
            return scale_loss(loss), (loss, y_pred, after)

        (_, found), gradients = backend.value_and_gradient(at, points)
        return *found, gradients

    loss, y_pred, after, gradients = look_from(state, weights)
    known = [i for i, g in enumerate(gradients) if g is not None]
    if not known:
        raise ValueError(
            f"The loss of the model '{model.name}' depends on no trainable weight."
        )
    shared = share(gradients)
    perturbation = model.sharpness.perturbation
    scaled = [perturbation.is_scaled(v) for v in model.trainable_variables]
    seeds = []  # Places in the state of what goes on from one look to the other.
    if not model.sharpness.same_noise:
        variables = state_variables(model)
        seeds = [i for i, v in enumerate(variables) if random.is_seed_state(v)]

    def second():
        epsilons = perturbation(weights, shared, scaled, rho)
        points = [
            w if e is None else w + e for w, e in zip(weights, epsilons, strict=True)
        ]
        _, _, later, found = look_from(after if seeds else state, points)
        return [found[i] for i in known], [later[i] for i in seeds]

    def first():
        return [gradients[i] for i in known], [after[i] for i in seeds]

    found, moved = second() if ahead is True else ops.cond(ahead, second, first)
    return Look(
        _with(gradients, known, found), loss, y_pred, _with(after, seeds, moved)
    )


def _with(values, places, new):
    """A list with other values at some places."""
    values = list(values)
    for i, value in zip(places, new, strict=True):
        values[i] = value
    return values


def _loss_at(model, weights, state, batch):
    """Loss, outputs and the state left behind at given weights."""
    x, y, sample_weight = batch
    variables = state_variables(model)
    values = [
        *zip(model.trainable_variables, weights, strict=True),
        *zip(variables, state, strict=True),
    ]

    def forward():
        training = {"training": True} if model._call_has_training_arg else {}
        y_pred = model(x, **training)
        loss = model._compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )
        return loss, y_pred

    (loss, y_pred), updates, _ = stateless(
        model, values, forward, others=model.metrics_variables
    )
    new = {id(variable): value for variable, value in updates}
    after = [new.get(id(v), old) for v, old in zip(variables, state, strict=True)]
    return loss, y_pred, after
