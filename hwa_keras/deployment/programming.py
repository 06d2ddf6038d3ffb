"""program: from a trained model to a chip."""

import warnings

import numpy as np

from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.perturbed import as_device
from hwa_keras.deployment.tile import Tile
from hwa_keras.kernels import (
    check_selector,
    equipment,
    find_kernels,
    matches,
    quantized_kernels,
)
from hwa_keras.model import HWAModel
from hwa_keras.substitution import untracked_states

__all__ = ["program", "target_kernels"]


def program(
    model,
    device="pcm",
    seed=None,
    compensation="measured",
    read_noise="per_call",
    rules=(),
):
    """Write every converted kernel of a model to devices, once: make a chip.

    Of an `HWAModel` the converted kernels are programmed, quantized as in training;
    of a model with hardware layers, theirs; of any other Keras model all kernels are.
    The model is not changed, and what is trained into it later does not reach the
    chip.

    Args:
        model: A built Keras model.
        device: A device or its name: `"pcm"`, `"simple_pcm"`; or a noise, such as
            `noise.ProcessVariation(0.1)`: each chip then holds the weights as the
            noise leaves them, and does not age. Defaults to `"pcm"`.
        seed: Integer. The same seed gives the same chip; None draws one.
        compensation: How the output of each tile is scaled against drift.
            `"none"`; `"oracle"`, by ((t+t₀)/t₀)^ν with the mean drift exponent, which
            no controller knows; `"measured"`, global drift compensation, by the mean
            |weight| read right after programming over that read at t. Defaults to
            `"measured"`.
        read_noise: `"per_call"` draws read noise at each call, `"frozen"` once per
            chip, `"off"` never. Defaults to `"per_call"`.
        rules: List of pairs `(selector, device)`, as in `to_hwa`; the first that
            matches a kernel's layer replaces `device` for it, and the device None
            leaves the layer digital.

    Returns:
        A `Chip` at t = 0, compiled with the loss and metrics of the model if that was
        compiled.

    Raises:
        ValueError: If the model is not built, has no kernels, or a kernel holds NaN
            or infinite values.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, hwa_keras.devices.PCM(g_max=20.0), seed=1)
        >>> chip.t = 86_400.0
        >>> chip(np.ones((2, 8))).shape == (2, 3)
        True
    """
    if seed is None:
        seed = int(np.random.randint(2**31))
    chip, kernels = blank_chip(model, device, compensation, read_noise, rules)
    chip.write(kernels, seed)
    return chip


def blank_chip(model, device, compensation, read_noise, rules=()):
    """A chip not yet written, and the kernels to write on it."""
    device = as_device(device)
    if device is None and not rules:
        raise ValueError("`device` must be a device or its name. Received: None.")
    if not getattr(model, "built", False):
        raise ValueError(
            f"The model '{getattr(model, 'name', model)}' is not built, so it has no "
            "kernels to program. Call it once on a batch of inputs first."
        )
    targets, digital = target_kernels(model)
    structure = model.model if isinstance(model, HWAModel) else model
    if untracked_states(structure):
        raise ValueError(
            f"'{model.name}' has stateful recurrent layers of Keras, whose states are "
            "no weights that a chip could keep. Build it of hwa_keras.layers.HWALSTM "
            "or HWAGRU, or with stateful=False."
        )
    position = {id(w): i for i, w in enumerate(structure.weights)}
    for selector, _ in rules:
        check_selector(selector, [kernel for kernel, _ in targets])
    equipped = equipment(model)
    tiles, kernels = [], []
    for kernel, value in targets:
        chosen = next((d for s, d in rules if matches(s, kernel)), device)
        if chosen is None:
            digital.append((kernel.layer_path, "left digital by a rule"))
            continue
        quantizer, noise = equipped.get(id(kernel.variable), (None, None))
        tiles.append(
            Tile(
                as_device(chosen).for_kernel(kernel.path, quantizer, noise),
                kernel.path,
                position[id(kernel.variable)],
                kernel.variable.shape,
            )
        )
        kernels.append(value)
    if not tiles:
        raise ValueError(
            f"The model '{model.name}' has no kernels to program. Kernels are weights "
            "of two or more dimensions named '...kernel'."
        )
    chip = Chip(structure, tiles, compensation, read_noise, digital)
    _compile_like(chip, model)
    return chip, kernels


def target_kernels(model):
    """What a chip of a model would aim at.

    Returns:
        A pair: a list of pairs (`Kernel`, target values) and a list of pairs (layer
        path, reason) of what stays digital.
    """
    hwa = isinstance(model, HWAModel)
    kernels, without = find_kernels(model.model if hwa else model)
    quantized = {id(kernel): value for kernel, value in quantized_kernels(model)}
    if not quantized:
        quantized = {id(k.variable): k.variable.value for k in kernels}
    targets, digital = [], []
    for kernel in kernels:
        if id(kernel.variable) in quantized:
            targets.append((kernel, quantized[id(kernel.variable)]))
        else:
            digital.append((kernel.layer_path, "not converted"))
    for path, layer in without:
        digital.append((path, f"{type(layer).__name__} has no kernel"))
    return targets, digital


def _compile_like(chip, model):
    """Give the chip the loss and metrics of the model it is made from."""
    if not getattr(model, "compiled", False):
        return
    try:
        config = dict(model.get_compile_config())
        config["optimizer"] = "sgd"  # Never used: a chip does not train.
        chip.compile_from_config(config)
    except (TypeError, ValueError) as error:
        warnings.warn(
            "The loss or a metric of the model cannot be copied to the chip "
            f"({error}). Call chip.compile(loss=..., metrics=...) before evaluate.",
            stacklevel=4,
        )
