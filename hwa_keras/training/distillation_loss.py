"""How far a student is from its teacher: the losses of distillation."""

import keras
from keras import ops

__all__ = ["FORMS", "Distance"]


class Distance(keras.losses.Loss):
    """Distance of outputs or hidden states of a student to those of a teacher.

    A Keras loss in float32 of what the teacher, then what the student put out; its
    masks, sample weights and replicas are those of any Keras loss. It is a mean over
    all axes but the last, which holds classes or features.

    Args:
        form: `"soft_labels"`, `"logits"` or `"hidden_states"`; see `Distiller`.
        temperature: Float > 0, the T of soft labels.
        from_logits: Bool. Whether outputs are logits or, if not, probabilities.
        **kwargs: Arguments of `keras.losses.Loss`.

    Raises:
        ValueError: When called, if the shapes of the two differ.
    """

    def __init__(self, form, temperature=2.0, from_logits=True, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.form = form
        self.temperature = temperature
        self.from_logits = from_logits

    def __call__(self, y_true, y_pred, sample_weight=None):
        self._check_shapes(tuple(y_true.shape), tuple(y_pred.shape))
        if sample_weight is not None:
            sample_weight = _fitted(sample_weight, y_pred.shape[:-1])
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        if self.form != "hidden_states" and not self.from_logits:
            y_true, y_pred = _logits(y_true), _logits(y_pred)
        if self.form == "soft_labels":
            return _divergence(y_true, y_pred, self.temperature)
        return ops.mean(ops.square(y_pred - y_true), axis=-1)

    def _check_shapes(self, theirs, mine):
        same = len(theirs) == len(mine) and all(map(_may_be, theirs, mine))
        if not same or len(mine) < 2:
            raise ValueError(
                "Student and teacher must agree in their shapes, which are a batch and "
                f"one axis more at least. Received: {mine} of the student and {theirs} "
                "of the teacher."
            )
        if self.form == "soft_labels" and mine[-1] == 1:
            raise ValueError(
                "Soft labels are about two classes or more, and the models put out "
                f"one: {mine}. Give form='logits'."
            )


FORMS = ("soft_labels", "logits", "hidden_states")


def _divergence(theirs, mine, temperature):
    """T²·KL(softmax(theirs/T) ‖ softmax(mine/T)) over the last axis."""
    theirs = ops.log_softmax(theirs / temperature)
    mine = ops.log_softmax(mine / temperature)
    return temperature**2 * ops.sum(ops.exp(theirs) * (theirs - mine), axis=-1)


def _logits(probabilities):
    return ops.log(ops.maximum(probabilities, keras.config.epsilon()))


def _fitted(sample_weight, shape):
    """Sample weights that broadcast against losses of a shape.

    Weights of positions that the losses do not have become one of each example.
    """
    sample_weight = ops.cast(sample_weight, "float32")
    own = tuple(sample_weight.shape)
    fits = len(own) <= len(shape) and all(
        a == 1 or _may_be(a, b) for a, b in zip(own[1:], shape[1:], strict=False)
    )
    if not fits:
        sample_weight = ops.mean(sample_weight, axis=tuple(range(1, len(own))))
    for _ in range(len(shape) - len(sample_weight.shape)):
        sample_weight = ops.expand_dims(sample_weight, -1)
    return sample_weight


def _may_be(a, b):
    """Whether two sizes can be the same; None is one not known yet."""
    return a is None or b is None or a == b
