"""Hidden states: what named layers of a model put out, from an ordinary pass."""

import contextlib
import contextvars
import functools

import keras

__all__ = ["find_layer", "recorded", "report"]

# A dictionary {id of a layer: its outputs} while a pass is recorded. Each replica of
# `tf.distribute` runs in a thread of its own, and has one of its own.
_states: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "hidden_states", default=None
)


@contextlib.contextmanager
def recorded():
    """Record what layers that `report` put out, {id of the layer: outputs}.

    Of a layer that is called more than once, the last outputs are kept.
    """
    states: dict = {}
    token = _states.set(states)
    try:
        yield states
    finally:
        _states.reset(token)


def report(layer):
    """Have a layer report its outputs from now on, inside of `recorded()`."""
    call = layer.call
    if hasattr(call, "reports"):
        return

    @functools.wraps(call)
    def reporting(*args, **kwargs):
        outputs = call(*args, **kwargs)
        states = _states.get()
        if states is not None:
            states[id(layer)] = outputs
        return outputs

    reporting.reports = True
    layer.call = reporting


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


def _paths(layer, path, seen):
    """Pairs (path, layer) of the layers inside a layer."""
    if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)):
        return
    for child in layer._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen or isinstance(child, keras.layers.InputLayer):
            continue
        seen.add(id(child))
        yield f"{path}{child.name}", child
        yield from _paths(child, f"{path}{child.name}/", seen)
