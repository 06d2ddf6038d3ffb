"""to_hwa and to_digital: a Keras model onto hardware, by rules, and back."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import rich.console
import rich.table
from rich.text import Text

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion.hardware_model import (
    HardwareModel,
    convert_layers,
    digital_class,
    model_class,
    revert_layers,
)
from hwa_keras.conversion.rules import Rules
from hwa_keras.core.keras_private import become, forget_compiled
from hwa_keras.core.kernels import find_kernels, hardware_kernels
from hwa_keras.core.types import Seed, Selector, Tensor
from hwa_keras.devices.device import for_kernels
from hwa_keras.noise import Noise
from hwa_keras.quantizers import Quantizer

__all__ = ["print_conversion", "to_digital", "to_hwa"]


def to_hwa(
    model: keras.Model,
    kernel_quantizer: str | Quantizer | Callable[[Tensor], Tensor] | None = None,
    kernel_noise: str | Noise | Callable[[Tensor, Seed], Tensor] | None = None,
    rules: Sequence[tuple[Selector, Hardware | dict[str, Any] | None]] | None = None,
    skip: Selector | Sequence[Selector] = (),
    seed: int | None = None,
    verbose: int = 1,
    *,
    hardware: Hardware | None = None,
    kernels: Selector | Sequence[Selector] | None = None,
) -> keras.Model:
    """Have the layers of a built Keras model compute on hardware, in place.

    The model stays what it is: its class, its `call`, `train_step`, losses, outputs,
    methods and variables. Every layer that multiplies its inputs with a kernel (dense,
    convolution, einsum, attention and recurrent layers, keras-hub's experts, heads with
    weights of their own, at any depth) does so on the hardware described; biases,
    embeddings and normalization stay digital. It trains
    with `fit`, and `to_digital` undoes the conversion. With nothing asked for, outputs
    are equal to the bit.

    Args:
        model: A built Keras model: sequential, functional, subclassed, nested, from
            `keras.applications` or keras-hub. It is changed, not copied.
        kernel_quantizer: A quantizer, its name, any callable `tensor → tensor`, or
            None. Each kernel gets a copy of its own.
        kernel_noise: A noise, its name, any callable `(w, seed) → tensor`, or None.
            Each kernel gets a copy of its own.
        rules: List of pairs `(selector, settings)`; for each kernel the first that
            matches wins. The selector is a layer's name or path (`*` and `?` are
            wildcards), a layer class or a function from a layer to a bool, and matches
            layers inside the one it names too. The settings are a `Hardware`, or a
            dictionary of its arguments, where a missing key means the default; or
            None, which leaves the layer digital.
        skip: Layers to leave digital: `"first"` and `"last"` mean the first and last
            layer with a kernel; anything else is a selector as in `rules`.
        seed: Integer, the seed of the noise, or None for a random one.
        verbose: 0 or 1. With 1, print what was converted, what stayed digital, and
            why. Defaults to `1`.
        hardware: A `Hardware`, in place of `kernel_quantizer` and `kernel_noise`.
        kernels: What else is a kernel: `keras.layers.ReversibleEmbedding` for heads
            that are tied to embeddings; in layers of one's own, a layer class, a
            pattern of paths of weights, a list of such, or a function from a variable
            to a bool.

    Returns:
        The model itself.

    Raises:
        ValueError: If the model is not built, is a chip, has nothing to convert, or a
            rule names a layer that is not there; or if converters are asked for in a
            layer of no known family.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(16, activation="relu", name="hidden"),
        ...     keras.layers.Dense(3),
        ... ])
        >>> hwa = hwa_keras.to_hwa(
        ...     model,
        ...     kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale="max"),
        ...     kernel_noise=hwa_keras.noise.ProgrammingNoise("pcm"),
        ...     skip=("last",),
        ...     verbose=0,
        ... )
        >>> hwa is model
        True
        >>> [kernel.path for kernel in hwa_keras.hardware_kernels(hwa)]
        ['hidden/kernel']
    """
    _check_convertible(model)
    default = _described(hardware, kernel_quantizer, kernel_noise)
    found, without = find_kernels(model, kernels)
    decide = Rules(found, default, rules, skip)
    decisions = [(kernel, *decide(kernel)) for kernel in found]
    converted = {id(kernel): chosen for kernel, chosen, _ in decisions if chosen}
    digital = {k.layer_path: reason for k, chosen, reason in decisions if not chosen}
    for path, layer in without:
        names = ", ".join(w.name for w in layer.weights)
        digital[path] = f"{type(layer).__name__} has no kernel ({names})"
    if not converted:
        raise ValueError(
            f"There is nothing to convert in '{model.name}': "
            + ("; ".join(f"{k}: {v}" for k, v in digital.items()) or "it has no layers")
            + ". Kernels are the weights of products, or weights of two or more "
            "dimensions named '...kernel'; what else is one, `kernels` says."
        )
    chosen_kernels = [kernel for kernel, chosen, _ in decisions if chosen]
    _make_devices(converted)
    convert_layers(chosen_kernels, lambda kernel: converted[id(kernel)], seed)
    _renew(model, model_class(HardwareModel, type(model)))
    model.digital = list(digital.items())
    if verbose:
        print_conversion(model)
    return model


def to_digital(model: keras.Model) -> keras.Model:
    """Have the layers of a model compute as Keras does again, in place.

    Args:
        model: A model that `to_hwa` converted, or a model with hardware layers.

    Returns:
        The model itself, of its own class, its weights as trained. What
        `SharpnessAwareModel.wrap` has done is undone too.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If nothing of it is on hardware, or it is a chip.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> hwa = hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
        >>> digital = hwa_keras.to_digital(hwa)
        >>> type(digital.layers[0]).__name__
        'Dense'
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`to_digital` takes a Keras model with layers on hardware. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    is_chip = getattr(model, "is_chip", False)
    if is_chip or not (hardware_kernels(model) or hasattr(model, "digital_class")):
        raise ValueError(
            f"`to_digital` takes a model that `to_hwa` converted, and '{model.name}' "
            f"is {'a chip' if is_chip else 'not on hardware'}."
        )
    revert_layers(model)
    for inside in model._flatten_layers(include_self=False):
        if hasattr(inside, "digital_class"):  # A model that was converted by itself.
            _renew(inside, digital_class(inside))
    _renew(model, digital_class(model))
    return model


def _check_convertible(model):
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`to_hwa` takes a built Keras model. Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    if getattr(model, "is_chip", False):
        raise ValueError(
            f"'{model.name}' is a chip, which is programmed already. Convert the model "
            "that it was made from."
        )
    if isinstance(model, HardwareModel):
        raise ValueError(
            f"'{model.name}' is on hardware already. Convert it anew after "
            "hwa_keras.to_digital(model), or describe all its layers at once, by rules."
        )
    if not getattr(model, "built", False):
        raise ValueError(
            f"The model '{getattr(model, 'name', model)}' is not built, so it has no "
            "kernels yet. Call it once on a batch of inputs, or begin it with "
            "keras.Input(shape), and convert it then."
        )


def _described(hardware, kernel_quantizer, kernel_noise):
    if hardware is None:
        return Hardware(kernel_quantizer=kernel_quantizer, kernel_noise=kernel_noise)
    if kernel_quantizer is not None or kernel_noise is not None:
        raise ValueError(
            "`hardware` says what `kernel_quantizer` and `kernel_noise` say: give one "
            "or the other."
        )
    if not isinstance(hardware, Hardware):
        raise TypeError(
            f"`hardware` must be a hwa_keras.Hardware. Received: {hardware!r}."
        )
    return hardware


def _make_devices(converted):
    """Give each of several `Hardware`s, by kernel, the device made for its kernel."""
    on_devices = {k: h for k, h in converted.items() if h.device is not None}
    chosen = [hardware.device for hardware in on_devices.values()]
    for key, device in zip(
        on_devices, for_kernels(chosen, [None] * len(chosen)), strict=True
    ):
        if device != converted[key].device:
            converted[key] = converted[key].with_settings(device=device)


def _renew(model, cls):
    """Give a model its class, and forget what was compiled for its layers before."""
    become(model, cls)
    forget_compiled(model)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        # Its state belongs to other variables.
        model.optimizer = type(optimizer).from_config(optimizer.get_config())


def print_conversion(model, file=None):
    """Print what of a model is on hardware, and what stays digital and why.

    Args:
        model: A model that `to_hwa` converted.
        file: A text file, or None for the terminal.
    """
    table = rich.table.Table(title=Text(f"{model.name}: what runs on the hardware"))
    for column in ("kernel", "shape", "quantizer", "noise"):
        table.add_column(column)
    for kernel in find_kernels(model)[0]:
        if kernel.hardware is not None:
            shape = " × ".join(map(str, kernel.variable.shape))
            labels = _label(kernel.quantizer), _label(kernel.noise)
            table.add_row(*map(Text, (kernel.path, shape, *labels)))
    for path, reason in model.digital:
        told = (Text(text, style="dim") for text in ("digital", reason))
        table.add_row(Text(path), "", *told)
    rich.console.Console(file=file).print(table)


def _label(member):
    if member is None:
        return "—"
    return getattr(member, "__name__", type(member).__name__)
