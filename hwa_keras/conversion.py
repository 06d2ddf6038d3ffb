"""to_hwa: from a Keras model to a hardware-aware one, by rules."""

import warnings

import rich.console
import rich.table

from hwa_keras import noise, quantizers
from hwa_keras.kernels import check_selector, find_kernels, matches
from hwa_keras.model import HWAModel, Transformation
from hwa_keras.registry import copy_of

__all__ = ["to_hwa"]

_RULE_KEYS = ("kernel_quantizer", "kernel_noise")


def to_hwa(
    model,
    kernel_quantizer=None,
    kernel_noise=None,
    rules=None,
    skip=(),
    seed=None,
    verbose=1,
    name=None,
):
    """Make any built Keras model hardware-aware.

    Every kernel of the model (dense, convolution, einsum, attention and recurrent
    layers, at any depth) gets the quantizer and the noise asked for; biases,
    embeddings and normalization stay digital. The result trains with `fit` and shares
    its variables with the model given, which `to_digital` gives back. With nothing
    asked for, outputs are those of the model to the bit.

    Args:
        model: A built Keras model: sequential, functional, subclassed, nested, from
            `keras.applications` or keras-hub.
        kernel_quantizer: A quantizer, its name, any callable `tensor → tensor`, or
            None. Each kernel gets a copy of its own.
        kernel_noise: A noise, its name, any callable `(w, seed) → tensor`, or None.
            Each kernel gets a copy of its own.
        rules: List of pairs `(selector, settings)`; for each kernel the first that
            matches wins. The selector is a layer's name or path (`*` and `?` are
            wildcards), a layer class or a function from a layer to a bool, and
            matches layers inside the one it names too. The settings are a
            dictionary with `kernel_quantizer` and `kernel_noise`, where a missing key
            means the default above; or None, which leaves the layer digital.
        skip: Layers to leave digital: `"first"` and `"last"` mean the first and last
            layer with a kernel; anything else is a selector as in `rules`.
        seed: Integer, the seed of the noise, or None for a random one.
        verbose: 0 or 1. With 1, print what was converted, what stayed digital, and
            why. Defaults to `1`.
        name: String, the name of the result, or None for one that is made up.

    Returns:
        An `HWAModel`.

    Raises:
        ValueError: If the model is not built, has nothing to convert, or a rule
            names a layer that is not there.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(16, activation="relu"),
        ...     keras.layers.Dense(3),
        ... ])
        >>> hwa = hwa_keras.to_hwa(
        ...     model,
        ...     kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale="max"),
        ...     kernel_noise=hwa_keras.noise.ProgrammingNoise("pcm"),
        ...     skip=("last",),
        ...     verbose=0,
        ... )
        >>> len(hwa.transformations)
        1
    """
    if not getattr(model, "built", False):
        raise ValueError(
            f"The model '{getattr(model, 'name', model)}' is not built, so it has no "
            "kernels yet. Call it once on a batch of inputs, or begin it with "
            "keras.Input(shape), and convert it then."
        )
    found, without = find_kernels(model)
    defaults = {"kernel_quantizer": kernel_quantizer, "kernel_noise": kernel_noise}
    rules = _checked_rules(rules or [], found)
    skip = _resolved_skip(skip, found)
    position = {id(w): i for i, w in enumerate(model.weights)}
    transformations, digital = [], {}
    for kernel in found:
        reason, settings = _settings_for(kernel, defaults, rules, skip)
        if reason:
            digital[kernel.layer_path] = reason
            continue
        transformations.append(
            Transformation(
                position[id(kernel.variable)],
                kernel.path,
                copy_of(quantizers.get(settings["kernel_quantizer"])),
                copy_of(noise.get(settings["kernel_noise"])),
            )
        )
    for path, layer in without:
        names = ", ".join(w.name for w in layer.weights)
        digital[path] = f"{type(layer).__name__} has no kernel ({names})"
    if not transformations:
        raise ValueError(
            f"There is nothing to convert in '{model.name}': "
            + ("; ".join(f"{k}: {v}" for k, v in digital.items()) or "it has no layers")
            + ". Kernels are weights of two or more dimensions named '...kernel'."
        )
    hwa = HWAModel(model, transformations, list(digital.items()), seed=seed, name=name)
    if verbose:
        print_conversion(hwa)
    return hwa


def print_conversion(model, file=None):
    """Print what of a hardware-aware model was converted and what stayed digital.

    Args:
        model: An `HWAModel`.
        file: A text file, or None for the terminal.
    """
    table = rich.table.Table(title=f"{model.name}: what runs on the hardware")
    for column in ("kernel", "shape", "quantizer", "noise"):
        table.add_column(column)
    for kernel, t in zip(model.kernels, model.transformations, strict=True):
        shape = " × ".join(map(str, kernel.shape))
        table.add_row(t.path, shape, _label(t.quantizer), _label(t.noise))
    for path, reason in model.digital:
        table.add_row(path, "", "[dim]digital[/dim]", f"[dim]{reason}[/dim]")
    rich.console.Console(file=file).print(table)


def _label(member):
    if member is None:
        return "—"
    return getattr(member, "__name__", type(member).__name__)


def _checked_rules(rules, kernels):
    checked = []
    for rule in rules:
        if not isinstance(rule, (tuple, list)) or len(rule) != 2:
            raise TypeError(
                "A rule is a pair (selector, settings), as in "
                f"('conv_1', {{'kernel_noise': None}}). Received: {rule!r}."
            )
        selector, settings = rule
        unknown = set(settings or ()) - set(_RULE_KEYS)
        if unknown:
            raise ValueError(
                f"Unknown settings {sorted(unknown)} in the rule for {selector!r}. "
                f"Known settings: {', '.join(_RULE_KEYS)}."
            )
        check_selector(selector, kernels)
        if not any(matches(selector, kernel) for kernel in kernels):
            warnings.warn(
                f"The rule for {selector!r} matches no layer with a kernel.",
                stacklevel=3,
            )
        checked.append((selector, settings))
    return checked


def _resolved_skip(skip, kernels):
    if isinstance(skip, str) or not isinstance(skip, (tuple, list)):
        skip = (skip,)
    ends = {"first": kernels[:1], "last": kernels[-1:]}
    resolved = []
    for selector in skip:
        if isinstance(selector, str) and selector in ends:
            owners = [kernel.owner for kernel in ends[selector]]
            reason = f"skipped: the {selector} layer"
            resolved.append((lambda k, owners=owners: k.owner in owners, reason))
        else:
            check_selector(selector, kernels)
            name = getattr(selector, "__name__", selector)
            resolved.append(
                (lambda k, s=selector: matches(s, k), f"skipped: matches {name!r}")
            )
    return resolved


def _settings_for(kernel, defaults, rules, skip):
    """A reason to stay digital, or None and the settings of a kernel."""
    hardware = kernel.hardware_layer()
    if hardware is not None:
        return f"{type(hardware).__name__} does its own quantization and noise", None
    for matched, reason in skip:
        if matched(kernel):
            return reason, None
    for selector, settings in rules:
        if matches(selector, kernel):
            if settings is None:
                return f"left digital by the rule for {selector!r}", None
            return None, {**defaults, **settings}
    return None, defaults
