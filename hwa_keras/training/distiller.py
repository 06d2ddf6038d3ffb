"""Distiller: a student that learns from a teacher while hardware noise disturbs it."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops, tree

from hwa_keras import backend
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Config, Self, Tensor
from hwa_keras.training.distillation_loss import FORMS, Distance
from hwa_keras.training.probes import Probed, find_layer
from hwa_keras.training.sharpness_aware import SharpnessAwareSteps

__all__ = ["Distiller"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class Distiller(SavesSeeds, keras.Model):
    """Trains a student model on labels and on what a teacher model makes of the inputs.

    The loss of a training step is

        (1 − weight)·L(labels, student) + weight·D + added losses of the student,

    where L is the loss of `compile` and D one of three distances, a mean over examples
    (and positions, such as the words of a text):

    - `"soft_labels"`: T²·KL(softmax(t/T) ‖ softmax(s/T)), with the logits t of the
      teacher and s of the student and the temperature T;
    - `"logits"`: the mean of (s − t)² over the classes;
    - `"hidden_states"`: the mean of (s − t)² over the outputs s and t of a layer of
      each, and over the pairs of layers.

    The student may be on hardware. It runs once a step: its outputs and its hidden
    states belong to the same draw of noise. The teacher runs as at inference, gets no
    gradient and never changes, down to the states of stateful recurrent layers; it is
    no part of `weights` and `layers`, but is saved and loaded with the distiller. D is
    computed in float32, with the sample weights and the mask that L has, and is logged
    as `distillation_loss`. The loss of `evaluate`, and so `val_loss`, is L and the
    added losses alone, to be compared with that of other models.

    To train sharpness-aware as well: `SharpnessAwareModel.wrap(distiller)`.

    Args:
        student: A built Keras model, which is trained; one without a `train_step` or
            a `compute_loss` of its own.
        teacher: A built Keras model for the same inputs, with other variables. It is
            left as it is.
        form: `"soft_labels"`, `"logits"` or `"hidden_states"`, what the student learns
            from. Defaults to `"soft_labels"`.
        weight: Float in [0, 1], the share of D. With 1 labels are not used, and none
            need be given. Defaults to `0.5`.
        temperature: Float > 0, the T of soft labels. Defaults to `2.0`.
        from_logits: Bool. Whether the outputs of both models are logits; if not, they
            are probabilities, and their logarithms are taken as logits. Defaults to
            `True`.
        layers: For hidden states only, a list of layer names, or of pairs (name in the
            student, name in the teacher). A name may be that of a layer at any depth,
            or the end of its path, such as `"encoder/dense"`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        TypeError: If the student or the teacher is no Keras model.
        ValueError: If an argument is out of its range; if a model is not built, or the
            two share variables; if the student has a `train_step` or a `compute_loss`
            of its own; if a layer is not there; at the first step, if the shapes of
            the two differ.

    Example:
        >>> def build(units):
        ...     return keras.Sequential([
        ...         keras.Input((8,)),
        ...         keras.layers.Dense(units, activation="relu"),
        ...         keras.layers.Dense(3),
        ...     ])
        >>> student = hwa_keras.to_hwa(
        ...     build(4), kernel_noise="programming_noise", verbose=0
        ... )
        >>> distiller = hwa_keras.training.Distiller(student, build(32), weight=0.9)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> distiller.compile("adam", loss)
        >>> history = distiller.fit(np.ones((4, 8)), np.arange(4) % 3, verbose=0)
        >>> sorted(history.history)
        ['distillation_loss', 'loss']
        >>> distiller.student is student
        True

    Reference:
        - Soft labels: Hinton et al., 2015, arXiv:1503.02531.
        - Logits: Ba & Caruana, 2014, arXiv:1312.6184.
        - Hidden states: Romero et al., 2015, arXiv:1412.6550.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        form: str = "soft_labels",
        weight: float = 0.5,
        temperature: float = 2.0,
        from_logits: bool = True,
        layers: Sequence[str | Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_models(student, teacher)
        _check_settings(form, weight, temperature, layers)
        kwargs.setdefault("name", f"distilled_{student.name}")
        # Keras scales losses where the policy of what is compiled is mixed_float16.
        kwargs.setdefault("dtype", student.dtype_policy)
        super().__init__(**kwargs)
        self.supports_masking = True
        self.student = student
        self.form = form
        self.weight = weight
        self.temperature = temperature
        self.from_logits = from_logits
        self.layer_names = layers and [_pair(entry) for entry in layers]
        self._untracked = _Untracked(student, teacher, self.layer_names or ())
        self._distance = Distance(form, temperature, from_logits)
        self.distillation_tracker = keras.metrics.Mean(name="distillation_loss")
        self.built = True

    @property
    def teacher(self) -> keras.Model:
        """The model that it learns from."""
        return self._untracked.teacher.model

    @property
    def variables(self) -> list[Any]:
        # What a JAX step must be told of; neither weights nor layers, so that callbacks
        # and conversions see the student alone.
        return [*super().variables, *self.teacher.variables]

    @property
    def trainable_variables(self) -> list[Any]:
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Any]:
        trained = {id(variable) for variable in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> None:
        return None  # The student has put its own masks on its outputs.

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        passed = vars(self._untracked.passed)
        passed.pop("states", None)
        if not (training and self.layer_names):
            return self.student(inputs, training=training)
        self._clear_losses()
        y_pred, passed["states"], losses = self._untracked.student.run(inputs, True)
        for loss in losses:
            # A new tensor: Keras tells owners by identity, and this one has one.
            self.add_loss(loss + 0.0)
        return y_pred

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        states = None
        if training:
            nothing = [None] * len(self.layer_names or ())
            states = vars(self._untracked.passed).pop("states", nothing)
        distance = self._compute_distance(x, y_pred, sample_weight, states)
        examples = next(t for t in tree.flatten(x) if t is not None)
        self.distillation_tracker.update_state(
            # Keras has divided it by the number of replicas.
            distance * backend.replicas(),
            sample_weight=ops.shape(examples)[0],
        )
        if training and self.weight == 1:
            return self._with_added(distance)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training or self.weight == 0:
            return loss
        # The added losses are in both parts, whose shares make one.
        return (1 - self.weight) * loss + self.weight * self._with_added(distance)

    def _with_added(self, loss):
        return loss + sum(ops.sum(ops.cast(a, loss.dtype)) for a in self.losses)

    def _compute_distance(self, x, y_pred, sample_weight, states):
        """D of a batch, divided by the number of replicas.

        Args:
            states: The hidden states of the student in the pass that made `y_pred`,
                or None in evaluation, where there is no noise and another pass makes
                the same.
        """
        student, teacher = self._untracked.student, self._untracked.teacher
        outputs, theirs = _as_at_inference(teacher, x)
        if not self.layer_names:
            return self._compare(
                self.student.name, y_pred, self.teacher.name, outputs, sample_weight
            )
        if states is None:
            _, states = _as_at_inference(student, x)
        found = [
            self._compare(a.name, mine, b.name, other, sample_weight)
            for a, b, mine, other in zip(
                student.layers, teacher.layers, states, theirs, strict=True
            )
        ]
        return sum(found) / len(found)

    def _compare(self, name, mine, other, theirs, sample_weight):
        """D of the outputs of one layer of each."""
        for role, layer, state in (
            ("student", name, mine),
            ("teacher", other, theirs),
        ):
            if not hasattr(state, "shape"):
                kind = "nothing" if state is None else f"a {type(state).__name__}"
                raise ValueError(
                    f"'{layer}' of the {role} must put out one tensor in the pass "
                    f"before the loss is computed. It has put out {kind}."
                )
        try:
            return self._distance(ops.stop_gradient(theirs), mine, sample_weight)
        except ValueError as error:
            raise ValueError(f"'{name}' and '{other}': {error}") from error

    def get_config(self) -> Config:
        return {
            "student": keras.saving.serialize_keras_object(self.student),
            "teacher": keras.saving.serialize_keras_object(self.teacher),
            "form": self.form,
            "weight": self.weight,
            "temperature": self.temperature,
            "from_logits": self.from_logits,
            "layers": self.layer_names and [list(pair) for pair in self.layer_names],
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        config = dict(config)
        for role in ("student", "teacher"):
            config[role] = keras.saving.deserialize_keras_object(
                config[role], custom_objects=custom_objects
            )
        return cls(**config)


class _Untracked:
    """Holds what Keras shall not track as a part of the distiller."""

    def __init__(self, student, teacher, names):
        pairs = [
            (find_layer(student, a, "student"), find_layer(teacher, b, "teacher"))
            for a, b in names
        ]
        self.student = Probed(student, [a for a, _ in pairs])
        self.teacher = Probed(teacher, [b for _, b in pairs])
        # From `call` to `compute_loss`, which each replica runs in its own thread.
        self.passed = threading.local()


def _as_at_inference(probed, x):
    """Outputs and hidden states of a model, which stays as it is."""
    (outputs, states, _), _, _ = stateless(
        probed.model, [], lambda: probed.run(x, training=False)
    )
    return outputs, states


def _pair(entry):
    """Names of a layer of the student and one of the teacher."""
    pair = (entry, entry) if isinstance(entry, str) else tuple(entry)
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair):
        raise ValueError(
            "`layers` must hold names of layers, or pairs (name in the student, name "
            f"in the teacher). Received: {entry!r}."
        )
    return pair


def _check_settings(form, weight, temperature, layers):
    if form not in FORMS:
        raise ValueError(
            f"`form` must be one of {', '.join(map(repr, FORMS))}. Received: "
            f"form={form!r}."
        )
    if not 0 <= weight <= 1:
        raise ValueError(f"`weight` must be in [0, 1]. Received: weight={weight}.")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(
            "`temperature` must be positive and finite. Received: "
            f"temperature={temperature}."
        )
    if isinstance(layers, str) or bool(layers) != (form == "hidden_states"):
        raise ValueError(
            "`layers` must be a list of the layers to compare with "
            "form='hidden_states', and be left out otherwise. Received: "
            f"form={form!r}, layers={layers!r}."
        )


def _check_models(student, teacher):
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"The {role} must be a Keras model. Received: {model!r} of type "
                f"{type(model).__name__}."
            )
        if not (model.built or model.weights):
            raise ValueError(
                f"The {role} '{model.name}' is not built. Call it once on a batch of "
                "inputs before the distillation."
            )
    if any(isinstance(m, SharpnessAwareSteps) for m in student._flatten_layers()):
        raise ValueError(
            f"The student '{student.name}' is sharpness-aware, and its steps would not "
            "be taken. Wrap the distiller of a plain student instead: "
            "SharpnessAwareModel.wrap(distiller)."
        )
    for name in ("train_step", "compute_loss"):
        if getattr(type(student), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"The student '{student.name}' has a `{name}` of its own, which the "
                "distiller would replace. Give the model without it, and wrap the "
                "distiller instead, as SharpnessAwareModel.wrap(distiller) does."
            )
    mine = {id(variable) for variable in student.variables}
    if any(id(variable) in mine for variable in teacher.variables):
        raise ValueError(
            f"The teacher '{teacher.name}' and the student '{student.name}' share "
            "variables, so that the teacher would change. Clone it: teacher = "
            "keras.models.clone_model(model); teacher.set_weights(model.get_weights())."
        )
