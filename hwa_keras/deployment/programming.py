"""program: from a trained model to a chip."""

import sys
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion.hardware_model import convert_layers
from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.kernels import check_selector, find_kernels, matches, share_text
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Selector
from hwa_keras.deployment.chip import Chip, make_chip, place_tile
from hwa_keras.deployment.compensation import Compensation, as_compensation
from hwa_keras.deployment.tile import READ_NOISES
from hwa_keras.devices.device import for_kernels
from hwa_keras.noise.noise_device import DeviceLike, DeviceRules, as_device

__all__ = ["blank_chip", "program"]

# Weights of a chip up to which the state of all devices is kept in memory.
_MOST_KEPT = 2**24


def program(
    model: keras.Model,
    device: DeviceLike | None = "pcm",
    seed: int | None = None,
    compensation: str | Compensation = "measured",
    read_noise: str = "per_call",
    rules: DeviceRules = (),
    kernels: Selector | Sequence[Selector] | None = None,
    verbose: int = 1,
    verify: int = 0,
    tolerance: float = 0.02,
) -> Chip:
    """Write the kernels of a model to devices, once: make a chip.

    Programs the kernels that are on hardware, quantized as in training, through
    `to_hwa` or as hardware layers; or all kernels of a plain Keras model. The chip is a
    copy: the model is not changed, and what is trained into it later does not reach the
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
            |weight| read right after programming over that read at t;
            `"measured_columns"`, the same for each column of a tile; or a
            `deployment.Compensation`, or its name. Defaults to `"measured"`.
        read_noise: `"per_call"` draws read noise at each call, `"frozen"` once per
            chip, `"off"` never. Defaults to `"per_call"`.
        rules: List of pairs `(selector, device)`, as in `to_hwa`; the first that
            matches a kernel's layer replaces `device` for it, and the device None
            leaves the layer digital.
        kernels: What else is a kernel of a plain model, as in `to_hwa`.
        verbose: 0 or 1. With 1, say on the standard error stream how many of the
            model's weights are on the chip, if a matrix of weights is not. Defaults to
            `1`.
        verify: Integer ≥ 0, the rounds of closed-loop programming: in each, all weights
            are read, in the mean of many reads, and those that are off by more than the
            tolerance are written again, with new errors. The reference devices of an
            `OffsetColumn` are written once. Defaults to `0`.
        tolerance: Float > 0, how far a weight may be off when it is verified, relative
            to the largest magnitude of its tile. Defaults to `0.02`.

    Returns:
        A `Chip` at t = 0, of the class of the model, compiled as the model is.

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
    options = rules, kernels, verbose, verify, tolerance
    chip = blank_chip(model, device, compensation, read_noise, *options)
    chip.write(seed)
    return chip


def blank_chip(
    model,
    device,
    compensation,
    read_noise,
    rules=(),
    kernels=None,
    verbose=1,
    verify=0,
    tolerance=0.02,
):
    """A chip with its targets set, but not yet written."""
    compensation = as_compensation(compensation)
    verify = check_count("program", least=0, verify=verify)
    check_positive("program", tolerance=tolerance)
    check_choice("program", READ_NOISES, read_noise=read_noise)
    _check_programmable(model, device, rules)
    chip = replicate(model)
    found, digital = _on_devices(chip, as_device(device), rules, kernels)
    total = sum(int(np.prod(kernel.variable.shape)) for kernel, _ in found)
    targets = [kernel.target() for kernel, _ in found]
    chosen = for_kernels([device for _, device in found], targets)
    plain = [kernel for kernel, _ in found if kernel.hardware is None]
    convert_layers(plain, lambda kernel: Hardware())
    for (kernel, _), target, device in zip(found, targets, chosen, strict=True):
        _check_finite(kernel, target)
        kernel.hardware.path = kernel.path
        own = device.for_kernel(kernel.hardware)
        options = {"keeps_state": total <= _MOST_KEPT, "verify": (verify, tolerance)}
        place_tile(kernel.hardware, device=own, **options)
        tile = kernel.hardware.tile
        tile.compensate(compensation)
        tile.read_noise = read_noise
        tile.targets.assign(tile.to_targets(target))
    make_chip(chip, digital, seed=0)
    if verbose and digital:
        _tell_share(chip)
    return chip


def _on_devices(model, device, rules, kernels):
    """Pairs (`Kernel`, device), and pairs (layer path, reason) of what is digital."""
    found, without = find_kernels(model, kernels)
    on_hardware = any(kernel.hardware is not None for kernel in found)
    for selector, _ in rules:
        check_selector(selector, found)
    chosen, digital = [], []
    for kernel in found:
        rule = next((d for s, d in rules if matches(s, kernel)), "default")
        own = device if rule == "default" else as_device(rule)
        described = getattr(kernel.hardware, "hardware", None)
        if rule == "default" and device is None and described is not None:
            own = described.device
        reason = kernel.digital
        if on_hardware and kernel.hardware is None:
            reason = reason or "not converted"
        if own is None:
            reason = reason or "left digital by a rule"
        if reason:
            digital.append((kernel.layer_path, reason))
        else:
            chosen.append((kernel, own))
    for path, layer in without:
        digital.append((path, f"{type(layer).__name__} has no kernel"))
    if not chosen:
        raise ValueError(
            f"The model '{model.name}' has no kernels to program"
            + "".join(f"; {path}: {reason}" for path, reason in digital[:5])
            + ". Kernels are the weights of products, or weights of two or more "
            "dimensions named '...kernel'."
        )
    return chosen, digital


def _check_programmable(model, device, rules):
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`program` takes a built Keras model. Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    if getattr(model, "is_chip", False):
        raise ValueError(
            f"'{model.name}' is a chip already. Program the model that it was made "
            "from, or write the chip again: chip.write(seed)."
        )
    if not getattr(model, "built", False):
        raise ValueError(
            f"The model '{getattr(model, 'name', model)}' is not built, so it has no "
            "kernels to program. Call it once on a batch of inputs first."
        )
    if device is None and not rules:
        described = [
            k.hardware.hardware.device for k in find_kernels(model)[0] if k.hardware
        ]
        if not any(device is not None for device in described):
            raise ValueError(
                "`device` must be a device, its name or a noise, and may be None only "
                "where the `Hardware` of the model's kernels names one."
            )


def _check_finite(kernel, target):
    if not np.all(np.isfinite(ops.convert_to_numpy(target))):
        raise ValueError(
            f"The kernel '{kernel.path}' holds NaN or infinite values and cannot be "
            "programmed. Look for a diverged training run: a smaller learning rate or "
            "gradient clipping helps."
        )


def _tell_share(chip):
    """Say on the standard error stream how much of a model is on the chip."""
    on_tiles = [kernel.variable for kernel in chip.programmed_kernels()]
    matrices = [w for w in chip.weights if len(w.shape) >= 2]
    known = {id(variable) for variable in on_tiles}
    tiles = {id(w) for tile in chip.tiles for w in tile.weights}
    left = [w for w in matrices if id(w) not in known | tiles]
    if left:
        weights = [w for w in chip.weights if id(w) not in tiles]
        share = share_text(weights, on_tiles)
        print(
            f"{chip.name}: {share} are on the chip; chip.digital lists what is not.",
            file=sys.stderr,
        )
