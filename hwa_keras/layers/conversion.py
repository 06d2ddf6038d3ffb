"""From a live Keras layer to one on hardware, and back: a change of its class."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core.keras_private import (
    ReversibleEmbedding,
    become,
    call_training,
    serialized_as,
)
from hwa_keras.core.kernels import describes_kernels, describes_on_request
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.views import MatrixView
from hwa_keras.layers import feedforward, recurrent
from hwa_keras.layers.base import (
    HardwareLayer,
    SubstitutedLayer,
    drawn_once,
    put_layer_on,
)
from hwa_keras.layers.head import HWAReversibleEmbedding, head_of
from hwa_keras.layers.product_families import is_registered, product_of

__all__ = [
    "convert_layer",
    "hardware_class",
    "is_stepwise",
    "register_cell",
    "revert_layer",
    "run_stepwise",
]

_PRODUCTS = {
    cls.__bases__[-1]: cls
    for cls in vars(feedforward).values()
    if isinstance(cls, type) and issubclass(cls, feedforward.ProductLayer)
    if cls is not feedforward.ProductLayer
}
_PRODUCTS[ReversibleEmbedding] = HWAReversibleEmbedding
_CELLS = {
    layers.LSTMCell: recurrent.HWALSTMCell,
    layers.GRUCell: recurrent.HWAGRUCell,
    layers.SimpleRNNCell: recurrent.HWASimpleRNNCell,
}
_STEPWISE = {
    layers.LSTM: recurrent.HWALSTM,
    layers.GRU: recurrent.HWAGRU,
    layers.SimpleRNN: recurrent.HWASimpleRNN,
    layers.RNN: recurrent.HWARNN,
    layers.TimeDistributed: recurrent.HWATimeDistributed,
}
_DIGITAL = {
    hardware: digital
    for known in (_PRODUCTS, _CELLS, _STEPWISE)
    for digital, hardware in known.items()
}


def register_cell(digital, hardware):
    """Have a class of cells known, with the class that computes it on hardware.

    Args:
        digital: A cell for `keras.layers.RNN` with a `kernel` and a `recurrent_kernel`.
        hardware: A subclass of it and of `recurrent.HardwareCell`.
    """
    _CELLS[digital] = hardware
    _DIGITAL[hardware] = digital


@describes_kernels
def _kernels_by_computation(layer):
    """{keys: `MatrixView`} of the layers whose products are known."""
    if (products := product_of(layer)) is not None:
        # A layer that is never called, as some in keras-hub, has no weights.
        used = [p for p in products if hasattr(layer, p.attribute)]
        return {(p.attribute,): p.view(layer) for p in used}
    if _known_cell(type(layer)) is not None:
        return {
            (name,): MatrixView(tuple(getattr(layer, name).shape))
            for name in ("kernel", "recurrent_kernel")
            if hasattr(layer, name)
        }
    head = head_of(layer)
    if head is None:
        return None
    return {} if layer.tie_weights else {(head.attribute,): head.view(layer)}


@describes_on_request
def _tied_heads(layer):
    """{keys: `MatrixView`} of the table of embeddings that a head is tied to."""
    head = head_of(layer)
    if head is None:
        return None
    return {(head.attribute,): head.view(layer)} if layer.tie_weights else {}


def convert_layer(
    layer: keras.Layer,
    hardware: Hardware,
    noise_seed: int | None = None,
    kernel_keys: Sequence[Sequence[Any]] | None = None,
) -> None:
    """Have a live Keras layer compute on hardware, in place.

    Args:
        layer: A Keras layer, built or not, with kernels of its own.
        hardware: A `Hardware`.
        noise_seed: Integer, the seed of the noise, or None for a random one.
        kernel_keys: As in `HardwareLayer.put_on`.

    Raises:
        ValueError: If converters are asked for and the layer is of no known family.
    """
    cls = hardware_class(type(layer))
    put_layer_on(layer, cls, hardware, noise_seed, kernel_keys)


def is_stepwise(layer):
    """Whether a layer runs what is inside of it several times in a pass."""
    stepwise = (layers.RNN, layers.TimeDistributed)
    return isinstance(layer, stepwise) and not hasattr(layer, "hardware_mixin")


def run_stepwise(layer):
    """Have a stepwise layer draw the kernels inside of it once a pass."""
    become(layer, _stepwise_class(type(layer)))
    if isinstance(layer, layers.RNN):
        layer.adopt_states()


def revert_layer(layer: keras.Layer) -> None:
    """Give a layer on hardware the class that it had, its weights as they are."""
    for kernel in vars(layer).get("hardware_kernels", ()):
        layer._tracker.untrack(kernel)
    for name in ("hardware_kernels", "hardware", "noise_seed", "kernel_keys"):
        vars(layer).pop(name, None)
    become(layer, _digital_class(type(layer)))


class ConvertedLayer:
    """Mixin of the classes that are made for layers that hwa_keras has none for.

    Such a layer is saved as what it was, and converted again when it is loaded.
    """

    digital_class: type

    def get_config(self):
        with serialized_as(self, self.digital_class):
            config = {"layer": keras.saving.serialize_keras_object(self)}
        if isinstance(self, HardwareLayer):
            config["hardware"] = self.hardware.get_config()
            config["noise_seed"] = self.noise_seed
            config["kernel_keys"] = [list(k.keys) for k in self.hardware_kernels]
        return config

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        if "hardware" in config:
            hardware = Hardware.from_config(config["hardware"])
            keys = config["kernel_keys"] or None
            convert_layer(layer, hardware, config["noise_seed"], keys)
        else:
            run_stepwise(layer)
        return layer


def _register_as_converted(cls):
    register = keras.saving.register_keras_serializable(PACKAGE, "ConvertedLayer")
    register(cls)
    register(ConvertedLayer)  # Whatever the class was, this one loads it.
    return cls


_register_as_converted(ConvertedLayer)


@functools.cache
def hardware_class(digital):
    """The class of layers of a class, on hardware."""
    if issubclass(digital, HardwareLayer):
        return digital
    known = {**_PRODUCTS, **_CELLS}
    if digital in known:
        return known[digital]
    family = _family(digital)
    if family is not None:
        return _made(digital, (family,), {})
    namespace = {"call": _substituting(digital), "build": _equipping(digital)}
    return _made(digital, (SubstitutedLayer,), namespace)


def _family(digital):
    """The hardware class of the Keras layer that a class inherits its call from."""
    for base in digital.__mro__:
        if base in _CELLS and digital.call is base.call:
            return _CELLS[base]
        if base in _PRODUCTS and digital.call is base.call:
            return _PRODUCTS[base]
        if is_registered(base) and digital.call is base.call:
            return feedforward.ProductLayer
    return None


def _known_cell(cls):
    return next((b for b in _CELLS if issubclass(cls, b) and _calls_as(cls, b)), None)


def _calls_as(cls, base):
    """Whether a class computes as a base of it does, hardware apart."""
    for parent in cls.__mro__:
        if "call" in vars(parent) and not getattr(parent, "hardware_mixin", False):
            return parent.call is base.call
    return False


@functools.cache
def _stepwise_class(digital):
    if digital in _STEPWISE:
        return _STEPWISE[digital]
    mixins = (recurrent.HardwareRNN,) if issubclass(digital, layers.RNN) else ()
    return _made(digital, mixins, {"call": _drawing_once(digital)})


def _made(digital, mixins, namespace):
    """A class for layers of a class, made once."""
    bases = (ConvertedLayer, *mixins, digital)
    namespace = {
        "__module__": __name__,
        "__doc__": digital.__doc__,
        "digital_class": digital,
        "hardware_mixin": True,
        **namespace,
    }
    return _register_as_converted(type(f"HWA{digital.__name__}", bases, namespace))


def _substituting(digital):
    call = digital.call

    @functools.wraps(call)  # Keras reads the signature.
    def substituted(self, *args, **kwargs):
        return self.call_with_kernels(functools.partial(call, self), args, kwargs)

    return substituted


def _equipping(digital):
    build = digital.build

    @functools.wraps(build)
    def equipped(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self._equip()

    return equipped


def _drawing_once(digital):
    call = digital.call

    @functools.wraps(call)
    def drawing(self, *args, **kwargs):
        training = kwargs.get("training")
        training = call_training() if training is None else training
        with drawn_once(self, training):
            return call(self, *args, **kwargs)

    return drawing


def _digital_class(cls):
    found = getattr(cls, "digital_class", None) or _DIGITAL.get(cls)
    if found is None:
        raise ValueError(
            f"{cls.__name__} is a class of its own for hardware, with no Keras layer "
            "to go back to. Build the model of Keras layers, and convert it."
        )
    return found
