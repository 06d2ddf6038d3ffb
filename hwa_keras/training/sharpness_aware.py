"""SharpnessAwareModel: SAM, ASAM and SAMSON as a Keras model."""

import functools
import re

import keras
from keras import ops

from hwa_keras.checkpoint import SavesSeeds
from hwa_keras.registry import PACKAGE
from hwa_keras.training.perturbation import SCALED, Perturbation
from hwa_keras.wrapper import ModelWrapper

if keras.backend.backend() == "tensorflow":
    from hwa_keras.training.train_step_tensorflow import TrainStep
else:
    from hwa_keras.training.train_step_jax import (  # type: ignore[assignment]
        TrainStep,
    )

__all__ = ["SharpnessAwareModel"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class SharpnessAwareModel(SavesSeeds, TrainStep, keras.Model):
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

    A model is made from inputs and outputs as a `keras.Model` is, by subclassing, or
    from another model with `SharpnessAwareModel.wrap(model)`, which takes any Keras
    model, an `HWAModel` included.

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

    def __new__(cls, *args, **kwargs):
        if not hasattr(cls, "output_names") and _has_ends(args, kwargs):
            cls = _functional(cls)  # type: ignore[arg-type]
        return super().__new__(cls)

    def __init__(
        self,
        *args,
        method="sam",
        rho=None,
        eta=0.01,
        norm=2,
        scaled=SCALED,
        every=1,
        m=None,
        synchronized=None,
        same_noise=True,
        **kwargs,
    ):
        for name, value in (("every", every), ("m", m)):
            if value is None and name == "m":
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be an integer ≥ 1. Received: {name}={value!r}."
                )
        if synchronized and m is not None:
            raise ValueError(
                "`synchronized=True` asks for one ε of the whole batch, and `m` for "
                f"several. Received: m={m}. Leave one of them out."
            )
        self.perturbation = Perturbation(method, rho, eta, norm, scaled)
        super().__init__(*args, **kwargs)
        self.every = every
        self.m = m
        self.synchronized = synchronized
        self.same_noise = same_noise

    @classmethod
    def wrap(cls, model, **kwargs):
        """Train any Keras model sharpness-aware.

        Args:
            model: A built Keras model, such as one of `keras.applications` or an
                `HWAModel`. Its own `compute_loss` and `compute_metrics` are used where
                it has them, as in `keras.distillation.Distiller`, which must then be
                compiled itself.
            **kwargs: Arguments of `SharpnessAwareModel`.

        Returns:
            A `SharpnessAwareModel` that shares the variables of `model`, which stays
            usable and is `wrapped.model`.

        Raises:
            ValueError: If the model is not built, is sharpness-aware already, or has a
                `train_step` of its own, which would not be called.

        Example:
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
            >>> hwa = hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)
            >>> sharp = hwa_keras.training.SharpnessAwareModel.wrap(hwa, method="asam")
            >>> sharp.compile("sgd", "mse")
            >>> sharp.model is hwa
            True
        """
        return _Wrapped(model, **kwargs)

    @property
    def rho(self):
        """The size of the neighborhood."""
        return self.perturbation.rho

    @rho.setter
    def rho(self, value):
        self.perturbation.rho = value

    @property
    def non_trainable_variables(self):
        # What a JAX step must be told of; not a weight, so that weights load from and
        # into plain models.
        return [*super().non_trainable_variables, self.perturbation.radius]

    @property
    def state_variables(self):
        """What a look changes beside the weights: statistics, seeds, metrics."""
        return [*super().non_trainable_variables, *self.metrics_variables]

    @property
    def statistics(self):
        """What a step moves once: the moving statistics of normalizations."""
        return [v for v in super().non_trainable_variables if "float" in v.dtype]

    def looks_ahead(self, iteration):
        """Whether the step of an iteration does, as a bool or a bool scalar."""
        return True if self.every == 1 else ops.equal(iteration % self.every, 0)

    def check_trainable(self):
        """Raise `ValueError` if no sharpness-aware step can be taken."""
        if not self.trainable_variables:
            raise ValueError(
                f"The model '{self.name}' has no trainable weights, so that there is "
                "no direction to look ahead in. Set layer.trainable = True for some "
                "of its layers."
            )
        _check_plain(self.optimizer)

    def get_config(self):
        arguments = {name: getattr(self, name) for name in _ARGUMENTS}
        return {
            **super().get_config(),
            **self.perturbation.get_config(),
            **arguments,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if "scaled" in config:
            config["scaled"] = Perturbation.from_config(
                {"scaled": config["scaled"]}
            ).scaled
        if "input_layers" not in config:
            return cls(**config)
        mine = (*_ARGUMENTS, "method", "rho", "eta", "norm", "scaled")
        own = {key: config.pop(key) for key in mine if key in config}
        trainable = config.pop("trainable", None)
        model = keras.Model.from_config(config, custom_objects=custom_objects)
        return cls(
            model._inputs_struct,
            model._outputs_struct,
            name=model.name,
            trainable=trainable,
            **own,
        )


_ARGUMENTS = ("every", "m", "synchronized", "same_noise")


@keras.saving.register_keras_serializable(package=PACKAGE, name="SharpnessAwareWrapper")
class _Wrapped(SharpnessAwareModel, ModelWrapper, keras.Model):
    """What `SharpnessAwareModel.wrap` makes."""

    def __init__(self, model, **kwargs):
        if not (getattr(model, "built", False) or getattr(model, "weights", ())):
            raise ValueError(
                f"The model '{getattr(model, 'name', model)}' is not built. Call it "
                "once on a batch of inputs before wrapping it."
            )
        if any(isinstance(m, SharpnessAwareModel) for m in model._flatten_layers()):
            raise ValueError(
                f"The model '{model.name}' is sharpness-aware already; wrapped again "
                "it would look ahead twice."
            )
        if type(model).train_step is not keras.Model.train_step:
            raise ValueError(
                f"The model '{model.name}' has a `train_step` of its own, which "
                "SharpnessAwareModel would replace. Make it a subclass of "
                "SharpnessAwareModel, with its loss in `compute_loss`."
            )
        kwargs.setdefault("name", f"sharpness_aware_{model.name}")
        super().__init__(model, **kwargs)
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        # Keras passes `training` on to methods that name it, and `_compute_loss` too.
        own = self._has_own("compute_loss")
        compute = self.model._compute_loss if own else super().compute_loss
        return compute(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, *args, **kwargs):
        own = self._has_own("compute_metrics")
        compute = self.model.compute_metrics if own else super().compute_metrics
        return compute(*args, **kwargs)

    @property
    def metrics(self):
        # Keras leaves out those of a model inside; a loss of its own may move some.
        own = super().metrics
        known = {id(metric) for metric in own}
        replaced = ("loss", "compile_metrics")
        return own + [
            metric
            for metric in self.model.metrics
            if id(metric) not in known and metric.name not in replaced
        ]

    def _has_own(self, name):
        """Whether the wrapped model has a method of its own, and not Keras's."""
        return getattr(type(self.model), name) is not getattr(keras.Model, name)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["model"] = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return super().from_config(config)


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
    functional = type(keras.Model(ends, ends))
    made = type(cls.__name__, (cls, functional), {"__module__": cls.__module__})
    package, found, name = keras.saving.get_registered_name(cls).partition(">")
    if found:  # Both are saved under the name of the first, which loads both.
        register = keras.saving.register_keras_serializable(package, name)
        register(made)
        register(cls)
    return made


def _check_plain(optimizer):
    """Raise `ValueError` for an optimizer that takes sharpness-aware steps itself."""
    inner = optimizer
    while inner is not None:
        name = type(inner).__name__
        if re.search(r"SAM(?![a-z])|SharpnessAware", name):
            raise ValueError(
                f"The optimizer {name} takes sharpness-aware steps itself, and the "
                "model would look ahead twice. Give the optimizer inside it, such as "
                "keras.optimizers.SGD(...)."
            )
        names = ("inner_optimizer", "base_optimizer", "optimizer", "_optimizer")
        inner = next((o for o in (getattr(inner, n, None) for n in names) if o), None)
