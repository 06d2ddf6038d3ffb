"""Robustness: what a metric loses on imperfect weights, and what goes with it."""

from dataclasses import dataclass

import numpy as np
import scipy.stats

from hwa_keras.analysis.variation import Exact, Variation, checked_noise, measured
from hwa_keras.conversion.hardware_model import HardwareModel
from hwa_keras.conversion.rules import resolved_skip
from hwa_keras.core.checks import check_count
from hwa_keras.core.kernels import kernels_of
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.deployment.batchnorm import calibration_batches
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.deployment.sweep import (
    check_compiled,
    chosen_metric,
    evaluable,
    progress_bar,
)
from hwa_keras.noise import MultiplicativeGaussian
from hwa_keras.quantizers import Uniform
from hwa_keras.results import Axis, Result

__all__ = ["Correlation", "correlation", "quantization_curve", "robustness_curve"]


def robustness_curve(
    model,
    data,
    sigmas=(0.0, 0.1, 0.2, 0.3, 0.4),
    repeats=10,
    noise=None,
    calibration=None,
    metric=None,
    seed=0,
    batch_size=256,
    verbose=1,
):
    """Measure a model on chips whose conductances vary more and more.

    Every kernel is replaced by W̃ = W·(1 + σ_c·z) with z standard normal, drawn once
    per chip: σ_c is the conductance variation. All levels are measured on the same
    chips, whose z stay while σ_c grows, so that the curve is paired along its levels,
    and with that of another model of the same shapes. All evaluations share one
    compiled graph. At σ_c = 0 one sample suffices, and is all that is taken, where
    the noise leaves the kernels as they are.

    Args:
        model: A built and compiled Keras model, as `hwa_keras.program` takes it:
            kernels on hardware are those quantized as in training. It is not changed.
        data: What to evaluate on: a pair of arrays `(x, y)`, or anything else that
            `model.evaluate` takes as one argument, such as a batched
            `tf.data.Dataset`.
        sigmas: List of floats ≥ 0, the values of σ_c. Defaults to those of the thesis.
        repeats: Integer ≥ 1, the number of chips. Defaults to `10`.
        noise: A `hwa_keras.noise.Noise` or its name: another noise, whose scale is
            multiplied by each of `sigmas`. None means
            `MultiplicativeGaussian(std=1.0)`. `BitFlip(0.5)` flips bits with
            probability σ/2; its kernels need quantizers.
        calibration: Inputs, as `hwa_keras.adapt_batchnorm` takes them, on which the
            batch-norm statistics of each chip are re-estimated before it is
            evaluated (AdaBS); or None.
        metric: Name of the compiled metric (or `"loss"`) that tables and plots show.
            Defaults to the first metric, else the loss. All are measured.
        seed: Integer, the seed of the first chip: chip i is the one that
            `hwa_keras.program(model, noise, seed=seed + i)` gives. Defaults to `0`.
        batch_size: Integer, for arrays. Defaults to `256`.
        verbose: 0 or 1, whether to show a progress bar (in a log: one line at the
            end). Defaults to `1`.

    Returns:
        A `Result` over σ_c, with `repeats` chips at each level.

    Raises:
        TypeError: If `noise` is no noise of hwa_keras.
        ValueError: If the model is not compiled, the data is empty, an argument is
            out of its range, or the noise does not suit a kernel.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> curve = hwa_keras.analysis.robustness_curve(
        ...     model, data, sigmas=[0.0, 0.4], repeats=3, verbose=0
        ... )
        >>> curve.values(0.0).shape, curve.values(0.4).shape
        ((1,), (3,))

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.38 (the
          variation) and section 5.4 (σ_c from 0 to 0.4, ten repeats).
    """
    sigmas = _checked_sigmas(sigmas)
    check_count("robustness_curve", repeats=repeats)
    quantity = "conductance variation σ_c"
    if noise is None:
        noise = MultiplicativeGaussian(std=1.0)
    else:
        noise = checked_noise(noise)
        quantity = f"scale of {type(noise).__name__}"
    chip = blank_chip(model, Exact(), "none", "off", verbose=verbose)
    check_compiled(chip, model)
    variation = Variation(chip, noise)
    data = evaluable(data, batch_size)
    if calibration is not None:
        calibration = calibration_batches(calibration)
    bar = progress_bar(len(sigmas) * repeats, verbose)
    samples = {}
    for sigma in sigmas:
        chips = samples[sigma,] = {}
        for i in range(repeats):
            varied = variation(sigma, seed + i)
            chips[i] = measured(chip, varied, seed + i, data, calibration)
            metric = chosen_metric(metric, chips[i])
            if sigma == 0 and variation.leaves(varied):
                bar.add(repeats)
                break
            bar.add(1)
    axis = Axis("sigma", sigmas, label=quantity)
    return Result(model.name, metric, [axis], samples, {"seed": seed})


def _checked_sigmas(sigmas):
    sigmas = [float(sigma) for sigma in sigmas]
    if not sigmas or not all(0 <= sigma < np.inf for sigma in sigmas):
        raise ValueError(
            "`sigmas` must be one or more finite numbers ≥ 0. Received: "
            f"sigmas={sigmas}."
        )
    return sigmas


def quantization_curve(
    model,
    data,
    bits=(8, 7, 6, 5, 4),
    skip=("first",),
    metric=None,
    batch_size=256,
    verbose=1,
):
    """Measure a model whose kernels are quantized ever more coarsely, untrained for it.

    A kernel is rounded to the uniform, symmetric grid of b-bit signed codes from
    −(2^(b−1) − 1) to 2^(b−1) − 1, the largest code at the largest magnitude of the
    kernel. Biases, normalization and embeddings keep their precision. All evaluations
    share one compiled graph.

    Args:
        model: A built and compiled Keras model. Of a model that `to_hwa` converted,
            the kernels in full precision are rounded, in place of what its quantizers
            give; converters stay. Layers that were built with a quantizer of their
            own keep it. The model is not changed.
        data: What to evaluate on, as in `robustness_curve`.
        bits: List of integers ≥ 2, the bits per weight.
        skip: Layers that keep their precision, as in `hwa_keras.to_hwa`. Defaults to
            the first layer with a kernel.
        metric: Name of the compiled metric (or `"loss"`) that tables and plots show.
            Defaults to the first metric, else the loss. All are measured.
        batch_size: Integer, for arrays. Defaults to `256`.
        verbose: 0 or 1, as in `robustness_curve`. Defaults to `1`.

    Returns:
        A `Result` over the bits per weight, with one sample at each level: nothing in
        it is random. Results of models that were trained from different seeds give
        the spread.

    Raises:
        ValueError: If the model is not compiled or is a chip, no kernel is left to
            round, the data is empty or an argument is out of its range.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(3)
        ... ])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> curve = hwa_keras.analysis.quantization_curve(
        ...     model, data, bits=[8, 4], verbose=0
        ... )
        >>> curve.levels
        [8, 4]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.5.1.
    """
    bits = list(bits)
    if not bits or not all(isinstance(b, (int, np.integer)) and b >= 2 for b in bits):
        raise ValueError(
            f"`bits` must be one or more integers ≥ 2. Received: bits={bits}."
        )
    check_compiled(model, model)
    twin = replicate(model)
    rounded, quantized = _kernels_to_round(twin, skip)
    for kernel in quantized:
        kernel.variable.assign(kernel.target())
    exact = [(kernel.variable, kernel.variable.numpy()) for kernel in rounded]
    data = evaluable(data, batch_size)
    bar = progress_bar(len(bits), verbose)
    samples = {}
    for b in bits:
        quantizer = Uniform(levels=2 ** (b - 1), scale="max")
        for variable, value in exact:
            variable.assign(quantizer(value))
        with hardware_mode(kernels="final"):
            found = twin.evaluate(**data, return_dict=True, verbose=0)
        metric = chosen_metric(metric, found)
        samples[int(b),] = {0: found}
        bar.add(1)
    return Result(
        model.name, metric, [Axis("bits", bits, label="bits per weight")], samples
    )


def _kernels_to_round(model, skip):
    """A pair of lists of `Kernel`s: those to round, and those quantized in layers."""
    if getattr(model, "is_chip", False):
        raise ValueError(
            f"'{model.name}' is a chip, whose kernels are what its devices hold. Give "
            "the model that was programmed."
        )
    kernels = kernels_of(model)
    skipped = resolved_skip(skip, kernels)
    # `to_hwa` lists there what it has found on hardware already.
    built_so = dict(model.digital) if isinstance(model, HardwareModel) else None
    rounded, quantized = [], []
    for kernel in kernels:
        own = built_so is None or kernel.layer_path in built_so
        if kernel.quantizer is not None and own:
            quantized.append(kernel)
        elif not kernel.digital and not any(matched(kernel) for matched, _ in skipped):
            rounded.append(kernel)
    if not rounded:
        raise ValueError(
            f"The model '{model.name}' has no kernel left to round: `skip` and layers "
            f"with quantizers of their own leave none. Received: skip={skip!r}."
        )
    return rounded, quantized


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two quantities over a set of models.

    Args:
        r: Float in [−1, 1], the coefficient.
        p: Float, the probability of an |r| as large without any correlation.
        low: Lower end of the 95 % interval of r.
        high: Upper end of the 95 % interval of r.
        count: Integer, the number of models.

    Example:
        >>> found = hwa_keras.analysis.correlation([1.0, 2.0, 3.0], [1.0, 2.0, 2.5])
        >>> isinstance(found, hwa_keras.analysis.Correlation)
        True
    """

    r: float
    p: float
    low: float
    high: float
    count: int


def correlation(sharpness, robustness):
    """Tell whether flat minima and robustness go together over a set of models.

    The thesis takes as the robustness of a model what it loses: the difference of its
    metric between σ_c = 0 and σ_c = 0.4, as in
    `curve.estimate(0.0).mean - curve.estimate(0.4).mean`.

    Args:
        sharpness: Sequence of floats, one per model.
        robustness: Sequence of floats, one per model, in the same order.

    Returns:
        A `Correlation`. Its p-value and interval hold for normally distributed
        quantities; from three models the interval is all of [−1, 1].

    Raises:
        ValueError: If the sequences differ in length, tell of fewer than three
            models, are constant, or hold NaN or infinite values.

    Example:
        >>> found = hwa_keras.analysis.correlation(
        ...     [0.10, 0.14, 0.22, 0.31, 0.35], [0.02, 0.05, 0.06, 0.11, 0.10]
        ... )
        >>> round(found.r, 3), round(found.p, 3), found.count
        (0.956, 0.011, 5)

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.4.4 and
          table 5.10.
    """
    given = {"sharpness": sharpness, "robustness": robustness}
    first, second = (_checked_sequence(name, value) for name, value in given.items())
    if len(first) != len(second):
        raise ValueError(
            "`sharpness` and `robustness` must have one number per model each. "
            f"Received: {len(first)} and {len(second)} numbers."
        )
    found = scipy.stats.pearsonr(first, second)
    interval = found.confidence_interval(0.95)
    return Correlation(
        float(found.statistic),
        float(found.pvalue),
        float(interval.low),
        float(interval.high),
        len(first),
    )


def _checked_sequence(name, values):
    values = np.asarray(values, "float64")
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(
            f"`{name}` must hold one number for each of at least three models. "
            f"Received an array of shape {values.shape}: {values.tolist()}."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: {values.tolist()}."
        )
    if np.all(values == values[0]):
        raise ValueError(
            f"`{name}` is the same for all models, so nothing correlates with it. "
            f"Received: {values.tolist()}."
        )
    return values
