"""HardwareLayer: a Keras layer whose products are computed on hardware."""

import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import keras

from hwa_keras import constraints
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core import modes
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.hardware_kernel import HardwareKernel
from hwa_keras.core.keras_private import become, call_training, unlocked
from hwa_keras.core.kernels import own_kernels, view_of
from hwa_keras.core.registry import Family
from hwa_keras.core.substitution import substitute
from hwa_keras.core.types import Config, Shape
from hwa_keras.crossbar.tiling import Tiling

__all__ = [
    "HardwareLayer",
    "SubstitutedLayer",
    "drawn_once",
    "hardware_config",
    "kernels_inside",
    "put_layer_on",
    "register",
    "split_arguments",
]

register = Family("layer").register

_SHORT = {"input_quantizer": "dac", "output_quantizer": "adc"}
_ARGUMENTS = (
    "kernel_quantizer",
    "kernel_noise",
    "input_quantizer",
    "output_quantizer",
    "output_noise",
)


class HardwareLayer(SavesSeeds):
    """Mixin that makes a Keras layer compute its products on hardware.

    It stands before the Keras layer among the bases of a class. What a product of
    inputs and kernel goes through is described by a `Hardware`, or by the arguments
    below, its short forms. Noise, of kernels and of outputs, is drawn once per call,
    with `training=True` only.

    Args:
        *args: Positional arguments of the Keras layer.
        hardware: A `Hardware`, or None for one of the arguments that follow.
        kernel_quantizer: A quantizer, its name, any callable, or None.
        kernel_noise: A noise, its name, any callable `(w, seed) → tensor`, or None.
        input_quantizer: A quantizer for the inputs (the DAC), or None.
        output_quantizer: A quantizer for the products, before bias and activation (the
            ADC), or None.
        output_noise: A noise for the products, before the ADC, or None.
        noise_seed: Integer, the seed of the noise, or None for a random one.
        **kwargs: Keyword arguments of the Keras layer.

    Attributes:
        hardware_kernels: List of `HardwareKernel`s, one per kernel, once it is built.
    """

    hardware_mixin = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, hardware, noise_seed = split_arguments(type(self), kwargs)
        super().__init__(*args, **constraints.resolve(kwargs))
        self.put_on(hardware, noise_seed)

    def put_on(
        self,
        hardware: Hardware,
        noise_seed: int | None = None,
        kernel_keys: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        """Compute on a hardware; for a layer that was made without.

        Args:
            hardware: A `Hardware`.
            noise_seed: Integer, or None for a random one.
            kernel_keys: List of the keys of the weights that are kernels, in a layer of
                no known family; see `HardwareKernel`. None for those whose names say
                so.
        """
        self._check_known(hardware)
        # Plain objects: what they hold is copied for each kernel.
        self.hardware = hardware
        self.noise_seed = noise_seed
        self.kernel_keys = kernel_keys and [tuple(keys) for keys in kernel_keys]
        self.hardware_kernels = []
        if self.built:
            self._equip((self.get_build_config() or {}).get("input_shape"))

    def _check_known(self, hardware):
        """Raise `ValueError` for a description that this layer cannot follow."""

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._equip(input_shape)

    def _equip(self, input_shape=None):
        """Make a `HardwareKernel` for each kernel of the layer itself."""
        if self.hardware_kernels:
            return
        with unlocked(self):
            for i, (keys, view) in enumerate(self._kernel_views().items()):
                is_bias = keys == ("bias",)
                hardware = self.hardware.of_bias() if is_bias else self.hardware
                rows, columns = view.matrix_shape
                tiling = Tiling(rows, columns, *(hardware.tile or (None, None)))
                seed = None if self.noise_seed is None else self.noise_seed + i
                kernel = HardwareKernel(self, keys, view, tiling, hardware, seed)
                kernel.trainable = self.trainable
                self.hardware_kernels.append(kernel)
        if input_shape and any(kernel.unbuilt for kernel in self.hardware_kernels):
            shapes = self._converted_shapes(input_shape)
            for kernel, pair in zip(self.hardware_kernels, shapes, strict=False):
                kernel.build_converters(*pair)

    def _converted_shapes(self, input_shape):
        """Pairs (shape of the inputs, shape of the sums) of the products."""
        return []

    def _kernel_views(self):
        """{keys: `MatrixView`} of the kernels of the layer itself."""
        if self.kernel_keys is not None:
            return {keys: view_of(self, keys) for keys in self.kernel_keys}
        children = self._flatten_layers(include_self=False)
        inherited = {id(w) for child in children for w in child.weights}
        own = [w for w in self.weights if id(w) not in inherited]
        return own_kernels(self, own, lambda variable: None)

    @property
    def kernel_quantizer(self) -> Any:
        return self._part("quantizer", self.hardware.kernel_quantizer)

    @property
    def kernel_noise(self) -> Any:
        return self._part("noise", self.hardware.kernel_noise)

    @property
    def input_quantizer(self) -> Any:
        return self._part("dac", self.hardware.dac)

    @property
    def output_quantizer(self) -> Any:
        return self._part("adc", self.hardware.adc)

    @property
    def output_noise(self) -> Any:
        return self._part("output_noise", self.hardware.output_noise)

    @property
    def kernel_quantizers(self) -> list[Any]:
        """The quantizer of each kernel, in the order of `hardware_kernels`."""
        return [kernel.quantizer for kernel in self.hardware_kernels]

    def _part(self, name, described):
        kernels = self.hardware_kernels
        return getattr(kernels[0], name) if kernels else described

    def noises(self) -> list[Any]:
        """All elementary noises of the layer, of kernels and of outputs."""
        return [noise for kernel in self.hardware_kernels for noise in kernel.noises()]

    def quantize(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"'{self.name}' computes on hardware, and its kernels would become codes. "
            "Call hwa_keras.to_digital(model) first, or leave the layer digital."
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            **hardware_config(self.hardware),
            "noise_seed": self.noise_seed,
        }


def split_arguments(cls, kwargs):
    """Split the arguments of a hardware layer.

    Args:
        cls: The class, for messages.
        kwargs: Keyword arguments of the layer.

    Returns:
        A triple: the arguments of the Keras layer, a `Hardware`, and the noise seed.
    """
    kwargs = dict(kwargs)
    noise_seed = kwargs.pop("noise_seed", None)
    hardware = kwargs.pop("hardware", None)
    settings = {name: kwargs.pop(name) for name in _ARGUMENTS if name in kwargs}
    given = [name for name, value in settings.items() if value is not None]
    if hardware is None:
        named = {_SHORT.get(name, name): value for name, value in settings.items()}
        return kwargs, Hardware(**named), noise_seed
    if isinstance(hardware, dict):
        hardware = keras.saving.deserialize_keras_object(hardware)
    if given or not isinstance(hardware, Hardware):
        raise ValueError(
            f"`hardware` of {cls.__name__} must be a hwa_keras.Hardware, which says "
            f"what the short forms {given or list(_ARGUMENTS)} say: give one or the "
            f"other. Received: hardware={hardware!r}."
        )
    return kwargs, hardware, noise_seed


def hardware_config(hardware):
    """The arguments of a layer that describe its hardware, in the shortest form."""
    config = hardware.get_config()
    if config["bias"] == "digital":
        config.pop("bias")
    short = {name: config.pop(_SHORT.get(name, name)) for name in _ARGUMENTS}
    if any(config.values()):
        return {"hardware": keras.saving.serialize_keras_object(hardware)}
    return short


def put_layer_on(layer, cls, hardware, noise_seed=None, kernel_keys=None):
    """Have a live Keras layer compute on hardware, in place.

    Args:
        layer: A Keras layer, built or not.
        cls: The class to give it: a `HardwareLayer` and a subclass of its own class.
        hardware: A `Hardware`.
        noise_seed: Integer, the seed of the noise, or None for a random one.
        kernel_keys: As in `HardwareLayer.put_on`.
    """
    digital = type(layer)
    become(layer, cls)
    try:
        layer.put_on(hardware, noise_seed, kernel_keys)
    except Exception:
        become(layer, digital)
        raise


class SubstitutedLayer(HardwareLayer):
    """Mixin for a layer of no known family: its own call, with other kernels.

    The layer runs with W̃ in place of its kernels W. What stands between the products
    and the rest of its call is not known, so that it takes no converters.
    """

    def _check_known(self, hardware):
        if hardware.has_circuits or hardware.bound_management:
            raise ValueError(
                f"'{self.name}' ({type(self).__name__}) is of no known family of "
                "layers: where its products end is not known, so that converters, "
                "output noise and tiles have no place in it. Convert its weights "
                "alone, with a rule for it: "
                f"rules=[('{self.name}', {{'dac': None, 'adc': None, "
                "'output_noise': None, 'tile': None})]."
            )

    def call_with_kernels(self, call, args, kwargs):
        """Call the layer with its kernels as they are on the hardware."""
        training = kwargs.get("training")
        training = call_training() if training is None else training
        kernels = [k for k in self.hardware_kernels if not k.is_ideal]
        if not kernels:
            return call(*args, **kwargs)
        pairs = [(kernel.variable, kernel.value(training)) for kernel in kernels]
        return substitute(self, pairs, functools.partial(call, *args, **kwargs))


def kernels_inside(layer):
    """The `HardwareKernel`s of a layer and of those inside of it."""
    return [
        kernel
        for inner in layer._flatten_layers()
        for kernel in getattr(inner, "hardware_kernels", ())
    ]


def drawn_once(layer, training):
    """A scope in which the kernels inside a layer are drawn once, before the first use.

    For layers that call what is inside of them several times in a pass.
    """
    known = modes.current().drawn
    kernels = [k for k in kernels_inside(layer) if not k.is_ideal]
    drawn = {id(k): k.value(training) for k in kernels}
    return modes.hardware_mode(drawn={**known, **drawn})
