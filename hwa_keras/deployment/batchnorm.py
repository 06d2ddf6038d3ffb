"""adapt_batchnorm: statistics that fit the chip as it is now (AdaBS)."""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.core import random
from hwa_keras.core.keras_private import become
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Data

__all__ = ["adapt_batchnorm", "calibration_batches", "reestimate"]

_REMAINDER = 0.015  # What the old statistics count for after all batches.


def adapt_batchnorm(
    model: keras.Model,
    calibration: Data,
    momentum: float | None = None,
    batches: int = 13,
    batch_size: int = 200,
) -> keras.Model:
    """Re-estimate the batch-norm statistics of a model on hardware (AdaBS).

    Drift and noise shift and scale what reaches a batch normalization, whose moving
    mean and variance stay those of the training. Here each batch of calibration
    inputs is run through the model once, every batch-norm layer normalizes with the
    statistics of the batch, and

        moving ← momentum·moving + (1 − momentum)·statistic of the batch.

    It takes no labels and no gradients, and changes nothing else: all other layers
    are as at inference (no dropout). A `Chip` runs as it is, at its time `t` and with
    its read noise, and the statistics are its own copies; `Chip.write` undoes the
    change. A model with hardware layers draws its training noise anew for each batch.
    Of any Keras model, frozen batch-norm layers are re-estimated too.

    Args:
        model: A built Keras model with batch normalization: a `Chip` or any
            other. It is changed in place.
        calibration: Inputs, best in random order: an array, or arrays in a list or
            dictionary for a model with several inputs; or a dataset or other iterable
            of batches, of inputs or of tuples `(inputs, targets)`.
        momentum: Float in [0, 1), of each batch. Defaults to 0.015^(size of the batch
            / size of all), so that the old statistics count for 1.5 % in the end, and a
            rest of a batch for less than a whole one.
        batches: Integer ≥ 1, the largest number of batches. Defaults to `13`.
        batch_size: Integer ≥ 1, for arrays: the largest number of inputs in a batch.
            Fewer inputs than `batches·batch_size` make fewer batches, of equal size;
            a rest of fewer inputs than batches is left out. Defaults to `200`, with
            13 batches 5.2 % of CIFAR-10's training set.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is no Keras model or `calibration` holds no batches.
        ValueError: If the model is not built or has no batch normalization, the
            calibration data is empty, or an argument is out of its range.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(4),
        ...     keras.layers.BatchNormalization(),
        ... ])
        >>> chip = hwa_keras.program(model, "pcm", seed=1)
        >>> chip.t = 31_536_000.0
        >>> x = np.random.default_rng(0).normal(size=(400, 8))
        >>> hwa_keras.adapt_batchnorm(chip, x) is chip
        True

    Reference:
        - Joshi et al., 2020, arXiv:1906.03138: adaptive batch normalization
          statistics.
    """
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must be in [0, 1). Received: {momentum!r}.")
    inputs = calibration_batches(calibration, batches, batch_size)
    return reestimate(model, inputs, momentum)


def calibration_batches(calibration, batches=13, batch_size=200):
    """Make a list of batches of inputs of what `adapt_batchnorm` takes.

    Args:
        calibration: As in `adapt_batchnorm`.
        batches: Integer ≥ 1, the largest number of batches.
        batch_size: Integer ≥ 1, for arrays.

    Returns:
        List of tensors, or of nested structures of them: one per batch.
    """
    for name, value in (("batches", batches), ("batch_size", batch_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"`{name}` must be an integer ≥ 1. Received: {name}={value!r}."
            )
    nested = isinstance(calibration, (list, tuple, dict))
    if nested or hasattr(calibration, "shape"):
        found = _slices(calibration, batches, batch_size)
    elif hasattr(calibration, "__iter__"):
        found = [
            batch[0] if isinstance(batch, tuple) else batch
            for batch in itertools.islice(iter(calibration), batches)
        ]
    else:
        raise TypeError(
            "`calibration` must be an array of inputs, arrays in a list or dictionary, "
            "or an iterable of batches. Received: "
            f"{calibration!r} of type {type(calibration).__name__}."
        )
    if not found:
        raise ValueError("`calibration` is empty: there are no inputs to run.")
    return [keras.tree.map_structure(ops.convert_to_tensor, batch) for batch in found]


def _slices(arrays, batches, batch_size):
    leaves = keras.tree.flatten(arrays)
    if not all(getattr(leaf, "shape", ()) for leaf in leaves):
        raise TypeError(
            "`calibration` must hold arrays with a dimension of examples. Received: "
            f"{[type(leaf).__name__ for leaf in leaves]}. Batches are given as a "
            "dataset or a generator."
        )
    sizes = {int(leaf.shape[0]) for leaf in leaves}
    if len(sizes) > 1:
        raise ValueError(
            "The arrays of `calibration` must hold the same number of examples. "
            f"Received: {sorted(sizes)}."
        )
    used = min(sizes.pop() if sizes else 0, batches * batch_size)
    count = -(-used // batch_size)
    # All of one size: the last batch counts most, and a rest would be a poor sample.
    size = used // max(count, 1)
    return [
        keras.tree.map_structure(lambda a, i=i: a[i * size : (i + 1) * size], arrays)
        for i in range(count)
    ]


def reestimate(model, inputs, momentum=None):
    """Re-estimate the batch-norm statistics of a model from a list of batches.

    The computation is compiled once for a model and kept on it.

    Args:
        model: As in `adapt_batchnorm`.
        inputs: What `calibration_batches` returned.
        momentum: As in `adapt_batchnorm`.

    Returns:
        The model.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`model` must be a Keras model. Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    calibration = getattr(model, "_calibration", None)
    if calibration is None or calibration.key != _key(model):
        calibration = model._calibration = _Calibration(model)
    calibration.run(inputs, _momenta(inputs) if momentum is None else momentum)
    return model


def _momenta(inputs):
    """The momentum of each batch, by its share of the examples."""
    sizes = [int(keras.tree.flatten(batch)[0].shape[0]) for batch in inputs]
    return [_REMAINDER ** (size / sum(sizes)) for size in sizes]


def _key(model):
    """What a compiled calibration depends on."""
    return getattr(model, "read_noise", None), [id(w) for w in model.weights]


class _Calibration:
    """One batch's move of the statistics of a model, compiled.

    It runs a second structure around the model's variables, whose batch-norm layers
    move; the model's own layers are left as they are. A plain object: as an attribute
    of the model it is neither tracked nor exported.
    """

    def __init__(self, model):
        if not model.built:
            raise ValueError(
                f"The model '{model.name}' is not built. Call it once on a batch of "
                "inputs first."
            )
        self.key = _key(model)
        self.twin = replicate(model, share_variables=True)
        self.layers = [
            layer
            for layer in self.twin._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if not self.layers:
            raise ValueError(
                f"The model '{model.name}' has no BatchNormalization layers, so there "
                "are no statistics to adapt."
            )
        for layer in self.layers:
            become(layer, _moving(type(layer)))
            # A frozen layer normalizes with its moving statistics, and batch
            # renormalization with those and the batch's.
            layer._trainable, layer.renorm = True, False
        self.statistics = [
            variable
            for layer in self.layers
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        self.seeds = [
            v
            for v in model.variables
            if random.is_seed_state(v) or v.name == "read_seed"  # Of a chip's tile.
        ]
        moving = {id(variable) for variable in self.statistics + self.seeds}
        self.fixed = [w for w in model.weights if id(w) not in moving]
        # A partial: TensorFlow counts the traces of a method of all objects together.
        self.step = backend.traced(functools.partial(_Calibration._step, self))

    def run(self, inputs, momentum):
        momenta = np.broadcast_to(np.asarray(momentum, "float32"), len(inputs))
        moving = self.statistics + self.seeds
        values = [variable.value for variable in moving]
        fixed = [ops.convert_to_tensor(variable.value) for variable in self.fixed]
        for batch, own in zip(inputs, momenta, strict=True):
            values = self.step(values, fixed, ops.convert_to_tensor(own), batch)
        for variable, value in zip(moving, values, strict=True):
            variable.assign(value)

    def _step(self, moving, fixed, momentum, inputs):
        """The statistics and seeds after a batch, as a pure function."""
        variables = self.statistics + self.seeds + self.fixed
        values = list(zip(variables, [*moving, *fixed], strict=True))
        for layer in self.layers:
            dtype = keras.backend.result_type(layer.compute_dtype, "float32")
            layer.momentum = ops.cast(momentum, dtype)
        is_chip = getattr(self.twin, "is_chip", False)
        with hardware_mode(kernels=None if is_chip else "noisy"):
            _, updates, _ = stateless(
                self.twin, values, lambda: self.twin(inputs, training=False)
            )
        assigned = {id(variable): new for variable, new in updates}
        return [
            assigned.get(id(variable), old)
            for variable, old in zip(variables, moving, strict=False)
        ]


@functools.cache
def _moving(cls):
    """The class of batch-norm layers that move whatever the pass."""

    def call(self, inputs, training=None, mask=None):
        return cls.call(self, inputs, training=True, mask=mask)

    return type(f"Moving{cls.__name__}", (cls,), {"call": call})
