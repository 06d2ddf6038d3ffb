"""Variation: the kernels of chips as a noise leaves them."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from hwa_keras import backend, random
from hwa_keras import noise as noise_family
from hwa_keras.deployment.batchnorm import reestimate
from hwa_keras.devices.device import Device
from hwa_keras.kernels import equipment


@dataclass(frozen=True)
class Exact(Device):
    """Holds what is written to it: the imperfection comes from what is written."""

    def program(self, weights, seed):
        return {"weights": weights}

    def read(self, state, t, z=None):
        return state["weights"] + 0.0 * t


def checked_noise(noise):
    """A noise from a noise or its name, or a `TypeError` that says what it is."""
    found = noise_family.get(noise)
    if not isinstance(found, noise_family.Noise):
        raise TypeError(
            "`noise` must be a hwa_keras noise, its name or None. Received: "
            f"{noise!r} of type {type(noise).__name__}."
        )
    return found


def noises_of(chip, model, noise):
    """The noises of the kernels of a chip, one per tile.

    Args:
        chip: A `Chip`.
        model: The model that it was made from, which knows the quantizers.
        noise: A `Noise`, or a function from the path of a kernel, its quantizer and
            the noise that it was trained with (both may be None) to a `Noise`.
    """
    equipped = equipment(model)
    weights = chip.structure.weights
    found = []
    for tile in chip.tiles:
        path = tile.path_in_model
        quantizer, own = equipped.get(id(weights[tile.index]), (None, None))
        if isinstance(noise, noise_family.Noise):
            found.append(noise.for_kernel(path, quantizer))
        else:
            found.append(noise(path, quantizer, own))
    return found


class Variation:
    """The kernels of a chip, given its seed and how strong the noise is.

    They are what `Chip.write` leaves with the noise as the device, so that a chip at
    one strength has the draws that it has at another.

    Args:
        kernels: List of tensors, the targets.
        noises: List of `Noise`s, one per kernel.
    """

    def __init__(self, kernels, noises):
        self.kernels = [ops.cast(kernel, "float32") for kernel in kernels]
        self.noises = noises
        # One graph per noise and rank, which relaxed shapes would lose, and not one per
        # call, as `ops.cond` would be on JAX.
        keys = [(id(n), len(w.shape)) for n, w in zip(noises, kernels, strict=True)]
        graphs = {
            key: backend.traced(noise.perturb)
            for key, noise in dict(zip(keys, noises, strict=True)).items()
        }
        self._perturb = [graphs[key] for key in keys]

    def __call__(self, factor, seed):
        """The kernels of the chip of a seed, the scale of the noise times a factor."""
        base = random.seed_from(seed)
        varied = []
        for i, kernel in enumerate(self.kernels):
            own = random.fold_in(random.fold_in(base, i), 0)
            # An argument: a compiled graph may hold a variable as a constant.
            strength = self.noises[i].strength(factor, chip=own)
            varied.append(self._perturb[i](kernel, own, strength))
        return varied

    def leaves(self, varied):
        """Whether what was varied is as it was, to the bit."""
        return all(
            np.array_equal(ops.convert_to_numpy(v), ops.convert_to_numpy(k))
            for v, k in zip(varied, self.kernels, strict=True)
        )


def measured(chip, kernels, seed, data, calibration=None):
    """Write kernels to a chip and evaluate it.

    Args:
        chip: A `Chip` of `Exact` devices.
        kernels: List of tensors, one per tile.
        seed: Integer, the seed of the chip.
        data: Dictionary, the arguments of `evaluate`.
        calibration: Batches to adapt the batch-norm statistics to, or None.

    Returns:
        A dictionary from the names of metrics to floats.
    """
    chip.write(kernels, seed)
    if calibration is not None:
        reestimate(chip, calibration)
    return chip.evaluate(**data, return_dict=True, verbose=0)
