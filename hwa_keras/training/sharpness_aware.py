"""SharpnessAwareModel: SAM, ASAM and SAMSON as a Keras model."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from hwa_keras.conversion.hardware_model import model_class, register_mixin
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.keras_private import become, forget_compiled, serialized_as
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config, Self
from hwa_keras.training.perturbation import SCALED
from hwa_keras.training.sharpness import Sharpness

if keras.backend.backend() == "tensorflow":
    from hwa_keras.training.train_step_tensorflow import TrainStep
else:
    from hwa_keras.training.train_step_jax import TrainStep

__all__ = ["SharpnessAware", "SharpnessAwareModel", "SharpnessAwareSteps"]


class SharpnessAwareSteps(SavesSeeds, TrainStep):
    """Mixin of all models that take sharpness-aware steps.

    Attributes:
        sharpness: The `Sharpness`, all settings.
    """

    @property
    def rho(self) -> float:
        """The size of the neighborhood; set it to change it."""
        return self.sharpness.perturbation.rho

    @rho.setter
    def rho(self, value: float) -> None:
        self.sharpness.perturbation.rho = value

    @property
    def non_trainable_variables(self) -> list[Any]:
        # What a JAX step must be told of; not a weight, so that weights load from and
        # into plain models.
        radius = self.sharpness.perturbation.radius
        return [*super().non_trainable_variables, radius]


@register_mixin
class SharpnessAware(SharpnessAwareSteps):
    """Mixin that `SharpnessAwareModel.wrap` puts before the class of a model."""

    digital_class: type

    def get_config(self):
        with serialized_as(self, self.digital_class):
            model = keras.saving.serialize_keras_object(self)
        model.pop("compile_config", None)
        return {"model": model, **self.sharpness.get_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        arguments, rest = Sharpness.arguments_from(config)
        model = keras.saving.deserialize_keras_object(
            rest["model"], custom_objects=custom_objects
        )
        return _look_ahead(model, Sharpness(**arguments))


def _setting(name: str) -> Any:
    """A property that stands for an attribute of the settings."""
    return property(
        lambda self: getattr(self.sharpness, name),
        lambda self, value: setattr(self.sharpness, name, value),
        doc=f"`{name}` of the settings; see `SharpnessAwareModel`.",
    )


@keras.saving.register_keras_serializable(package=PACKAGE)
class SharpnessAwareModel(SharpnessAwareSteps, keras.Model):
    """A Keras model trained in flat regions of its loss: SAM, ASAM or SAMSON.

    Each step takes the gradient at W + ε instead of at W, where ε raises the loss of
    the batch most within a neighborhood of W (see `Perturbation` for the formulas).
    Networks trained so bear errors of their weights that they were not trained for.
    A step costs about two plain ones. All else is Keras: `compile`, `fit`, callbacks
    and saving are as ever. In particular

    - the weights are never moved to W + ε and back: they come out of a step exactly as
      the optimizer left them;
    - loss, metrics, and the moving statistics of batch normalization are those of W,
      and are updated once a step;
    - both looks see the same noise and dropout masks;
    - a gradient that is not finite leaves the weights as they were, as does one of a
      `LossScaleOptimizer`.

    A model is made from inputs and outputs as a `keras.Model` is, or by subclassing;
    and `SharpnessAwareModel.wrap(model)` has any Keras model train so, in place,
    whether on hardware or not.

    Args:
        *args: Arguments of `keras.Model`: inputs and outputs, or nothing in a subclass.
        method: `"sam"`, `"asam"` or `"samson"`. Defaults to `"sam"`.
        rho: Float > 0, the size of the neighborhood; see `Perturbation`. Set
            `model.rho` to change it, or use `training.RhoSchedule`.
        eta: Float ≥ 0, added to |w| by ASAM and SAMSON. Defaults to `0.01`.
        norm: 2 or `"inf"`, the norm of SAMSON. Defaults to `2`.
        scaled: Which variables ASAM and SAMSON scale; see `Perturbation`.
        every: Integer ≥ 1, look ahead for each `every`-th update and make plain ones
            between. Defaults to `1`.
        m: Integer ≥ 1 or None. Compute an ε for each m examples of a batch, and
            average the gradients (m-sharpness). With `jit_compile=True` on TensorFlow
            the batch must be a multiple of m. Defaults to one ε for a batch.
        synchronized: Bool or None. With several devices, whether one ε is computed from
            the gradient of the whole batch, or each replica computes its own, as in
            the paper of SAM. Defaults to its own under `tf.distribute`, and to one on
            JAX, where one program spans all devices and knows no replicas.
        same_noise: Bool. Whether both looks draw the same noise and dropout masks.
            Defaults to `True`.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: If an argument is out of its range; at the first step, if the model
            has nothing to train or the optimizer is sharpness-aware itself.

    Example:
        >>> inputs = keras.Input((8,))
        >>> outputs = keras.layers.Dense(3)(inputs)
        >>> model = hwa_keras.training.SharpnessAwareModel(
        ...     inputs, outputs, method="samson", rho=0.5, norm="inf"
        ... )
        >>> model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        >>> history = model.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)

    Reference:
        - Foret et al., 2021, arXiv:2010.01412; Kwon et al., 2021, arXiv:2102.11600.
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, chapter 5.
    """

    perturbation = _setting("perturbation")
    every = _setting("every")
    m = _setting("m")
    synchronized = _setting("synchronized")
    same_noise = _setting("same_noise")

    def __new__(cls, *args, **kwargs):
        if not hasattr(cls, "output_names") and _has_ends(args, kwargs):
            cls = _functional(cls)
        return super().__new__(cls)

    def __init__(
        self,
        *args: Any,
        method: str = "sam",
        rho: float | None = None,
        eta: float = 0.01,
        norm: float | str = 2,
        scaled: Sequence[str] | Callable[[Any], bool] = SCALED,
        every: int = 1,
        m: int | None = None,
        synchronized: bool | None = None,
        same_noise: bool = True,
        **kwargs: Any,
    ) -> None:
        self.sharpness = Sharpness(
            method, rho, eta, norm, scaled, every, m, synchronized, same_noise
        )
        super().__init__(*args, **kwargs)

    @classmethod
    def wrap(cls, model: keras.Model, **kwargs: Any) -> keras.Model:
        """Have any Keras model train sharpness-aware, in place.

        The model stays what it is, with its own `call`, losses, metrics, `test_step`,
        outputs and methods: only its `train_step` is another. `hwa_keras.to_digital`
        undoes it, together with the hardware.

        Args:
            model: A built Keras model, such as one of `keras.applications`, one that
                `to_hwa` converted, or a `Distiller`.
            **kwargs: Arguments of `SharpnessAwareModel`, but for those of
                `keras.Model`.

        Returns:
            The model itself.

        Raises:
            ValueError: If the model is not built, is sharpness-aware already, or has a
                `train_step` of its own, which would not be called.

        Example:
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
            >>> hwa = hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)
            >>> sharp = hwa_keras.training.SharpnessAwareModel.wrap(hwa, method="asam")
            >>> sharp.compile("sgd", "mse")
            >>> sharp is model
            True
        """
        _check_wrappable(model)
        return _look_ahead(model, Sharpness(**kwargs))

    def get_config(self) -> Config:
        return {**super().get_config(), **self.sharpness.get_config()}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        own, config = Sharpness.arguments_from(config)
        if "input_layers" not in config:
            return cls(**config, **own)
        trainable = config.pop("trainable", None)
        model = keras.Model.from_config(config, custom_objects=custom_objects)
        return cls(
            model._inputs_struct,
            model._outputs_struct,
            name=model.name,
            trainable=trainable,
            **own,
        )


def _look_ahead(model, sharpness):
    """Give a model the class that takes sharpness-aware steps."""
    become(model, model_class(SharpnessAware, type(model)))
    model.sharpness = sharpness
    forget_compiled(model)
    return model


def _check_wrappable(model):
    """Raise `ValueError` for a model whose steps cannot be sharpness-aware."""
    if not (getattr(model, "built", False) or getattr(model, "weights", ())):
        raise ValueError(
            f"The model '{getattr(model, 'name', model)}' is not built. Call it once "
            "on a batch of inputs before wrapping it."
        )
    if any(isinstance(m, SharpnessAwareSteps) for m in model._flatten_layers()):
        raise ValueError(
            f"The model '{model.name}' is sharpness-aware already; wrapped again it "
            "would look ahead twice."
        )
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"The model '{model.name}' has a `train_step` of its own, which "
            "SharpnessAwareModel would replace. Make it a subclass of "
            "SharpnessAwareModel, with its loss in `compute_loss`."
        )
    for name in ("sharpness", "rho"):
        if hasattr(model, name):
            raise ValueError(
                f"The model '{model.name}' has an attribute `{name}`, which a "
                "sharpness-aware model has too. Rename it."
            )


def _has_ends(args, kwargs):
    """Whether a model is made from inputs and outputs, as keras.Model tells it."""
    return len(args) == 2 or "outputs" in kwargs


@functools.cache
def _functional(cls):
    """The class for models made of inputs and outputs.

    Left to itself, Keras makes its functional model a base of the class for good, after
    which it cannot be subclassed for models with a `call` of their own.
    """
    ends = keras.Input((1,))
    functional = type(keras.Model(ends, -ends))
    made = type(cls.__name__, (cls, functional), {"__module__": cls.__module__})
    package, found, name = keras.saving.get_registered_name(cls).partition(">")
    if found:  # Both are saved under the name of the first, which loads both.
        register = keras.saving.register_keras_serializable(package, name)
        register(made)
        register(cls)
    return made
