"""All that hwa_keras uses of Keras's insides, in one file.

Seen in Keras 3.15.1; tests/core/test_keras_private.py fails where a release differs.
"""

import contextlib
import inspect
import types

import keras
from keras.src.backend import AutocastScope
from keras.src.backend.common import global_state
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.tracking import Tracker

__all__ = [
    "KerasSaveable",
    "ReversibleEmbedding",
    "Tracker",
    "attributes",
    "become",
    "call_training",
    "compiled_apart",
    "forget_compiled",
    "full_precision",
    "serialized_as",
    "unlocked",
]


if hasattr(keras.layers, "ReversibleEmbedding"):
    ReversibleEmbedding = keras.layers.ReversibleEmbedding
else:

    class ReversibleEmbedding(keras.layers.Embedding):  # type: ignore[no-redef]
        """Stands, in Keras before 3.13, for the layer that is not there yet."""


# Where Keras and TensorFlow list what is an attribute already.
_LISTS = ("_layers", "_trainable_variables", "_non_trainable_variables", "_self_")


def attributes(layer):
    """The attributes of a layer, without the lists that are kept of them."""
    found = vars(layer).items()
    return {name: value for name, value in found if not name.startswith(_LISTS)}


@contextlib.contextmanager
def unlocked(layer):
    """Let state be added to a layer that is built."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._lock_state()


def become(layer, cls):
    """Give a live layer another class, of which its own is a base, or the reverse.

    Keras keeps on each layer what it has read off its class: the signature of `call`,
    and wrappers around `build` and `quantize`.
    """
    layer.__class__ = cls
    for name in ("build", "quantize"):
        if name in vars(layer):
            method = types.MethodType(getattr(cls, name), layer)
            vars(layer)[name] = _rewrapped(vars(layer)[name], method)
    if not isinstance(layer, keras.Model) or "_call_signature" in vars(layer):
        signature = inspect.signature(layer.call)
        names = list(signature.parameters)
        layer._call_signature = signature
        layer.call_signature_parameters = names
        layer._call_has_training_arg = "training" in names
        layer._call_has_mask_arg = "mask" in names
        arguments = getattr(layer, "_call_context_args", ())  # Not in 3.9.
        layer._call_has_context_arg = {name: name in names for name in arguments}


def _rewrapped(wrapper, method):
    """Keras's wrapper around a method, around another method."""
    code = wrapper.__code__
    cells = tuple(
        types.CellType(method) if name.startswith("original_") else cell
        for name, cell in zip(code.co_freevars, wrapper.__closure__, strict=True)
    )
    made = types.FunctionType(
        code, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, cells
    )
    made.__kwdefaults__ = wrapper.__kwdefaults__
    made.__wrapped__ = method  # type: ignore[attr-defined]
    return made


def call_training():
    """The `training` of the Keras call around this code; False outside of any."""
    context = global_state.get_global_attribute("current_call_ctx")
    if hasattr(context, "get_value"):
        return bool(context.get_value("training"))
    return bool(getattr(context, "training", False))  # Keras 3.9.


def full_precision():
    """A scope in which variables are read in their own dtype.

    Inside a layer of a mixed policy Keras casts every variable when it is read.
    """
    return AutocastScope(None)


_COMPILED = ("train_function", "test_function", "predict_function", "generate_function")


def forget_compiled(model):
    """Have a model compile its steps again: they were traced with other layers."""
    for layer in model._flatten_layers():
        for name in _COMPILED:
            if getattr(layer, name, None) is not None:
                setattr(layer, name, None)


@contextlib.contextmanager
def compiled_apart(model):
    """A scope with compiled steps of its own: those of before are there again after."""
    kept = [
        (layer, name, vars(layer)[name])
        for layer in model._flatten_layers()
        for name in _COMPILED
        if vars(layer).get(name) is not None
    ]
    forget_compiled(model)
    try:
        yield
    finally:
        forget_compiled(model)
        for layer, name, function in kept:
            setattr(layer, name, function)


@contextlib.contextmanager
def serialized_as(obj, cls):
    """Have Keras take an object for one of another class while it is serialized."""
    own = obj.__class__
    obj.__class__ = cls
    try:
        yield
    finally:
        obj.__class__ = own
