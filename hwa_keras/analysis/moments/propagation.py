"""Moments: means and variances of a network's outputs over chips, layer by layer."""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from hwa_keras.analysis.moments.covariance import Budget
from hwa_keras.analysis.moments.graph import Step, steps_of
from hwa_keras.analysis.moments.joint import Joint
from hwa_keras.analysis.moments.noise import Places
from hwa_keras.analysis.moments.rules import apply_rule
from hwa_keras.core.types import ArrayLike, Tensor

__all__ = ["output_moments", "propagated"]

# Bytes of a covariance of several examples, past which larger batches gain nothing.
_WORKING = 2**27


def output_moments(
    model: keras.Model,
    weights: Mapping[int, tuple[Tensor, Tensor]],
    inputs: Sequence[ArrayLike],
    max_bytes: int,
    terms: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean and variance of the output of a model whose weights are random.

    Args:
        model: A built sequential or functional model with one output.
        weights: Dictionary from the ids of its `HardwareKernel`s to pairs of tensors of
            the kernel's shape: the means and the variances of independent weights.
        inputs: List of arrays `[examples, ...]`, in the order of the model's inputs.
        max_bytes: Integer, the most bytes that the covariance of one example may take.
        terms: How many terms of the series of a ReLU; see `rectified_covariance`.

    Returns:
        Two NumPy arrays of the shape of the outputs.

    Raises:
        ValueError: If a layer has no known rule, serves twice, or a covariance does not
            fit.
    """
    steps, numbers, [output] = steps_of(model)
    _check_used_once(steps, weights)
    inputs = [ops.cast(ops.convert_to_tensor(x), "float32") for x in inputs]
    shapes = {n: tuple(x.shape[1:]) for n, x in zip(numbers, inputs, strict=True)}
    shapes.update((step.output, step.shape) for step in steps)
    budget, places = Budget(max_bytes), Places()
    examples, found = int(inputs[0].shape[0]), []
    size = _batch_size(shapes, examples, min(max_bytes, _WORKING))
    for i in range(0, examples, size):
        batch = dict(zip(numbers, (x[i : i + size] for x in inputs), strict=True))
        moments = propagated(steps, batch, output, weights, budget, terms, places)
        found.append([ops.convert_to_numpy(m) for m in moments])
    means, variances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return means, variances


def _are_known(shapes):
    return not any(None in shape for shape in shapes.values())


def _batch_size(shapes, examples, working):
    """Examples that run at once, in batches about as large as each other."""
    if not _are_known(shapes):
        return 1
    largest = 4 * max(math.prod(shape) for shape in shapes.values()) ** 2
    batches = -(-examples // max(1, working // largest))
    return -(-examples // batches)


def propagated(
    steps: Sequence[Step],
    inputs: Mapping[int, Tensor],
    output: int,
    weights: Mapping[int, tuple[Tensor, Tensor]],
    budget: Budget,
    terms: int = 2,
    places: Places | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean and variance of one tensor of a network, given exact inputs.

    A pure function of tensors, differentiable in the moments of the weights.

    Args:
        steps: List of `Step`s.
        inputs: Dictionary from the numbers of the inputs to tensors `[examples, ...]`.
        output: The number of the tensor.
        weights: As in `output_moments`.
        budget: A `Budget`.
        terms: As in `output_moments`.
        places: A `Places`, or None for a new one. One that a first run has filled lets
            the next be traced.

    Returns:
        Two tensors of the shape of the output.
    """
    joint = Joint(budget, places)
    for number, value in inputs.items():
        joint.put(number, value)
    for i, step in enumerate(steps):
        later = {n for following in steps[i + 1 :] for n in following.inputs}
        joint.kept = later & set(joint.means)
        budget.layer = getattr(step.operation, "name", type(step.operation).__name__)
        apply_rule(joint, step, weights, terms)
        for number in set(joint.means) - later - {output, step.output}:
            joint.drop(number)
    mean, own = joint.means[output], joint.covariance(output, output)
    if own is None:
        return mean, ops.zeros_like(mean)
    return mean, ops.reshape(own.variance(), ops.shape(mean))


def _check_used_once(steps, weights):
    seen = set()
    for step in steps:
        kernels = getattr(step.operation, "hardware_kernels", ())
        used = {id(k.variable) for k in kernels if id(k) in weights}
        if used & seen:
            raise ValueError(
                f"'{step.operation.name}' serves twice with the same devices, whose "
                "noise then acts at two places together: no rule for its moments is "
                "known. Use method='delta', which takes any architecture."
            )
        seen |= used
