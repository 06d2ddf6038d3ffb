"""to_spiking: a trained ReLU network as a network of spiking neurons."""

import keras
import numpy as np
from keras import layers, ops

from hwa_keras.conversion.fold_batchnorm import fold_batchnorm
from hwa_keras.core.checks import check_count, check_positive, is_number
from hwa_keras.core.types import ArrayLike, Data
from hwa_keras.spiking.chain import PASSED, chain_of
from hwa_keras.spiking.encoders import ConstantEncoder
from hwa_keras.spiking.lif import LIF
from hwa_keras.spiking.per_step import MaxRatePooling, PerStep
from hwa_keras.spiking.readouts import RateReadout

__all__ = ["accuracy_over_time", "to_spiking"]

_PRODUCTS = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
_LINEAR = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_MAXIMA = (
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
_KINDS = {
    "front": (layers.Normalization, layers.Rescaling),
    "linear": _LINEAR,
    "maxima": _MAXIMA,
    "shape": (layers.Flatten, layers.Reshape),
    "end": (layers.Activation, layers.Softmax),
}
_MOST_VALUES = 1_000_000  # Of a layer and batch, that quantiles are taken of.


def to_spiking(
    model: keras.Model,
    data: Data,
    steps: int | None = None,
    quantile: float = 0.999,
    encoder: keras.Layer | None = None,
    dt: float = 1e-3,
    batch_size: int = 200,
) -> keras.Model:
    """Convert a trained ReLU network to integrate-and-fire neurons that spike.

    Each ReLU becomes neurons that do not leak and that lose their threshold at a spike,
    `LIF(tau=inf, reset="subtract")`, and spike at the rate r = a/λ, which stands for
    the activation a. λ is a quantile of the layer's activations over the data, so that
    few of them are beyond the largest rate, one spike a step. With thresholds of 1,

        W ← W·λ_before/λ,   b ← b/λ.

    Membranes begin at half of the threshold, which rounds numbers of spikes. Rates
    approach the activations as 1/T over T steps. Batch normalizations are folded first.
    A layer of maxima becomes `MaxRatePooling`; a last layer without a ReLU stays, and
    the mean of its currents stands for its output. The network is an ordinary Keras
    model: `to_hwa`, `fit` (through the surrogates of its neurons), `program` and
    `spiking_energy` take it.

    Args:
        model: A built Keras model, one chain of `Dense`, convolutions (not transposed
            or separable), `ReLU`, pooling, `Flatten`, `Reshape`, `BatchNormalization`,
            dropout and, before the first of these, `Rescaling` and `Normalization`. It
            is not changed.
        data: Inputs to measure activations on: an array, or an iterable of batches of
            inputs, or of pairs with targets.
        steps: Integer ≥ 1, the number of time steps T. Defaults to `100`.
        quantile: Float in (0, 1], the quantile of activations that λ is. Defaults to
            `0.999`.
        encoder: A layer from `[batch, ...]` to `[batch, steps, ...]`, such as
            `RateEncoder`, for inputs that are spikes. None for `ConstantEncoder`, with
            inputs as constant currents. Defaults to `None`.
        dt: Float > 0, the length of a step, s. Only `spiking_energy` asks for it.
            Defaults to `1e-3`.
        batch_size: Integer ≥ 1, for data that is an array. Defaults to `200`.

    Returns:
        A functional Keras model from the inputs of the model to estimates of its
        outputs, compiled as the model is.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If a layer cannot be converted; it is named. If a layer is silent
            for all of the data, the data is not finite, or an argument is not among
            what is allowed.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((2,)),
        ...     keras.layers.Dense(3, activation="relu", kernel_initializer="ones"),
        ...     keras.layers.Dense(1, kernel_initializer="ones"),
        ... ])
        >>> x = np.array([[0.25, 0.5], [0.5, 0.5]], "float32")
        >>> spiking = hwa_keras.spiking.to_spiking(model, x, steps=200, quantile=1.0)
        >>> [round(float(y), 2) for y in spiking(x)[:, 0]]  # 2.25 and 3.0
        [2.25, 3.0]

    Reference:
        - Rueckauer et al., "Conversion of continuous-valued deep networks to efficient
          event-driven networks for image classification", Frontiers in Neuroscience 11,
          2017.
        - Bu et al., "Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency
          spiking neural networks", ICLR 2022 (membranes that begin at half).
    """
    owner = "to_spiking"
    plan = _plan(model)
    check_positive(owner, dt=dt)
    check_count(owner, batch_size=batch_size)
    if not (is_number(quantile) and 0 < quantile <= 1):
        raise ValueError(
            "`quantile` of to_spiking must be above 0 and at most 1. Received: "
            f"quantile={quantile!r}."
        )
    if encoder is None:
        encoder = ConstantEncoder(100 if steps is None else steps)
    elif steps is not None:
        raise ValueError(
            "`steps` of to_spiking goes without `encoder`, which has its own. "
            f"Received: steps={steps!r} and encoder={encoder!r}."
        )
    ceilings = _ceilings(plan, data, quantile, batch_size)
    spiking = _spiking_model(model, plan, ceilings, encoder, dt)
    if model.compiled:
        spiking.compile_from_config(model.get_compile_config())
    return spiking


def accuracy_over_time(
    model: keras.Model, x: ArrayLike, y: ArrayLike, batch_size: int = 200
) -> np.ndarray:
    """The accuracy of a converted classifier after each number of time steps.

    Args:
        model: What `to_spiking` returned.
        x: Array of inputs `[examples, ...]`.
        y: Array of labels `[examples]`, integers.
        batch_size: Integer ≥ 1. Defaults to `200`.

    Returns:
        NumPy array `[steps]`: element t − 1 is the accuracy after t steps, as if the
        network were made with so many.

    Raises:
        ValueError: If the model has no `RateReadout`.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((2,)),
        ...     keras.layers.Dense(2, activation="relu", kernel_initializer="identity"),
        ... ])
        >>> x, y = np.array([[0.1, 0.4], [0.9, 0.1]], "float32"), np.array([1, 0])
        >>> spiking = hwa_keras.spiking.to_spiking(model, x, steps=3)
        >>> hwa_keras.spiking.accuracy_over_time(spiking, x, y).tolist()
        [0.5, 1.0, 1.0]
    """
    readouts = [x for x in model.layers if isinstance(x, RateReadout)]
    if not readouts:
        raise ValueError(
            f"'{model.name}' has no RateReadout, so that its outputs over time are not "
            "known. Give what to_spiking returned."
        )
    traces = keras.Model(model.input, readouts[-1].input)
    right = []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        found = ops.convert_to_numpy(traces(x[rows], training=False))
        classes = np.argmax(np.cumsum(found, axis=1, dtype="float64"), axis=-1)
        right.append(classes == np.reshape(y[rows], (-1, 1)))
    return np.concatenate(right).mean(axis=0)


def _plan(model):
    """Pairs (kind, layer), in the order of a chain whose layers can all be converted.

    A product that ends in a ReLU is two: `"product"` and `"neurons"`.
    """
    chain = chain_of("to_spiking", model)
    if any(isinstance(layer, layers.BatchNormalization) for layer in chain):
        folded = fold_batchnorm(model, verbose=0)
        if folded.unfolded:
            reasons = "; ".join(f"'{path}' {why}" for path, why in folded.unfolded)
            raise ValueError(
                "to_spiking folds batch normalizations into the products before them, "
                f"and some cannot be folded: {reasons}."
            )
        chain = chain_of("to_spiking", folded)
    plan: list = []
    pending = False  # Whether currents wait for the neurons that they charge.
    for layer in chain:
        if isinstance(layer, PASSED):
            continue
        kind = _kind(layer)
        kinds = {known for known, _ in plan}
        allowed = {
            "front": kinds <= {"front"},
            "product": not pending,
            "neurons": pending,
            "linear": True,
            "shape": True,
            "maxima": not pending,
            "end": True,
        }
        if not allowed.get(kind) or ("end" in kinds and kind != "end"):
            raise ValueError(_not_converted(layer))
        plan.append((kind, layer))
        if kind == "product" and (name := _activation(layer)) is not None:
            plan.append(("neurons" if name == "relu" else "end", layer))
        pending = plan[-1][0] == "product" or (pending and kind in ("linear", "shape"))
    if not any(kind == "neurons" for kind, _ in plan):
        raise ValueError(
            f"'{model.name}' has no ReLU, so that to_spiking would make no neurons."
        )
    return plan


def _kind(layer):
    """What becomes of a layer, or None if to_spiking does not know it."""
    if type(layer) in _PRODUCTS:
        return "product" if len(layer.weights) == 1 + layer.use_bias else None
    if isinstance(layer, layers.ReLU):
        return None if layer.negative_slope or layer.threshold else "neurons"
    if isinstance(layer, layers.Activation) and _activation(layer) == "relu":
        return "neurons"
    for kind, types in _KINDS.items():
        if isinstance(layer, types):
            return kind
    return None


def _activation(layer):
    """The name of the activation of a layer; None if it is linear."""
    if layer.activation in (None, keras.activations.linear):
        return None
    return getattr(layer.activation, "__name__", "other")


def _not_converted(layer):
    name = f"'{layer.name}' ({type(layer).__name__})"
    if getattr(layer, "hardware_kernels", ()):
        return (
            f"{name} is on hardware, and to_spiking scales weights. Convert the "
            "network first and put it on hardware after: to_hwa(to_spiking(...))."
        )
    return (
        f"to_spiking cannot convert {name} where it stands. It takes one chain of "
        "Dense and convolutions, each with a ReLU before the next; maxima behind a "
        "ReLU; average pooling, zero padding, Flatten and Reshape anywhere; any "
        "activation at the end; and Rescaling and Normalization in front."
    )


def _ceilings(plan, data, quantile, batch_size):
    """{place in the plan: λ} of the neurons."""
    values: dict = {i: [] for i, (kind, _) in enumerate(plan) if kind == "neurons"}
    steps: dict = {}  # Of all batches the same: a rest counts for less than a whole.
    for x in _batches(data, batch_size):
        before = None
        for place, (_, layer) in enumerate(plan):
            x = x if layer is before else layer(x)
            before = layer
            if place in values:
                found = ops.convert_to_numpy(x).ravel()
                step = steps.setdefault(place, -(-found.size // _MOST_VALUES))
                values[place].append(found[::step])
    return {
        place: _ceiling(plan[place][1].name, np.concatenate(found), quantile)
        for place, found in values.items()
    }


def _ceiling(name, activations, quantile):
    """λ of a layer."""
    ceiling = float(np.quantile(activations, quantile))
    if not np.isfinite(ceiling):
        raise ValueError(
            f"The activations of '{name}' are not finite. Clean the data first."
        )
    if ceiling <= 0:
        raise ValueError(
            f"The {quantile} quantile of the activations of '{name}' is 0 over the "
            "data, so that no rate can stand for them. Give more data, or a larger "
            "`quantile`, up to 1.0."
        )
    return ceiling


def _batches(data, batch_size):
    """Batches of inputs, as tensors."""
    if hasattr(data, "shape"):
        starts = range(0, len(data), batch_size)
        found = (data[start : start + batch_size] for start in starts)
    else:
        found = (x[0] if isinstance(x, (tuple, list)) else x for x in data)
    batches = [ops.convert_to_tensor(batch) for batch in found]
    if not batches:
        raise ValueError("`data` of to_spiking is empty: there are no inputs to run.")
    return batches


def _spiking_model(model, plan, ceilings, encoder, dt):
    """The network of a plan, with the weights of the layers in it."""
    [given] = model.inputs
    inputs = x = keras.Input(given.shape[1:], dtype=given.dtype)
    for _, layer in (pair for pair in plan if pair[0] == "front"):
        x = layer(x)
    x = encoder(x)
    scale, filled = 1.0, []  # What one spike stands for; copies and their weights.
    for place, (kind, layer) in enumerate(plan):
        if kind == "product":
            ceiling = _ceiling_behind(plan, ceilings, place)
            copy = _copied(layer, activation="linear")
            kernel, *bias = layer.get_weights()
            weights = [kernel * (scale / ceiling), *(b / ceiling for b in bias)]
            filled.append((copy, weights))
            x = (copy if isinstance(layer, layers.Dense) else PerStep(copy))(x)
            scale = ceiling
        elif kind == "neurons":
            name = f"{layer.name}_neurons"
            x = LIF(np.inf, dt, reset="subtract", initial_membrane=0.5, name=name)(x)
        elif kind == "shape":
            shape = layer.compute_output_shape((None, *x.shape[2:]))[1:]
            x = layers.Reshape((x.shape[1], *shape), name=layer.name)(x)
        elif kind in ("linear", "maxima"):
            wrapper = PerStep if kind == "linear" else MaxRatePooling
            x = wrapper(_copied(layer))(x)
    x = RateReadout(scale, name="rate_readout")(x)
    for _, layer in (pair for pair in plan if pair[0] == "end"):
        ends_product = type(layer) in _PRODUCTS
        x = (layers.Activation(layer.activation) if ends_product else _copied(layer))(x)
    spiking = keras.Model(inputs, x, name=f"{model.name}_spiking")
    for copy, weights in filled:
        copy.set_weights(weights)
    return spiking


def _ceiling_behind(plan, ceilings, place):
    """λ of the neurons that a product charges, or 1 if it charges none."""
    for after, (kind, _) in enumerate(plan[place + 1 :], place + 1):
        if kind in ("neurons", "product"):
            return ceilings.get(after, 1.0)
    return 1.0


def _copied(layer, **changes):
    return type(layer).from_config({**layer.get_config(), **changes})
