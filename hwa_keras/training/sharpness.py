"""What a sharpness-aware step is told, and which variables it moves."""

import inspect
import re

from keras import ops

from hwa_keras.training.perturbation import SCALED, Perturbation

__all__ = ["Sharpness", "check_trainable", "state_variables", "statistics"]


class Sharpness:
    """The settings of a sharpness-aware model; see `SharpnessAwareModel`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        method="sam",
        rho=None,
        eta=0.01,
        norm=2,
        scaled=SCALED,
        every=1,
        m=None,
        synchronized=None,
        same_noise=True,
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
        self.every = every
        self.m = m
        self.synchronized = synchronized
        self.same_noise = same_noise

    def looks_ahead(self, iteration):
        """Whether the step of an iteration does, as a bool or a bool scalar."""
        return True if self.every == 1 else ops.equal(iteration % self.every, 0)

    def get_config(self):
        return {
            **self.perturbation.get_config(),
            "every": self.every,
            "m": self.m,
            "synchronized": self.synchronized,
            "same_noise": self.same_noise,
        }

    @classmethod
    def arguments_from(cls, config):
        """Split a config into the arguments of this class, and all else."""
        own = {name: config[name] for name in _ARGUMENTS if name in config}
        if "scaled" in own:
            restored = Perturbation.from_config({"scaled": own["scaled"]})
            own["scaled"] = restored.scaled
        return own, {k: v for k, v in config.items() if k not in own}


_ARGUMENTS = tuple(inspect.signature(Sharpness).parameters)


def state_variables(model):
    """What a look changes beside the weights: statistics, seeds, metrics."""
    return [*_states(model), *model.metrics_variables]


def statistics(model):
    """What a step moves once: the moving statistics of normalizations."""
    return [v for v in _states(model) if "float" in v.dtype]


def _states(model):
    radius = model.sharpness.perturbation.radius
    return [v for v in model.non_trainable_variables if v is not radius]


def check_trainable(model):
    """Raise `ValueError` if a model can take no sharpness-aware step."""
    if not model.trainable_variables:
        raise ValueError(
            f"The model '{model.name}' has no trainable weights, so that there is no "
            "direction to look ahead in. Set layer.trainable = True for some of its "
            "layers."
        )
    inner = model.optimizer
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
