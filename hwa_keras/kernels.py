"""Which variables of a model are kernels, the weights that a crossbar would hold."""

import fnmatch
from dataclasses import dataclass, field

import keras

from hwa_keras import random
from hwa_keras.noise import Noise
from hwa_keras.quantizers import Quantizer


@dataclass(frozen=True)
class Kernel:
    """A kernel of a model and where it stands.

    Args:
        variable: The Keras variable.
        path: Names from the model down to the variable, joined by slashes.
        layers: The layers on that way, outermost first, the owner last.
    """

    variable: keras.Variable
    path: str
    layers: tuple = field(repr=False)

    @property
    def layer_path(self):
        return self.path.rpartition("/")[0]

    @property
    def owner(self):
        return self.layers[-1]

    def hardware_layer(self):
        """The hardware layer that transforms this kernel itself, or None."""
        for layer in self.layers:
            if hasattr(layer, "run_on_hardware"):
                return layer
        return None


def find_kernels(model):
    """Find the kernels of a model, and the layers that have weights but no kernel.

    A kernel is a weight of at least two dimensions whose name ends in "kernel": those
    of Keras's dense, convolution, einsum, attention and recurrent layers, and of any
    layer that follows their naming.

    Args:
        model: A built Keras model or layer.

    Returns:
        A pair: a list of `Kernel`s in the order of the model's layers, and a list of
        pairs (layer path, layer) of the layers whose weights are no kernels.
    """
    kernels, without = [], []
    _walk(model, (), "", kernels, without, seen=set())
    return kernels, without


def _walk(layer, ancestors, path, kernels, without, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    children = list(layer._flatten_layers(include_self=False, recursive=False))
    inherited = {id(w) for child in children for w in child.weights}
    own = [w for w in layer.weights if id(w) not in inherited]
    found = [w for w in own if w.name.endswith("kernel") and len(w.shape) >= 2]
    for variable in found:
        kernels.append(Kernel(variable, f"{path}{variable.name}", ancestors))
    if own and not found:
        without.append((path.rstrip("/"), layer))
    for child in children:
        _walk(
            child, (*ancestors, child), f"{path}{child.name}/", kernels, without, seen
        )


def matches(selector, kernel):
    """Whether a selector means the layer of a kernel, or a layer around it.

    Args:
        selector: A layer's name or path, in which `*` and `?` are wildcards; a layer
            class; or a function from a layer to a bool.
        kernel: A `Kernel`.
    """
    if isinstance(selector, str):
        parts = kernel.layer_path.split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        return any(fnmatch.fnmatchcase(name, selector) for name in prefixes + parts)
    if isinstance(selector, type):
        return any(isinstance(layer, selector) for layer in kernel.layers)
    if callable(selector):
        return any(selector(layer) for layer in kernel.layers)
    raise TypeError(
        "A layer is selected by its name (a string, wildcards allowed), by a layer "
        "class or by a function from a layer to a bool. Received: "
        f"{selector!r} of type {type(selector).__name__}."
    )


def check_selector(selector, kernels):
    """Raise `ValueError` for a name that no kernel's layer has."""
    if isinstance(selector, str) and not any(matches(selector, k) for k in kernels):
        names = list(dict.fromkeys(kernel.layer_path for kernel in kernels))
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(
            f"No layer with a kernel is called '{selector}'. Layers with kernels: "
            f"{shown}."
        )


def equip(kernels, quantizers, noises, generator):
    """Have quantizers and noises belong to one kernel each.

    Args:
        kernels: List of variables.
        quantizers: List of quantizers, other callables or None, one per kernel.
        noises: List of noises, other callables or None, one per kernel.
        generator: The `SeedGenerator` of their owner, or None where nothing is drawn.
    """
    for kernel, quantizer in zip(kernels, quantizers, strict=True):
        if isinstance(quantizer, Quantizer):
            quantizer.attach(kernel)
    for i, (kernel, quantizer, noise) in enumerate(
        zip(kernels, quantizers, noises, strict=True)
    ):
        if isinstance(noise, Noise):
            state = keras.ops.cast(generator.state, "uint32")
            noise.attach(random.fold_in(state, i), quantizer, kernel.path)


def equipment(model):
    """{id of a kernel variable: (its quantizer, its noise)} of hardware models."""
    found = {}
    for owner in model._flatten_layers():
        if hasattr(owner, "kernel_quantizers"):
            equipped = zip(owner.kernel_quantizers, owner.kernel_noises, strict=True)
            found.update(
                (id(kernel), pair)
                for kernel, pair in zip(owner.kernels, equipped, strict=False)
            )
    return found


def quantized_kernels(model):
    """Pairs (kernel variable, quantized kernel) of hardware models and layers in it."""
    return [
        pair
        for owner in model._flatten_layers()
        if hasattr(owner, "quantized_kernels")
        for pair in owner.quantized_kernels()
    ]


def distinct(names):
    """Names as a list, numbered from the second of the same on: "a", "a (2)"."""
    names = list(names)
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [
        f"{name} ({count})" if count > 1 else name
        for name, count in zip(names, counts, strict=True)
    ]
