"""Variation: the kernels of chips as a noise leaves them."""

import functools
from dataclasses import dataclass

import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras import noise as noise_family
from hwa_keras.analysis.chip_bench import ChipBench, evaluate_in_one_call
from hwa_keras.core import random
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices.device import Device


@dataclass(frozen=True)
class Exact(Device):
    """Holds what is written to it: the imperfection comes from what is written."""

    drifts = False
    is_array = False  # As a noise, it has each kernel as one matrix.

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


class Variation:
    """What the tiles of a chip hold, given its seed and how strong the noise is.

    It is what `Chip.write` leaves with the noise as the device, so that a chip at one
    strength has the draws that it has at another.

    Args:
        chip: A `Chip` of `Exact` devices, not written yet.
        noise: A `Noise`, or a function from a `HardwareKernel` to its `Noise`.
    """

    def __init__(self, chip, noise):
        own = noise.for_kernel if isinstance(noise, noise_family.Noise) else noise
        self.noises = [own(tile.kernel()) for tile in chip.tiles]
        self.targets = [ops.copy(tile.targets.value) for tile in chip.tiles]
        # One graph per noise, which relaxed shapes would lose, and not one per call,
        # as `ops.cond` would be on JAX. A partial: TensorFlow counts the traces of a
        # method of all objects together.
        graphs = {
            id(n): backend.traced(functools.partial(type(n).perturb, n))
            for n in self.noises
        }
        self._perturb = [graphs[id(n)] for n in self.noises]

    def __call__(self, factor, seed):
        """What the chip of a seed holds, the scale of the noise times a factor."""
        base = random.seed_from(seed)
        varied = []
        for i, target in enumerate(self.targets):
            own = random.fold_in(random.fold_in(base, i), 0)
            # An argument: a compiled graph may hold a variable as a constant.
            strength = self.noises[i].strength(factor, chip=own)
            varied.append(self._perturb[i](target, own, strength))
        return varied

    def leaves(self, varied):
        """Whether what was varied is as it was, to the bit."""
        return all(
            np.array_equal(ops.convert_to_numpy(v), ops.convert_to_numpy(t))
            for v, t in zip(varied, self.targets, strict=True)
        )


def exact_chip(study):
    """A chip of a study's model that holds what is written to it, not written yet."""
    chip = blank_chip(study.model, Exact(), "none", "off", verbose=study.verbose)
    evaluate_in_one_call(chip)
    return chip


class VariedBench(ChipBench):
    """A chip of `Exact` devices, which is written with varied weights at each point.

    Args:
        chip: What `exact_chip` gives.
        study: A `ChipStudy`.
        noise: As of `Variation`.
    """

    def __init__(self, chip, study, noise):
        super().__init__(chip, study)
        self.variation, self.seed, self.settings = Variation(chip, noise), None, {}

    def write(self, seed):
        self.seed = seed

    def varied(self, point):
        """List of tensors: what the tiles hold at a point."""
        raise NotImplementedError

    def put(self, point):
        pairs = zip(self.model.tiles, self.varied(point), strict=True)
        for tile, weights in pairs:
            # JAX would share, and then donate, it.
            tile.targets.assign(ops.copy(weights))
        self.model.write(self.seed)
