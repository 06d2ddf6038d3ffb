"""drift_sweep and monte_carlo: many chips, evaluated one after the other."""

import functools
import sys
import warnings

import keras
import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.deployment.batchnorm import calibration_batches, reestimate
from hwa_keras.deployment.compensation import (
    COMPENSATIONS,
    Compensation,
    as_compensation,
)
from hwa_keras.deployment.output_calibration import OutputCalibration
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices.device import check_time
from hwa_keras.results import Axis, Result
from hwa_keras.results.estimates import is_precise

__all__ = ["TIMES", "drift_sweep", "monte_carlo"]

_TITLES = {
    "none": "no compensation",
    "oracle": "oracle",
    "measured": "measured GDC",
    "measured_columns": "measured by column",
    "measured_ideal": "against targets",
    "measured_columns_ideal": "against targets, by column",
}
TIMES = {
    "1 s": 1.0,
    "1 hour": 3600.0,
    "1 day": 86_400.0,
    "1 month": 2_592_000.0,
    "1 year": 31_536_000.0,
}


def drift_sweep(
    model,
    device="pcm",
    data=None,
    times=None,
    chips=25,
    compensation=COMPENSATIONS,
    metric=None,
    tolerance=None,
    read_noise="frozen",
    seed=0,
    batch_size=256,
    rules=(),
    verbose=1,
    calibration=None,
    calibrate="batchnorm",
    verify=0,
    verify_tolerance=0.02,
    min_chips=30,
):
    """Program many chips and evaluate each at many times.

    All chips run in one compiled graph. Chip i is the one that
    `program(model, device, seed=seed + i)` gives.

    Args:
        model: A built and compiled Keras model, as `program` takes it.
        device: A device or its name. Defaults to `"pcm"`.
        data: What to evaluate on: a pair of arrays `(x, y)`, or anything else that
            `model.evaluate` takes as one argument, such as a batched
            `tf.data.Dataset`.
        times: Seconds since the end of programming: a list, or a dictionary from
            labels to seconds. Defaults to 1 s, 1 hour, 1 day, 1 month and 1 year.
        chips: Integer ≥ 1, the number of chips, or with `tolerance` the largest
            number; or a `range` of their numbers i, the share of one of several
            machines, whose results `Result.join` puts together. Defaults to `25`.
        compensation: What `program` takes, or a list of such. The result knows each by
            its name. Defaults to `"none"`, `"oracle"` and `"measured"`.
        metric: Name of the compiled metric (or `"loss"`) that early stopping, tables
            and plots look at. Defaults to the first metric, else the loss.
        tolerance: Float, or None. Stop once the 95 % interval of the mean of `metric`
            is within ± tolerance at every time and compensation, after `min_chips` at
            the earliest.
        read_noise: As in `program`. Defaults to `"frozen"`: each chip keeps one draw
            of read noise.
        seed: Integer, the seed of the first chip. Defaults to `0`.
        batch_size: Integer, for arrays. Defaults to `256`.
        rules: Rules by layer, as in `program`.
        verbose: 0 or 1, whether to show a progress bar (in a log: one line at the
            end). Defaults to `1`.
        calibration: Inputs, as `adapt_batchnorm` takes them, or None. With inputs,
            each chip is calibrated before each evaluation, each time from what it was
            when it was written.
        calibrate: What of a chip the calibration inputs calibrate: `"batchnorm"`, the
            statistics, by `adapt_batchnorm`; or `"outputs"`, a gain and an offset of
            each column, by `calibrate_outputs`. Defaults to `"batchnorm"`.
        verify, verify_tolerance: Rounds of closed-loop programming and its tolerance,
            the `verify` and `tolerance` of `program`.
        min_chips: Integer ≥ 10, the chips before an early stop. Defaults to `30`, of
            which at least one is dead in 96 % of the cases if one of ten is.

    Returns:
        A `hwa_keras.results.Result` over the axes `compensation` and `time`: every
        chip's metrics, estimates, yields, tables, CSV, JSON and a plot.

    Raises:
        ValueError: If the model is not compiled, the data is empty or an argument is
            out of its range.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> result = hwa_keras.drift_sweep(
        ...     model, "pcm", data, times=[1.0, 3600.0], chips=2, verbose=0
        ... )
        >>> result.estimate("measured", "3600 s").count
        2
    """
    times = _labelled(TIMES if times is None else times)
    compensations = _as_list(compensation)
    chips = _numbers(chips)
    _check_numbers("drift_sweep", tolerance, batch_size, min_chips, len(chips))
    # One per column first: it gives the chip its gains before anything is compiled.
    first = min(compensations, key=lambda name: as_compensation(name).per)
    options = {"rules": rules, "verify": verify, "tolerance": verify_tolerance}
    chip = blank_chip(model, device, first, read_noise, **options)
    for t in times.values():
        chip.check_time(t)
    check_compiled(chip, model)
    _evaluate_in_one_call(chip)
    data = evaluable(data, batch_size)
    calibration = _calibration(chip, calibration, calibrate, model)
    bar = progress_bar(len(chips) * len(compensations) * len(times), verbose)
    samples = {(name, label): {} for name in compensations for label in times}
    for i in chips:
        chip.write(seed + i)
        if i == chips[0]:
            _warn_if_nothing_drifts(chip, max(times.values()))
        for point, values in _evaluate_chip(
            chip, data, times, compensations, bar, calibration
        ):
            samples[point][i] = values
            metric = chosen_metric(metric, values)
        if i != chips[-1] and _precise(samples, metric, tolerance, min_chips):
            bar.update(bar.target, finalize=True)
            break
    settings = {"device": _label(chip), "seed": seed, "read_noise": read_noise}
    return Result(
        model.name, metric, drift_axes(compensations, times), samples, settings
    )


def drift_axes(compensations, times):
    """The axes of a sweep over compensations and over times, {label: seconds}."""
    return (
        Axis(
            "compensation",
            compensations,
            label="drift compensation",
            titles=[_TITLES[name] for name in compensations],
        ),
        Axis(
            "time", times, label="time since programming", unit="seconds", is_log=True
        ),
    )


def monte_carlo(
    model,
    device,
    data,
    chips=25,
    seed=0,
    batch_size=256,
    rules=(),
    verbose=1,
    calibration=None,
    tolerance=None,
    metric=None,
    read_noise="frozen",
    calibrate="batchnorm",
    verify=0,
    verify_tolerance=0.02,
    min_chips=30,
):
    """Program many chips and evaluate each once, right after programming.

    What comes out tells how far chips of one design lie apart: under the noise of
    programming, under process variation, with stuck devices, with wrong bits.

    Args:
        model: A built and compiled Keras model, as `program` takes it.
        device: A device, its name or a noise, as in `program`.
        data: What to evaluate on, as in `drift_sweep`.
        chips: Integer ≥ 1, the number of chips, or with `tolerance` the largest
            number. Defaults to `25`.
        seed: Integer, the seed of the first chip: chip i is the one that
            `program(model, device, seed=seed + i)` gives. Defaults to `0`.
        batch_size: Integer, for arrays. Defaults to `256`.
        rules: Rules by layer, as in `program`.
        verbose: 0 or 1, as in `drift_sweep`. Defaults to `1`.
        calibration: As in `drift_sweep`.
        tolerance: Float, or None. Stop once the 95 % interval of the mean of `metric`
            is within ± tolerance, after `min_chips` at the earliest.
        metric: Name of the compiled metric (or `"loss"`) that `tolerance` is about.
            Defaults to the first metric, else the loss.
        read_noise: As in `program`. Defaults to `"frozen"`: each chip is evaluated
            with one draw of read noise.
        calibrate, verify, verify_tolerance, min_chips: As in `drift_sweep`.

    Returns:
        A `hwa_keras.results.Result` of one point: `result.values(metric="accuracy")`
        is an array with a number for each chip.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse", metrics=["mae"])
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> noise = hwa_keras.noise.ProcessVariation(0.1)
        >>> found = hwa_keras.monte_carlo(model, noise, data, chips=3, verbose=0)
        >>> found.values(metric="mae").shape
        (3,)
    """
    check_count("monte_carlo", chips=chips)
    _check_numbers("monte_carlo", tolerance, batch_size, min_chips, chips)
    options = {"rules": rules, "verify": verify, "tolerance": verify_tolerance}
    chip = blank_chip(model, device, "none", read_noise, **options)
    check_compiled(chip, model)
    _evaluate_in_one_call(chip)
    data = evaluable(data, batch_size)
    calibration = _calibration(chip, calibration, calibrate, model)
    bar = progress_bar(chips, verbose)
    samples = {(): {}}
    for i in range(chips):
        chip.write(seed + i)
        samples[()][i] = _evaluate(chip, data, calibration)
        metric = chosen_metric(metric, samples[()][i])
        bar.add(1)
        if i + 1 < chips and _precise(samples, metric, tolerance, min_chips):
            bar.update(bar.target, finalize=True)
            break
    settings = {"device": _label(chip), "seed": seed, "read_noise": read_noise}
    return Result(model.name, metric, (), samples, settings)


def _numbers(chips):
    """The numbers of the chips, as a range."""
    if not isinstance(chips, range):
        chips = range(check_count("drift_sweep", chips=chips))
    if not chips:
        raise ValueError("`chips` is an empty range: there is no chip to program.")
    return chips


def _check_numbers(owner, tolerance, batch_size, min_chips, chips):
    check_count(owner, batch_size=batch_size)
    check_count(owner, least=10, min_chips=min_chips)
    if tolerance is None:
        return
    check_positive(owner, tolerance=tolerance)
    if chips <= min_chips:
        raise ValueError(
            f"`tolerance` of {owner} stops after min_chips={min_chips} chips at the "
            f"earliest, and there are {chips}. Allow more `chips`, or leave "
            "`tolerance` out."
        )


def check_compiled(evaluated, model):
    """Raise `ValueError` if what is to be evaluated of a model is not compiled."""
    if not evaluated.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled. Call model.compile(loss=..., "
            "metrics=[...]) first: the sweep evaluates with its loss and metrics."
        )


def progress_bar(target, verbose):
    """A progress bar of evaluations: in a log, one line at the end."""
    if verbose and not sys.stdout.isatty() and "ipykernel" not in sys.modules:
        verbose = 2  # In a log, one line at the end.
    return keras.utils.Progbar(target, verbose=verbose, unit_name="evaluation")


def _evaluate_chip(chip, data, times, compensations, bar, calibration):
    """Pairs of a point, (compensation, time label), and {metric: value} of one chip."""
    for name in compensations:
        chip.compensation = name
        for label, seconds in times.items():
            chip.t = seconds
            yield (name, label), _evaluate(chip, data, calibration)
            bar.add(1)


def _calibration(chip, inputs, calibrate, model):
    """What calibrates a chip as it is then, or None."""
    check_choice("a sweep", ("batchnorm", "outputs"), calibrate=calibrate)
    if inputs is None:
        if calibrate == "outputs":
            raise ValueError(
                "`calibrate` is 'outputs', and `calibration` is missing. Give inputs, "
                "without labels, to calibrate on."
            )
        return None
    if calibrate == "outputs":
        return OutputCalibration(chip, inputs, model).run
    return functools.partial(reestimate, chip, calibration_batches(inputs))


def _evaluate_in_one_call(chip):
    """Have a chip evaluate all batches in one compiled call, not in one for each."""
    if not chip.run_eagerly:
        steps = max(chip.steps_per_execution, backend.STEPS_PER_EVALUATION)
        chip.steps_per_execution = steps


def _evaluate(chip, data, calibration):
    # What a time gives depends on no time before.
    chip.reset()
    if calibration is not None:
        calibration()
        chip.reset_states()
    return chip.evaluate(**data, return_dict=True, verbose=0)


def _as_list(compensation):
    """The names of one compensation, or of several."""
    is_one = compensation is None or isinstance(compensation, (str, Compensation))
    several = [compensation] if is_one else list(compensation)
    names = [as_compensation(each).name for each in several]
    if not names:
        raise ValueError("`compensation` is empty. Give at least one, such as 'none'.")
    return list(dict.fromkeys(names))


def _labelled(times):
    """{label: seconds}, each of which stands for a time of its own."""
    if isinstance(times, dict):
        pairs = [(str(label), check_time(t)) for label, t in times.items()]
    else:
        seconds = [check_time(t) for t in np.atleast_1d(np.asarray(times, object))]
        pairs = [(f"{t:g} s", t) for t in seconds]
    if not pairs:
        raise ValueError("`times` is empty. Give at least one time, in seconds.")
    for i, (label, t) in enumerate(pairs):
        for before, earlier in pairs[:i]:
            if np.float32(t) == np.float32(earlier):
                raise ValueError(
                    f"`times` holds the same time twice: {earlier!r} s ('{before}') "
                    f"and {t!r} s ('{label}') are one 32-bit number."
                )
            if label == before:
                raise ValueError(
                    f"`times` holds two times that are both called '{label}': "
                    f"{earlier!r} s and {t!r} s. Give a dictionary from labels to "
                    "seconds, in which each has a name of its own."
                )
    return dict(pairs)


def evaluable(data, batch_size):
    """Keyword arguments for `evaluate`, arrays made into batches only once."""
    if data is None:
        raise ValueError("`data` is missing. Give a pair (x, y) or a batched dataset.")
    if not isinstance(data, (tuple, list)):
        if hasattr(data, "cardinality") and int(data.cardinality()) == 0:
            raise ValueError("`data` is an empty dataset: it has nothing to evaluate.")
        return {"x": data}
    if len(data) != 2:
        raise ValueError(f"`data` must be a pair (x, y). Received {len(data)} parts.")
    if len(keras.tree.flatten(data[0])[0]) == 0:
        raise ValueError("`data` is empty: there are no examples to evaluate on.")
    return backend.batched(data[0], data[1], batch_size)


def _warn_if_nothing_drifts(chip, t):
    drifted = any(
        not np.array_equal(
            ops.convert_to_numpy(tile.read(0.0)), ops.convert_to_numpy(tile.read(t))
        )
        for tile in chip.tiles
    )
    if not drifted:
        warnings.warn(
            f"Nothing drifted: up to t = {t:g} s the weights of every tile stay as "
            f"programmed on {_label(chip)}. Check the device's drift settings and the "
            "times.",
            stacklevel=3,
        )


def _label(chip):
    return ", ".join(dict.fromkeys(repr(tile.device) for tile in chip.tiles))


def chosen_metric(metric, values):
    """The metric asked for, or the first of the values found, or else the loss."""
    if metric is None:
        return next((name for name in values if name != "loss"), "loss")
    if metric not in values:
        raise ValueError(
            f"`metric` '{metric}' is not among the compiled ones: {', '.join(values)}."
        )
    return metric


def _precise(samples, metric, tolerance, fewest):
    """Whether the interval of a metric is within a tolerance at all points."""
    return tolerance is not None and all(
        is_precise([values[metric] for values in chips.values()], tolerance, fewest)
        for chips in samples.values()
    )
