"""Hidden states: what named layers of a model put out, from an ordinary pass."""

import contextvars
import functools

import keras

from hwa_keras.core.hardware_kernel import HardwareKernel
from hwa_keras.core.keras_private import become
from hwa_keras.core.replica import replicate

__all__ = ["Probed", "find_layer"]

# A dictionary {id of a layer: its outputs} while a pass is recorded. Each replica of
# `tf.distribute` runs in a thread of its own, and has one of its own.
_states: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "hidden_states", default=None
)


class Probed:
    """A second structure around a model's variables, which tells its hidden states.

    Nothing of the model itself is changed. The structure is made when it is first run,
    and anew when the model's layers are others than then.

    Args:
        model: A built Keras model.
        layers: List of layers inside of it.
    """

    def __init__(self, model, layers):
        self.model = model
        self.layers = layers
        self._made = None  # The twin, and its layers.
        self._made_of = None

    def run(self, x, training):
        """Run the model.

        Returns:
            A triple: the outputs; a list of what each layer has put out in this pass,
            by its last call, None for one that was not called; and a list of the
            losses that layers have added.
        """
        if not self.layers:
            return self.model(x, training=training), [], []
        model, layers = self._twin()
        states: dict = {}
        token = _states.set(states)
        model._clear_losses()
        try:
            outputs = model(x, training=training)
        finally:
            _states.reset(token)
        losses = [loss for a in model._flatten_layers() for loss in a._get_own_losses()]
        return outputs, [states.get(id(layer)) for layer in layers], losses

    def _twin(self):
        made_of = [(id(a), type(a), a.trainable) for a in self.model._flatten_layers()]
        if made_of != self._made_of:
            model, *layers = replicate([self.model, *self.layers], share_variables=True)
            for layer in {id(layer): layer for layer in layers}.values():
                become(layer, _recording(type(layer)))
            self._made, self._made_of = (model, layers), made_of
        return self._made


@functools.cache
def _recording(cls):
    """The class of layers of a class that record what they put out."""
    call = cls.call

    @functools.wraps(call)  # Keras reads the signature.
    def recording(self, *args, **kwargs):
        outputs = call(self, *args, **kwargs)
        states = _states.get()
        if states is not None:
            states[id(self)] = outputs
        return outputs

    # Hardware layers know their family through classes that are marked so.
    marks = {"__module__": __name__, "hardware_mixin": True}
    return type(cls.__name__, (cls,), {**marks, "call": recording})


def find_layer(model, name, role):
    """Find a layer inside a model, at any depth.

    Layers that a recurrent or `TimeDistributed` layer runs step by step are left out:
    they have no outputs of the whole pass.

    Args:
        model: A Keras model.
        name: String, the name of the layer or the end of its path, such as
            `"encoder/dense"` where several layers are called `"dense"`.
        role: What the model is called in messages.

    Raises:
        ValueError: If no layer or more than one has the name.
    """
    layers = list(_paths(model, "", {id(model)}))
    found = [pair for pair in layers if f"/{pair[0]}".endswith(f"/{name}")]
    whole = [pair for pair in found if pair[0] == name]
    if len(found) == 1 or len(whole) == 1:
        return (whole or found)[0][1]
    if found:
        raise ValueError(
            f"Several layers of the {role} '{model.name}' are called '{name}': "
            f"{', '.join(path for path, _ in found)}. Give the path of one."
        )
    raise ValueError(
        f"The {role} '{model.name}' has no layer called '{name}'. It has: "
        f"{', '.join(path for path, _ in layers)}."
    )


_NO_STATES = (keras.layers.InputLayer, HardwareKernel, keras.metrics.Metric)


def _paths(layer, path, seen):
    """Pairs (path, layer) of the layers inside a layer."""
    if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)):
        return
    for child in layer._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen or isinstance(child, _NO_STATES):
            continue
        seen.add(id(child))
        yield f"{path}{child.name}", child
        yield from _paths(child, f"{path}{child.name}/", seen)
