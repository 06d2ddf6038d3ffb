"""fold_batchnorm: batch normalizations become part of the kernels before them."""

import collections
import sys
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.core.keras_private import become, unlocked
from hwa_keras.core.kernels import distinct
from hwa_keras.core.replica import replicate
from hwa_keras.layers.einsum_labels import EinsumLabels
from hwa_keras.layers.product_families import product_of
from hwa_keras.layers.products import EinsumProduct

__all__ = ["fold_batchnorm"]

# What does nothing at inference between a product and its normalization.
_TRANSPARENT = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def fold_batchnorm(model: keras.Model, verbose: int = 1) -> keras.Model:
    """A copy of a model with its batch normalizations folded into kernels and biases.

    At inference a batch normalization is a scale and an offset of each channel. Where
    it follows a product, they are one with the product's kernel and bias:

        s = γ/√(σ² + ε),   W ← W·s,   b ← (b − μ)·s + β.

    On a crossbar W·s is what is programmed, and the normalization costs nothing. The
    product is a dense, einsum, convolution, transposed, depthwise or separable layer
    without activation, whose outputs go nowhere else; dropout may stand between. The
    folded normalization becomes a `keras.layers.Identity` of the same name.

    All other normalizations stay: behind an addition, an activation or an input, in a
    layer with a `call` of its own, of layers that are called more than once, and behind
    a kernel with a quantizer, an ADC or output noise, which would not act on W·s as on
    W. Fold before `to_hwa` puts those on.

    Args:
        model: A built Keras model: sequential, functional, or any with such models
            inside of it. It is not changed.
        verbose: 0 or 1. With 1, say on the standard error stream how many were folded,
            and what stayed and why. Defaults to `1`.

    Returns:
        The copy, of the class of the model and compiled as it is, with a new optimizer.
        Its attribute `unfolded` is a list of pairs (layer path, reason): the batch
        normalizations that stayed. At inference it computes what the model does, to
        float precision; training would do without the folded statistics.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If the model is not built, has no batch normalization, is a chip, or
            a folded kernel would not be finite.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
        ...     keras.layers.BatchNormalization(),
        ...     keras.layers.ReLU(name="relu"),
        ...     keras.layers.BatchNormalization(name="second"),
        ... ])
        >>> folded = hwa_keras.fold_batchnorm(model, verbose=0)
        >>> folded.unfolded
        [('second', "follows ReLU 'relu'")]
        >>> folded.get_layer("conv").use_bias
        True

    Reference:
        - Jacob et al., "Quantization and training of neural networks for efficient
          integer-arithmetic-only inference", CVPR 2018, section 3.2.
    """
    _check_foldable(model)
    folded = replicate(model)
    if getattr(model, "optimizer", None) is not None:
        config = model.optimizer.get_config()
        folded.optimizer = type(model.optimizer).from_config(config)
    structure = _Structure(folded)
    left, paths = [], set()
    for path, layer in structure.normalizations.items():
        try:
            _fold(layer, structure)
            paths.add(path)
        except _StaysError as reason:
            left.append((path, str(reason)))
    folded.unfolded = left
    if hasattr(folded, "digital"):
        folded.digital = [pair for pair in folded.digital if pair[0] not in paths]
    if verbose:
        _tell(folded, len(structure.normalizations))
    return folded


class _StaysError(Exception):
    """Why a batch normalization is not folded."""


def _check_foldable(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`fold_batchnorm` takes a built Keras model. Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    if getattr(model, "is_chip", False):
        raise ValueError(
            f"'{model.name}' is a chip, whose weights were written once. Fold the "
            "model that it was made from, and program that."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built. Call it once on a batch of inputs "
            "first."
        )
    if not any(map(_is_normalization, model._flatten_layers())):
        raise ValueError(
            f"The model '{model.name}' has no BatchNormalization layers, so there is "
            "nothing to fold."
        )


def _is_normalization(layer):
    return isinstance(layer, keras.layers.BatchNormalization)


class _Structure:
    """Where the layers of a model are called, as far as its graphs tell.

    Args:
        model: A Keras model. The graphs are its own and those of sequential and
            functional models inside.

    Attributes:
        normalizations: {path: batch normalization}, in the order of the layers.
    """

    def __init__(self, model):
        self.calls = collections.defaultdict(list)  # {id of a layer: its nodes}
        self.makers: dict[int, Any] = {}  # {id of a symbolic tensor: its node}
        self.uses: collections.Counter = collections.Counter()  # Of such tensors.
        self.outside: dict[int, Any] = {}  # {id of a layer: who calls it unseen}
        found: list[Any] = []
        self._walk(model, "", found, set())
        names = distinct(path for path, _ in found)
        layers = [layer for _, layer in found]
        self.normalizations = dict(zip(names, layers, strict=True))

    def _walk(self, layer, path, found, seen):
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if _is_normalization(layer):
            found.append((path, layer))
        graph = _graph_of(layer)
        if graph is not None:
            self._add(graph)
        for child in layer._flatten_layers(include_self=False, recursive=False):
            if graph is None:
                self.outside[id(child)] = layer
            self._walk(child, f"{path}/{child.name}".lstrip("/"), found, seen)

    def _add(self, graph):
        self.uses.update(id(t) for t in keras.tree.flatten(graph.outputs))
        for nodes in graph._nodes_by_depth.values():
            for node in nodes:
                self.uses.update(id(t) for t in node.input_tensors)
                self.makers.update((id(t), node) for t in node.output_tensors)
                self.calls[id(node.operation)].append(node)

    def call_of(self, layer):
        """The node of the one call of a layer."""
        caller = self.outside.get(id(layer))
        if caller is not None:
            raise _StaysError(
                f"'{layer.name}' is called by {_named(caller)}, in a way of its own"
            )
        calls = self.calls[id(layer)]
        if len(calls) != 1:
            raise _StaysError(f"'{layer.name}' is called {len(calls)} times")
        return calls[0]

    def before(self, node):
        """The node that makes the one input of a node, and nobody else's."""
        tensor, *others = node.input_tensors
        if others or node.arguments.kwargs.get("training"):
            name = _named(node.operation)
            raise _StaysError(f"{name} is called with a mask or with training=True")
        maker = self.makers[id(tensor)]
        if maker.is_input:
            raise _StaysError("follows an input")
        if self.uses[id(tensor)] > 1:
            name = _named(maker.operation)
            raise _StaysError(f"the outputs of {name} go elsewhere, too")
        return maker


def _graph_of(layer):
    """What holds the nodes of a model that computes as its graph says, or None."""
    call = getattr(type(layer).call, "__qualname__", "")
    if call == "Sequential.call":
        layer = layer._functional
    elif call != "Functional.call":
        return None
    return layer if getattr(layer, "_nodes_by_depth", None) else None


def _named(layer):
    return f"{type(layer).__name__} '{layer.name}'"


def _fold(normalization, structure):
    """Fold one batch normalization, or raise `_StaysError`."""
    base = keras.layers.BatchNormalization
    if type(normalization).call is not base.call:
        raise _StaysError(f"{type(normalization).__name__} has a call of its own")
    node = structure.call_of(normalization)
    axis, shape = normalization.axis, tuple(node.input_tensors[0].shape)
    before = structure.before(node)
    while isinstance(before.operation, _TRANSPARENT):
        structure.call_of(before.operation)
        before = structure.before(before)
    layer = before.operation
    product = _foldable_product(layer)
    structure.call_of(layer)
    axis = axis % len(shape)
    channels = _channels_of_columns(layer, product, shape, axis)
    _rescale(layer, product, channels, _affine(normalization), len(shape) - 1 - axis)
    _become_identity(normalization)
    # Without `training` and `mask`, which no identity takes.
    node.arguments = type(node.arguments)(node.input_tensors[0])


def _foldable_product(layer):
    """The last product of a layer that a scale and an offset may follow."""
    products = product_of(layer) if isinstance(layer, keras.Layer) else None
    if products is None:
        raise _StaysError(f"follows {_named(layer)}")
    if layer.activation not in (None, keras.activations.linear):
        name = getattr(layer.activation, "__name__", repr(layer.activation))
        raise _StaysError(f"follows the activation '{name}' of {_named(layer)}")
    if getattr(layer, "lora_enabled", False):
        raise _StaysError(f"{_named(layer)} has a low-rank adaptation")
    kernels = getattr(layer, "hardware_kernels", ())
    for kernel in kernels:
        for name in ("quantizer", "adc", "output_noise"):
            if getattr(kernel, name) is not None:
                part = type(getattr(kernel, name)).__name__
                raise _StaysError(f"{part} acts on the product of {_named(layer)}")
    if kernels and layer.hardware.bias == "analog" and layer.bias is None:
        raise _StaysError(f"{_named(layer)} has no row of the array for a bias")
    return products[-1]


def _channels_of_columns(layer, product, shape, axis):
    """Which element of a batch normalization acts on each column of a product.

    Args:
        layer: The layer of the product.
        product: Its `Product`.
        shape: Tuple, the shape of the outputs, None where it is not known.
        axis: Integer ≥ 0, which axis of the outputs is normalized.

    Returns:
        NumPy array of integers `[columns]`.
    """
    shape = [2 if size is None else size for size in shape]
    along = np.arange(shape[axis], dtype="float32")
    along = along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    outputs = ops.convert_to_tensor(np.broadcast_to(along, shape))
    columns = product.view(layer).matrix_shape[1]
    found = ops.convert_to_numpy(product.to_columns(layer, outputs))
    found = found.reshape(-1, columns).astype("int64")
    if np.any(found != found[:1]):
        raise _StaysError(f"normalizes axis {axis}, not the columns of {_named(layer)}")
    return found[0]


def _affine(normalization):
    """(mean, scale, offset) of x → (x − mean)·scale + offset, per channel, float64."""

    def values(name, default):
        variable = getattr(normalization, name)
        if variable is None:
            return np.full(normalization.moving_mean.shape, default)
        return ops.convert_to_numpy(variable.value).astype("float64")

    variance = values("moving_variance", 1.0) + normalization.epsilon
    with np.errstate(invalid="ignore", divide="ignore"):  # Told with the layer's name.
        scale = values("gamma", 1.0) / np.sqrt(variance)
    return values("moving_mean", 0.0), scale, values("beta", 0.0)


def _rescale(layer, product, channels, affine, after):
    """Have a layer compute its outputs, scaled and shifted.

    Args:
        layer, product: The layer, and its last product.
        channels: What `_channels_of_columns` returned.
        affine: What `_affine` returned.
        after: Integer, number of axes of the outputs behind the normalized one.
    """
    view, kernel = product.view(layer), getattr(layer, product.attribute)
    matrix = ops.convert_to_numpy(view.to_matrix(kernel.value)).astype("float64")
    # A bias has an element for each column, that of an einsum lies along its outputs.
    shape = (-1, *[1] * after) if isinstance(product, EinsumProduct) else (-1,)
    mean, scale, offset = (values.reshape(shape) for values in affine)
    bias = 0.0
    if layer.bias is not None:
        bias = ops.convert_to_numpy(layer.bias.value).astype("float64")
    bias = (bias - mean) * scale + offset
    if layer.bias is not None and bias.shape != tuple(layer.bias.shape):
        raise _StaysError(f"the bias of {_named(layer)} lies along another axis")
    weights = matrix * affine[1][channels]
    if not (np.all(np.isfinite(weights)) and np.all(np.isfinite(bias))):
        raise ValueError(
            f"The batch normalization behind '{layer.name}' makes weights that are NaN "
            "or infinite of it. Look for a diverged training run, or a moving variance "
            "that is negative."
        )
    if layer.bias is None:
        _give_bias(layer, bias.shape, after)
    kernel.assign(view.from_matrix(ops.convert_to_tensor(weights, kernel.dtype)))
    layer.bias.assign(ops.convert_to_tensor(bias, layer.bias.dtype))


def _give_bias(layer, shape, after):
    if hasattr(layer, "bias_axes"):
        output = EinsumLabels(layer.equation).output
        layer.bias_axes = output[len(output) - 1 - after]
    else:
        layer.use_bias = True
    with unlocked(layer):
        layer.bias = layer.add_weight(
            name="bias",
            shape=shape,
            initializer=layer.bias_initializer,
            regularizer=layer.bias_regularizer,
            constraint=layer.bias_constraint,
            trainable=True,
        )


def _become_identity(normalization):
    """Make a batch normalization a `keras.layers.Identity`, where it stands."""
    fresh = keras.layers.Identity(name=normalization.name)
    for variable in normalization.weights:
        normalization._tracker.untrack(variable)
    become(normalization, keras.layers.Identity)
    for name in set(vars(normalization)) - set(vars(fresh)):
        vars(normalization).pop(name)
    normalization.input_spec = None
    normalization._auto_config = fresh._auto_config


def _tell(folded, count):
    """Say on the standard error stream what was folded and what was not."""
    left = folded.unfolded
    print(
        f"{folded.name}: {count - len(left)} of {count} batch normalizations folded.",
        *(f"  {path} stays: {reason}" for path, reason in left),
        sep="\n",
        file=sys.stderr,
    )
