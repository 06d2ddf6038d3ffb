"""Accuracy and power of a supernet's networks on memristor crossbars."""

from dataclasses import replace

import keras
import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.conversion.fold_batchnorm import fold_batchnorm
from hwa_keras.core import random
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Data
from hwa_keras.crossbar import Crossbar
from hwa_keras.deployment.batchnorm import adapt_batchnorm
from hwa_keras.devices import Memristor
from hwa_keras.search.design_space import Candidate
from hwa_keras.search.supernets.architecture import ArchitectureSpace
from hwa_keras.search.supernets.blocks import walk
from hwa_keras.search.supernets.masked_arrays import (
    DrivenArrays,
    NoisyArrays,
    with_tensors,
)
from hwa_keras.search.supernets.supernet import Supernet

__all__ = ["CrossbarAccuracyPower"]


class CrossbarAccuracyPower:
    """Accuracy and power of a candidate on memristors, by Monte Carlo on the supernet.

    A candidate is a configuration and a multiplier m of each layer's conductance range:
    its devices conduct up to g_u = m·g_u^d, with g_u^d that of the device. Then

    1. the batch-norm statistics of the configuration are estimated, without noise, from
       the calibration images (kept for other ranges of the same configuration);
    2. the accuracy is the mean over batches, each on devices that are written with a
       seed of its own: W̃ = W + z·σ/c with c = (g_u − g_min)/max|W|, the maximum over
       the weights that the network has (plus the clipping of conductances at 0);
    3. the power is the unit-free one of `profile.array_energy`, Σ f(x², g⁺ + g⁻) +
       Σ f(x, g⁺)² + Σ f(x, g⁻)², for one image, without noise.

    Each of the three is one function, compiled once for all configurations and ranges.
    Candidates see the same images and the same random numbers, so that they are
    compared with each other more precisely than their accuracies are known.

    Args:
        supernet: A `Supernet`. It is not changed.
        device: A `devices.Memristor`, or a `Crossbar` of them without limits of tiles,
            wires and converters. Its one g_u is g_u^d: leave room for multipliers above
            1 below `g_max`. With `per="network"` and `largest_weight=1.0` g is
            proportional to the weights themselves, as in the thesis.
        data: Pair `(images, labels)`, images in the largest resolution, integer labels.
        batches_accuracy: Integer ≥ 1, n_a. Defaults to `7`.
        batches_power: Integer ≥ 1, n_p. Defaults to `1`.
        batch_size: Integer ≥ 1. Defaults to `128`.
        calibration: Images for the batch-norm statistics, best of the training set;
            None for those of `data`, at most 1,000.
        batchnorm: `"folded"` into the kernels before it, as in the thesis, or
            `"digital"`, computed behind the crossbars. Defaults to `"folded"`.
        seed: Integer. Defaults to `0`.

    Attributes:
        directions: `{"accuracy": "max", "power": "min"}`.
        space: The `ArchitectureSpace`.
        compilations: Integer, how often one of the functions was traced so far.

    Call arguments:
        candidate: An object with a `config` and `multipliers`, one number for each of
            `space.layers`; those of layers that are not there do not matter.

    Returns:
        A dictionary, `{"accuracy": float, "power": float}`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the data has too few images, the crossbar has what masks cannot
            express, or (when called) a range is not in ]g_min, g_max].

    Example:
        >>> space = hwa_keras.search.spaces.small_cnn(resolution=(16,))
        >>> supernet = hwa_keras.search.Supernet(space)
        >>> x = np.random.default_rng(0).normal(size=(32, 16, 16, 1)).astype("float32")
        >>> device = hwa_keras.devices.Memristor(sigma=0.2, g_max=25.0, g_u=10.0)
        >>> objective = hwa_keras.search.CrossbarAccuracyPower(
        ...     supernet, device, (x, np.arange(32) % 10),
        ...     batches_accuracy=2, batch_size=16,
        ... )
        >>> ones = (1.0,) * len(space.layers)
        >>> found = objective(hwa_keras.search.Candidate(space.smallest, ones))
        >>> sorted(found)
        ['accuracy', 'power']

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 6.3. Its
          published code divides σ by c² where g_u is not the default.
    """

    directions = {"accuracy": "max", "power": "min"}

    def __init__(
        self,
        supernet: Supernet,
        device: Memristor | Crossbar,
        data: Data,
        batches_accuracy: int = 7,
        batches_power: int = 1,
        batch_size: int = 128,
        calibration: Data | None = None,
        batchnorm: str = "folded",
        seed: int = 0,
    ) -> None:
        if not isinstance(supernet, Supernet):
            raise TypeError(
                "`supernet` of CrossbarAccuracyPower must be a search.Supernet. "
                f"Received: {supernet!r}."
            )
        self.supernet = supernet
        self.device = _checked_device(device)
        check_count(
            "CrossbarAccuracyPower",
            batches_accuracy=batches_accuracy,
            batches_power=batches_power,
            batch_size=batch_size,
        )
        check_choice(
            "CrossbarAccuracyPower", ("folded", "digital"), batchnorm=batchnorm
        )
        self.batches_accuracy, self.batches_power = batches_accuracy, batches_power
        self.batchnorm = batchnorm
        self.seed = seed
        count = max(batches_accuracy, batches_power)
        self.batches = _batches(data, count, batch_size)
        images = data[0][:1000] if calibration is None else calibration
        self.calibration = np.asarray(images, "float32")
        self._begin()

    def _begin(self):
        self.compilations = 0
        self._statistics = {}
        self._accuracy = backend.traced(self._accuracy_of_batch)
        self._power = backend.traced(self._power_of_batch)
        self.written = backend.fuse(self._written)
        self._moving = [
            variable
            for layer in self.supernet.normalizations.values()
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        own = {id(v) for v in self._moving}
        self._fixed = [v for v in self.supernet.variables if id(v) not in own]

    def __getstate__(self):
        made = ("_", "written")  # By `_begin`, which makes them anew.
        return {k: v for k, v in vars(self).items() if not k.startswith(made)}

    def __setstate__(self, state):
        vars(self).update(state)
        self._begin()

    @property
    def space(self) -> ArchitectureSpace:
        return self.supernet.space

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        found = self.per_batch(candidate)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def per_batch(self, candidate: Candidate) -> dict[str, np.ndarray]:
        """Accuracy and power of a candidate on each batch, a dictionary of arrays."""
        genes = self.space.encode(candidate.config).astype("int32")
        g_u = self._ranges(candidate).astype("float32")
        fixed = [v.value for v in self._fixed]
        state = fixed, self._statistics_of(candidate.config), genes, g_u
        accuracies = [
            self._accuracy(*state, random.fold_in(random.seed_from(self.seed), i), x, y)
            for i, (x, y) in enumerate(self.batches[: self.batches_accuracy])
        ]
        powers = [self._power(*state, x) for x, _ in self.batches[: self.batches_power]]
        return {
            name: np.array([float(value) for value in values])
            for name, values in (("accuracy", accuracies), ("power", powers))
        }

    def extract(self, candidate: Candidate) -> keras.Model:
        """The plain Keras model that a candidate stands for.

        Its batch-norm statistics are those that the objective estimated, folded into
        the kernels if the objective says so.
        """
        model = self.supernet.extract(candidate.config)
        statistics = dict(
            zip(
                (variable.path for variable in self._moving),
                self._statistics_of(candidate.config),
                strict=True,
            )
        )
        for name, layer in self.supernet.normalizations.items():
            if any(name == own.name for own in model.layers):
                own = model.get_layer(layer.name)
                for attribute in ("moving_mean", "moving_variance"):
                    value = statistics[getattr(layer, attribute).path]
                    variable = getattr(own, attribute)
                    variable.assign(ops.convert_to_numpy(value)[: variable.shape[0]])
        if self.batchnorm == "folded":
            model = fold_batchnorm(model, verbose=0)
        return model

    def crossbar(self, candidate: Candidate) -> Crossbar:
        """The `Crossbar` for the extracted model of a candidate, with its ranges."""
        there = self.space.active(candidate.config)
        ranges = tuple(float(g) for g in self._ranges(candidate)[there])
        return Crossbar(replace(self.device, g_u=ranges))

    def _ranges(self, candidate):
        """g_u of each layer, µS; the device's own where there is no layer."""
        multipliers = np.asarray(candidate.multipliers, "float64")
        if multipliers.shape != (len(self.space.layers),):
            raise ValueError(
                f"A candidate has a multiplier for each of the {len(self.space.layers)}"
                f" layers of the largest network. Received: {multipliers.shape}."
            )
        there = self.space.active(candidate.config)
        g_u = np.where(there, multipliers, 1.0) * self.device.g_u
        is_wrong = ~((g_u > self.device.g_min) & (g_u <= self.device.g_max))
        if is_wrong.any():
            i = int(np.argmax(is_wrong))
            raise ValueError(
                "The range g_u = multiplier · g_u of the device must be above g_min = "
                f"{self.device.g_min} and at most g_max = {self.device.g_max} µS. "
                f"Received: {multipliers[i]} · {self.device.g_u} for "
                f"'{self.space.layers[i]}'."
            )
        return g_u

    def _statistics_of(self, config):
        """The batch-norm statistics of a configuration, without noise."""
        key = self.space.encode(config).tobytes()
        if key not in self._statistics:
            kept = [self.supernet.genes, *self._moving]
            before = [ops.convert_to_numpy(variable) for variable in kept]
            self.supernet.configure(config)
            size = len(self.calibration)
            adapt_batchnorm(self.supernet, self.calibration, 0.0, 1, size)
            found = [ops.convert_to_numpy(variable) for variable in self._moving]
            for variable, value in zip(kept, before, strict=True):
                variable.assign(value)
            self._statistics[key] = [ops.convert_to_tensor(v) for v in found]
        return self._statistics[key]

    def _written(self, weights, seed, ranges):
        """Weights as devices hold them, `ranges` their own attributes as tensors."""
        return with_tensors(self.device, ranges).perturb(weights, seed)

    def _accuracy_of_batch(self, fixed, statistics, genes, g_u, seed, x, y):
        self.compilations += 1

        def logits(images):
            arrays = NoisyArrays(self, genes, g_u, seed)
            return walk(self.space, arrays.masked, images)

        y_pred = self._with(fixed, statistics, genes, x, logits)
        return ops.mean(ops.cast(ops.equal(ops.argmax(y_pred, -1), y), "float32"))

    def _power_of_batch(self, fixed, statistics, genes, g_u, x):
        self.compilations += 1

        def power(images):
            arrays = DrivenArrays(self, genes, g_u)
            walk(self.space, arrays.masked, images)
            return arrays.power / ops.cast(ops.shape(images)[0], "float32")

        return self._with(fixed, statistics, genes, x, power)

    def _with(self, fixed, statistics, genes, x, function):
        """A function of images at the resolution of a network, at given weights."""
        variables = [*self._fixed, *self._moving]
        values = list(zip(variables, [*fixed, *statistics], strict=True))
        found, _, _ = stateless(
            self.supernet,
            values,
            lambda: self.supernet.at_resolution(x, genes, function),
        )
        return found


def _checked_device(device):
    """The `Memristor` of a crossbar of which a supernet's masks can tell all."""
    if isinstance(device, Crossbar):
        names = ("tile", "wire", "dac", "adc", "output_noise", "v_read", "t_read")
        for name in names:
            if getattr(device, name, None) is not None:
                raise ValueError(
                    f"CrossbarAccuracyPower knows devices alone, and the crossbar has "
                    f"{name}={getattr(device, name)!r}. Leave it out, or evaluate "
                    "supernet.extract(config) with `program` and `array_energy`."
                )
        device = device.device
    if not isinstance(device, Memristor) or isinstance(device.g_u, tuple):
        raise TypeError(
            "`device` of CrossbarAccuracyPower must be a devices.Memristor with one "
            f"g_u, or a Crossbar of such devices. Received: {device!r}."
        )
    if not device.mapping.is_independent:
        raise ValueError(
            "`device` of CrossbarAccuracyPower must hold each weight in devices of its "
            f"own, as Pairs() does. Received: mapping={device.mapping!r}."
        )
    return device


def _batches(data, count, size):
    """Pairs of images and labels, all of one size."""
    try:
        x, y = data
    except (TypeError, ValueError):
        raise TypeError(
            "`data` of CrossbarAccuracyPower must be a pair (images, labels). "
            f"Received: {type(data).__name__}."
        ) from None
    x, y = np.asarray(x, "float32"), np.asarray(y)
    y = y.reshape(-1) if y.shape[1:] == (1,) else y
    if y.shape != x.shape[:1]:
        raise ValueError(
            "Labels of CrossbarAccuracyPower are one integer for each image. Received: "
            f"{y.shape} for {len(x)} images."
        )
    if len(x) < count * size:
        raise ValueError(
            f"{count} batches of {size} need {count * size} images. Received: {len(x)}."
        )
    starts = range(0, count * size, size)
    return [(x[i : i + size], y[i : i + size].astype("int32")) for i in starts]
