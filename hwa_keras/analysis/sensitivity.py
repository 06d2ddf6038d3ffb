"""Sensitivity: which layers must be reliable, and which need not be."""

from hwa_keras.analysis.variation import Exact, Variation, checked_noise, measured
from hwa_keras.core.checks import check_count, check_not_negative
from hwa_keras.core.kernels import distinct
from hwa_keras.deployment.batchnorm import calibration_batches
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.deployment.sweep import (
    check_compiled,
    chosen_metric,
    evaluable,
    progress_bar,
)
from hwa_keras.devices.bits import check_error_rate
from hwa_keras.noise.bit_flip import BitFlip, bit_flip_of
from hwa_keras.results import Axis, Result

__all__ = ["layer_sensitivity"]

_P = 0.5  # Of the noises that are made here: a power of 2, so that factors are exact.


def layer_sensitivity(
    model,
    data,
    p_base=0.01,
    p_probe=0.5,
    repeats=10,
    noise=None,
    metric=None,
    calibration=None,
    seed=0,
    batch_size=256,
    verbose=1,
):
    """Measure a model with one kernel at a time read through much more noise.

    All kernels are read through noise of the level `p_base`, and one of them at
    `p_probe` instead; by default wrong bits, of which at p = ½ nothing of the kernel
    is left. The metric falls where the layer is critical, and stays where it could be
    less reliable, and cost less, than the others. With `p_probe` below `p_base` the
    question is which layer is worth more care.

    Every level is measured on the same chips: the draws of a kernel stay, whichever
    is probed. All evaluations share one compiled graph.

    Args:
        model: A built and compiled Keras model, as `hwa_keras.program` takes it:
            kernels on hardware are those quantized as in training. It is not changed.
        data: What to evaluate on: a pair of arrays `(x, y)`, or anything else that
            `model.evaluate` takes as one argument, such as a batched
            `tf.data.Dataset`.
        p_base: Float in [0, ½], the probability that a bit of any kernel is read
            wrong; with another `noise` a float ≥ 0, a factor on its scale. Defaults
            to `0.01`.
        p_probe: The same, for the kernel in question. Defaults to `0.5`.
        repeats: Integer ≥ 1, the number of chips. Defaults to `10`.
        noise: A `hwa_keras.noise.Noise` or its name. None flips bits: of each kernel
            as the `BitFlip` that it was trained with, or else as `BitFlip(p)`.
            Defaults to `None`.
        metric: Name of the compiled metric (or `"loss"`) that tables and plots show.
            Defaults to the first metric, else the loss. All are measured.
        calibration: Inputs, as `hwa_keras.adapt_batchnorm` takes them, on which the
            batch-norm statistics of each chip are re-estimated before it is
            evaluated (AdaBS); or None.
        seed: Integer, the seed of the first chip, as in `robustness_curve`. Defaults
            to `0`.
        batch_size: Integer, for arrays. Defaults to `256`.
        verbose: 0 or 1, whether to show a progress bar (in a log: one line at the
            end). Defaults to `1`.

    Returns:
        A `Result`. Its first level is no kernel probed, such as `"all at 0.01"`; one
        for each kernel follows, called by its path, in the order of the model. Each
        has `repeats` samples, in the order of the chips; `result.plot(boxes=True)`
        draws their distributions.

    Raises:
        TypeError: If `noise` is no noise of hwa_keras.
        ValueError: If the model is not compiled, bits are to be flipped of a kernel
            without a quantizer, the data is empty or an argument is out of its range.

    Example:
        >>> bits = dict(use_bias=False, kernel_quantizer="ste_sign")
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     hwa_keras.layers.HWADense(4, **bits, name="hidden"),
        ...     hwa_keras.layers.HWADense(3, **bits, name="head"),
        ... ])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> found = hwa_keras.analysis.layer_sensitivity(
        ...     model, data, repeats=3, verbose=0
        ... )
        >>> found.levels
        ['all at 0.01', 'hidden/kernel', 'head/kernel']

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.3.1 and
          figure 4.3 (1 % and 50 %, ten repeats).
    """
    check_count("layer_sensitivity", repeats=repeats)
    noise, quantity = _checked(noise, p_base, p_probe)
    chip = blank_chip(model, Exact(), "none", "off", verbose=verbose)
    check_compiled(chip, model)
    variation = Variation(chip, noise)
    unit = _P if noise is _bit_flips else 1.0
    data = evaluable(data, batch_size)
    if calibration is not None:
        calibration = calibration_batches(calibration)
    paths = distinct(kernel.path for kernel in chip.programmed_kernels())
    found = {(level,): {} for level in (f"all at {p_base:g}", *paths)}
    bar = progress_bar(len(found) * repeats, verbose)
    for number in range(repeats):
        base = variation(p_base / unit, seed + number)
        probes = variation(p_probe / unit, seed + number)
        for i, chips in enumerate(found.values(), start=-1):
            one = [probes[i] if k == i else w for k, w in enumerate(base)]
            chips[number] = measured(chip, one, seed + number, data, calibration)
            metric = chosen_metric(metric, chips[number])
            bar.add(1)
    axis = Axis("kernel", [level for (level,) in found], label=quantity)
    return Result(model.name, metric, [axis], found, {"seed": seed})


def _checked(noise, p_base, p_probe):
    """The noise, or what gives each kernel its noise, and what the levels are."""
    levels = {"p_base": p_base, "p_probe": p_probe}
    if noise is None:
        check_error_rate("layer_sensitivity", **levels)
        return _bit_flips, f"kernel at p = {p_probe:g}, others at {p_base:g}"
    noise = checked_noise(noise)
    check_not_negative("layer_sensitivity", **levels)
    name = type(noise).__name__
    return noise, f"kernel at scale {p_probe:g} of {name}, others at {p_base:g}"


def _bit_flips(kernel):
    """Flips of the bits of a kernel, stored as its own `BitFlip` has them."""
    noise = (bit_flip_of(kernel.noise) or BitFlip(_P)).for_kernel(kernel)
    noise.p.assign(_P)
    noise.scale.assign(1.0)
    return noise
