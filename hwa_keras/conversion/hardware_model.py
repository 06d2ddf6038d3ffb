"""HardwareModel: the user's own model, which knows what of it is on hardware."""

import functools
import itertools
from typing import Any, NoReturn

import keras

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.hardware_kernel import variable_at
from hwa_keras.core.keras_private import attributes, become, serialized_as
from hwa_keras.core.kernels import find_kernels, hardware_kernels
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Config
from hwa_keras.layers.base import HardwareLayer
from hwa_keras.layers.conversion import (
    convert_layer,
    is_stepwise,
    revert_layer,
    run_stepwise,
)

__all__ = [
    "HardwareModel",
    "check_ranges",
    "convert_layers",
    "digital_class",
    "model_class",
    "register_mixin",
    "revert_layers",
]


class HardwareModel(SavesSeeds):
    """Mixin that `to_hwa` puts before the class of a model.

    A layer on hardware saves what it needs. A layer that other layers make for
    themselves, such as those inside of a Transformer's block or of a subclassed model,
    is made plain when the model is loaded: the model saves which of its layers are on
    hardware, and puts them on it again.

    Attributes:
        digital: List of pairs (layer path, reason): what stayed digital.
    """

    digital_class: type
    digital = ()

    def noises(self) -> list[Any]:
        """All elementary noises of the model's kernels and of their outputs."""
        return [noise for k in hardware_kernels(self) for noise in k.noises()]

    def quantize(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"Kernels of '{self.name}' are on hardware, and would become codes. Call "
            "hwa_keras.to_digital(model) first."
        )

    def make_test_function(self, force: bool = False) -> Any:
        check_ranges(self)
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        check_ranges(self)
        return super().make_predict_function(force)

    def compile_from_config(self, config: Config) -> None:
        # Keras takes every model that is compiled to have an optimizer.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> Config:
        with serialized_as(self, self.digital_class):
            model = keras.saving.serialize_keras_object(self)
        model.pop("compile_config", None)
        return {
            "model": model,
            "hardware": _entries(self),
            "digital": [list(pair) for pair in self.digital],
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Any:
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        _put_again(model, config["hardware"])
        become(model, model_class(HardwareModel, type(model)))
        model.digital = [tuple(pair) for pair in config["digital"]]
        return model


def check_ranges(model):
    """Raise `ValueError` if a range is to be learned or calibrated, and is not yet."""
    for kernel in hardware_kernels(model):
        for converter in (kernel.dac, kernel.adc):
            if hasattr(converter, "check_ready"):
                converter.check_ready(kernel.path)


def register_mixin(mixin):
    """Have whatever class is made with a mixin load with the mixin."""
    keras.saving.register_keras_serializable(PACKAGE, mixin.__name__)(mixin)
    return mixin


register_mixin(HardwareModel)


@functools.cache
def model_class(mixin, digital):
    """The class of models of a class, with a mixin before it, made once."""
    namespace = {
        "__module__": digital.__module__,
        "__qualname__": digital.__qualname__,
        "__doc__": digital.__doc__,
        "digital_class": digital,
    }
    made = type(digital.__name__, (mixin, digital), namespace)
    keras.saving.register_keras_serializable(PACKAGE, mixin.__name__)(made)
    register_mixin(mixin)
    return made


def digital_class(model):
    """The class that a model had before any mixin was put before it."""
    cls = type(model)
    while hasattr(cls, "digital_class"):
        cls = cls.digital_class
    return cls


def convert_layers(kernels, hardware, seed=None):
    """Put the layers of some kernels on hardware, and what runs them step by step.

    Args:
        kernels: List of `Kernel`s.
        hardware: Function from a `Kernel` to its `Hardware`.
        seed: Integer, the seed of the noise, or None for a random one.
    """
    converted = []
    try:
        for i, kernel in enumerate(kernels):
            if not isinstance(kernel.owner, HardwareLayer):
                own = None if seed is None else (seed + 0x9E3779B9 * i) & 0x7FFFFFFF
                keys = [k.keys for k in kernels if k.owner is kernel.owner]
                convert_layer(kernel.owner, hardware(kernel), own, keys)
                converted.append(kernel.owner)
            for layer in kernel.layers[:-1]:
                if is_stepwise(layer):
                    run_stepwise(layer)
                    converted.append(layer)
            _name_kernels(kernel)
    except Exception:
        for layer in converted:
            revert_layer(layer)
        raise


def _name_kernels(kernel):
    if kernel.hardware is None:
        raise ValueError(
            f"'{kernel.path}' is no part of the product of a "
            f"{type(kernel.owner).__name__}: no hardware can hold it there."
        )
    for own in kernel.owner.hardware_kernels:
        own.path = f"{kernel.layer_path}/{own.variable.name}".lstrip("/")


def revert_layers(model):
    """Give every layer on hardware the class that it had."""
    for layer in model._flatten_layers():
        if isinstance(layer, HardwareLayer) or getattr(layer, "hardware_mixin", False):
            revert_layer(layer)


def _entries(model):
    """What puts each hardware layer of a model on its hardware again, each once."""
    entries = {}
    for kernel in find_kernels(model)[0]:
        if kernel.hardware is not None and id(kernel.owner) not in entries:
            entries[id(kernel.owner)] = {
                "path": kernel.layer_path,
                "steps": [
                    {
                        "keys": list(_keys_of(outer, inner)),
                        "build": _build_config(inner),
                    }
                    for outer, inner in itertools.pairwise(kernel.layers)
                ],
                "hardware": kernel.owner.hardware.get_config(),
                "noise_seed": kernel.owner.noise_seed,
                "kernels": [list(k.keys) for k in kernel.owner.hardware_kernels],
            }
    return list(entries.values())


def _build_config(layer):
    return layer.get_build_config() if layer.built else None


def _keys_of(outer, inner):
    """How a layer is reached from the one around it, whatever their names are."""
    of_a_graph = outer._obj_type() in ("Sequential", "Functional")
    places = [("layers", outer.layers)] if of_a_graph else []
    places += [*attributes(outer).items(), ("_layers", outer._layers)]
    for name, value in places:
        keys = _keys_in(value, inner)
        if keys is not None:
            return (name, *keys)
    raise ValueError(f"'{outer.name}' holds '{inner.name}' where it cannot be found.")


def _keys_in(value, layer):
    if value is layer:
        return ()
    pairs: Any
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return None
    for key, item in pairs:
        keys = _keys_in(item, layer)
        if keys is not None:
            return (key, *keys)
    return None


def _put_again(model, entries):
    """Put layers on hardware that a model made plain when it was loaded."""
    for entry in entries:
        layer = _reached(model, entry)
        if not isinstance(layer, HardwareLayer):
            hardware = Hardware.from_config(entry["hardware"])
            keys = [tuple(keys) for keys in entry["kernels"]]
            convert_layer(layer, hardware, entry["noise_seed"], keys)
        for kernel in layer.hardware_kernels:
            kernel.path = f"{entry['path']}/{kernel.variable.name}".lstrip("/")
    for layer in model._flatten_layers():
        inside = layer._flatten_layers(include_self=False)
        if is_stepwise(layer) and any(isinstance(x, HardwareLayer) for x in inside):
            run_stepwise(layer)


def _reached(model, entry):
    """The layer of an entry, built as it was; what it lies in is built if need be."""
    layer, build = model, None
    for step in entry["steps"]:
        try:
            inner = variable_at(layer, step["keys"])
        except (AttributeError, KeyError, IndexError, TypeError):
            inner = None
        if inner is None and not layer.built and build:
            layer.build_from_config(build)
            inner = variable_at(layer, step["keys"])
        if not isinstance(inner, keras.Layer):
            raise ValueError(
                f"The layer '{entry['path']}' of '{model.name}' is on hardware in the "
                "file, and the model that its class makes has no such layer."
            )
        layer, build = inner, step["build"]
    if not layer.built and build:
        layer.build_from_config(build)
    return layer
