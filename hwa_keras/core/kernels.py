"""Which variables of a model are kernels, the weights that a crossbar would hold."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from hwa_keras.core.hardware_kernel import HardwareKernel, variable_at
from hwa_keras.core.keras_private import ReversibleEmbedding, attributes
from hwa_keras.core.views import MatrixView

__all__ = [
    "Kernel",
    "check_selector",
    "describes_kernels",
    "describes_on_request",
    "distinct",
    "find_kernels",
    "hardware_kernels",
    "kernels_of",
    "matches",
    "own_kernels",
    "share_text",
    "view_of",
]

_describers: list[Callable] = []
_on_request: list[Callable] = []


def describes_kernels(function):
    """Decorator: a function that knows the kernels of layers by what they compute.

    It takes a built layer and returns `{keys: MatrixView}` of the variables that are
    its kernels, or None for a layer that it does not know.
    """
    _describers.append(function)
    return function


def describes_on_request(function):
    """Decorator, as `describes_kernels`: of weights that are kernels if asked for."""
    _on_request.append(function)
    return function


@dataclass(frozen=True)
class Kernel:
    """A kernel of a model and where it stands.

    Args:
        path: Names from the model down to the variable, joined by slashes.
        layers: The layers on that way, outermost first, the owner last.
        keys: How the variable is reached from its owner; see `HardwareKernel`.
        view: Its `MatrixView`.
        digital: Why no hardware can hold it, or an empty string.
    """

    path: str
    layers: tuple = field(repr=False)
    keys: tuple
    view: MatrixView = field(repr=False)
    digital: str = ""

    @property
    def owner(self):
        return self.layers[-1]

    @property
    def variable(self):
        return variable_at(self.owner, self.keys)

    @property
    def layer_path(self):
        return self.path.rpartition("/")[0]

    @property
    def hardware(self):
        """The `HardwareKernel`, or None for a kernel that is not converted."""
        found = getattr(self.owner, "hardware_kernels", ())
        return next((k for k in found if k.keys == self.keys), None)

    @property
    def quantizer(self):
        return None if self.hardware is None else self.hardware.quantizer

    @property
    def noise(self):
        return None if self.hardware is None else self.hardware.noise

    def target(self):
        """What programming aims at: the kernel, quantized if it has a quantizer."""
        if self.hardware is not None:
            return self.hardware.quantized()
        return keras.ops.convert_to_tensor(self.variable.value)


def find_kernels(model, kernels=None):
    """Find the kernels of a model, and the layers that have weights but no kernel.

    Kernels are found by what a layer computes: the products of Keras's dense, einsum,
    convolution and recurrent layers, of heads with weights of their own and of
    keras-hub's experts. In a layer that is not known, a weight of at least two
    dimensions whose name ends in "kernel" is one.

    Args:
        model: A built Keras model or layer.
        kernels: What else is a kernel: a pattern of paths, in which `*` and `?` are
            wildcards; a layer class, of which all matrices are meant, and of
            `keras.layers.ReversibleEmbedding` the tied head; a list of patterns and
            classes; or a function from a variable to a bool.

    Returns:
        A pair: a list of `Kernel`s in the order of the model's layers, heads that share
        a layer with an embedding last, each variable once; and a list of pairs (layer
        path, layer) of the layers whose weights are no kernels.
    """
    found, without = [], []
    _walk(model, (model,), "", _Matcher(kernels), found, without, seen=set())
    # What such a layer multiplies with is used at the end, where the layer comes first.
    last = sorted(found, key=lambda k: isinstance(k.owner, ReversibleEmbedding))
    return last, without


def kernels_of(model, kernels=None):
    """The kernels of a model, or a `ValueError` if it has none."""
    found, _ = find_kernels(model, kernels)
    if not found:
        raise ValueError(
            f"The model '{model.name}' has no kernels. Kernels are the weights of "
            "products, or weights of two or more dimensions named '...kernel'; a model "
            "that is not built has none: call it once on a batch of inputs first."
        )
    return found


def hardware_kernels(model: keras.Model) -> list[HardwareKernel]:
    """The `HardwareKernel`s of a model, in the order of its layers."""
    return [k.hardware for k in find_kernels(model)[0] if k.hardware is not None]


def _walk(layer, layers, path, matcher, found, without, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    children = [
        child
        for child in layer._flatten_layers(include_self=False, recursive=False)
        if not isinstance(child, (HardwareKernel, keras.metrics.Metric))
    ]
    inherited = {id(w) for child in children for w in child.weights}
    hardware = getattr(layer, "hardware_kernels", ())
    inherited |= {id(w) for kernel in hardware for w in kernel.weights}
    own = [w for w in layer.weights if id(w) not in inherited]

    def is_kernel(variable):
        return matcher.means(f"{path}{variable.name}", variable)

    views = own_kernels(layer, own, is_kernel, matcher.means_all_of(layer))
    for keys, view in views.items():
        variable = variable_at(layer, keys)
        if id(variable) not in seen:
            seen.add(id(variable))
            name = f"{path}{variable.name}"
            found.append(Kernel(name, layers, keys, view, _reason(layer, variable)))
    if own and not views:
        without.append((path.rstrip("/"), layer))
    for child in children:
        inner = f"{path}{child.name}/"
        _walk(child, (*layers, child), inner, matcher, found, without, seen)


def own_kernels(layer, own, is_kernel, whole=False):
    """{keys: view} of the kernels among a layer's own weights.

    Args:
        layer: A built Keras layer.
        own: List of its weights, without those of layers inside it.
        is_kernel: Function from a variable to whether it was asked for.
        whole: Bool, whether all matrices of the layer were asked for: those that are
            kernels on request, or all of a layer that is not known.
    """
    hardware = getattr(layer, "hardware_kernels", ())
    if hardware:
        return {kernel.keys: kernel.view for kernel in hardware}
    known, requested = _described(_describers, layer), _described(_on_request, layer)
    views = dict(known or {})
    described = {id(variable_at(layer, keys)) for keys in views}
    for variable in own:
        if id(variable) in described or len(variable.shape) < 2:
            continue
        keys = _keys_of(layer, variable)
        unknown = known is None and requested is None
        named = known is None and variable.name.endswith("kernel")
        whole_means = whole and (unknown or keys in (requested or ()))
        if keys is not None and (named or whole_means or is_kernel(variable)):
            views[keys] = view_of(layer, keys)
    return views


def view_of(layer, keys):
    """The `MatrixView` of a weight: as its layer computes, else with the last axis."""
    for describers in (_describers, _on_request):
        view = (_described(describers, layer) or {}).get(keys)
        if view is not None:
            return view
    return MatrixView(tuple(variable_at(layer, keys).shape), (-1,))


def _described(describers, layer):
    return next((v for f in describers if (v := f(layer)) is not None), None)


def _keys_of(layer, variable):
    """How a variable is reached from the layer that holds it."""
    for name, value in attributes(layer).items():
        if value is variable:
            return (name,)
        pairs: Any
        if isinstance(value, (list, tuple)):
            pairs = enumerate(value)
        elif isinstance(value, dict):
            pairs = value.items()
        else:
            continue
        for key, inner in pairs:
            if inner is variable:
                return (name, key)
    return None


def _reason(layer, variable):
    """Why a kernel must stay digital, or an empty string."""
    mode = getattr(layer, "quantization_mode", None)
    if mode is not None:
        return f"quantized by Keras to {mode}: its weights are codes"
    if "float" not in keras.backend.standardize_dtype(variable.dtype):
        return f"of {variable.dtype}: codes, no weights"
    return ""


class _Matcher:
    """What else of a model is a kernel, by the argument `kernels`."""

    def __init__(self, kernels):
        self._function = None
        given = list(kernels) if isinstance(kernels, (list, tuple)) else [kernels]
        self._classes = tuple(g for g in given if _is_layer_class(g))
        self._patterns = [g for g in given if isinstance(g, str)]
        known = len(self._classes) + len(self._patterns)
        if kernels is None or known == len(given):
            return
        if not callable(kernels) or isinstance(kernels, type):
            raise TypeError(
                "`kernels` must be a pattern of paths, such as '*/experts/w', a layer "
                "class, a list of such, or a function from a variable to a bool. "
                f"Received: {kernels!r}."
            )
        self._function = kernels

    def means(self, path, variable):
        """Whether a variable is meant by a pattern or a function."""
        if self._function is not None:
            return bool(self._function(variable))
        return any(
            fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(variable.path, p)
            for p in self._patterns
        )

    def means_all_of(self, layer):
        """Whether the class of a layer is meant."""
        return isinstance(layer, self._classes)


def _is_layer_class(given):
    return isinstance(given, type) and issubclass(given, keras.Layer)


def matches(selector, kernel):
    """Whether a selector means the layer of a kernel, or a layer around it.

    Args:
        selector: A layer's name or path, in which `*` and `?` are wildcards; a layer
            class; or a function from a layer to a bool.
        kernel: A `Kernel`.
    """
    layers = kernel.layers[1:] or kernel.layers
    if isinstance(selector, str):
        parts = kernel.layer_path.split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        return any(fnmatch.fnmatchcase(name, selector) for name in prefixes + parts)
    if isinstance(selector, type):
        return any(isinstance(layer, selector) for layer in layers)
    if callable(selector):
        return any(selector(layer) for layer in layers)
    raise TypeError(
        "A selector is a layer name or path, a layer class or a function from a layer "
        f"to a bool. Received: {selector!r} of type {type(selector).__name__}."
    )


def check_selector(selector, kernels):
    """Raise `ValueError` for a name that no layer with a kernel has."""
    if isinstance(selector, str) and not any(matches(selector, k) for k in kernels):
        names = list(dict.fromkeys(kernel.layer_path for kernel in kernels))
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(
            f"No layer with a kernel is called '{selector}'. Layers with kernels: "
            f"{shown}."
        )


def distinct(names):
    """Names as a list, numbered from the second of the same on: "a", "a (2)"."""
    names = list(names)
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [
        f"{name} ({count})" if count > 1 else name
        for name, count in zip(names, counts, strict=True)
    ]


def share_text(weights, variables):
    """What share of a model's weights some variables are, for messages."""
    total = sum(_size(w) for w in weights)
    part = sum(_size(w) for w in variables)
    return f"{part:,} of {total:,} weights ({part / max(total, 1):.1%})"


def _size(variable):
    size = 1
    for n in variable.shape:
        size *= int(n)
    return size
