"""drift_sweep and monte_carlo: chips as they are programmed, and as they age."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.analysis.chip_bench import ChipBench, devices_of, evaluate_in_one_call
from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.study import ChipStudy, StudyOptions
from hwa_keras.core.checks import check_choice
from hwa_keras.core.types import ArrayLike, Data, Unpack
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.compensation import (
    COMPENSATIONS,
    Compensation,
    as_compensation,
)
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices.device import check_time
from hwa_keras.noise.noise_device import DeviceLike, DeviceRules
from hwa_keras.results import Axis, Result

__all__ = ["TIMES", "DriftPoints", "ProgrammedPoints", "drift_sweep", "monte_carlo"]

TIMES = {
    "1 s": 1.0,
    "1 hour": 3600.0,
    "1 day": 86_400.0,
    "1 month": 2_592_000.0,
    "1 year": 31_536_000.0,
}
_TITLES = {
    "none": "no compensation",
    "oracle": "oracle",
    "measured": "measured GDC",
    "measured_columns": "measured by column",
    "measured_ideal": "against targets",
    "measured_columns_ideal": "against targets, by column",
}


def drift_sweep(
    model: keras.Model,
    device: DeviceLike | None = "pcm",
    data: Data | None = None,
    *,
    times: ArrayLike | dict[str, float] | None = None,
    compensation: str | Compensation | Sequence[str | Compensation] = COMPENSATIONS,
    read_noise: str = "frozen",
    rules: DeviceRules = (),
    calibrate: str = "batchnorm",
    verify: int = 0,
    verify_tolerance: float = 0.02,
    **study: Unpack[StudyOptions],
) -> Result:
    """Program many chips and evaluate each at many times.

    Chip i is the one that `program(model, device, seed=seed + i)` gives. It is
    programmed once, and read at each time.

    Args:
        model: A built and compiled Keras model, as `program` takes it.
        device: A device or its name. Defaults to `"pcm"`.
        data: What to evaluate on, as in `analysis.ChipStudy`.
        times: Seconds since the end of programming: a list, or a dictionary from
            labels to seconds. Defaults to 1 s, 1 hour, 1 day, 1 month and 1 year.
        compensation: What `program` takes, or a list of such. The result knows each by
            its name. Defaults to `"none"`, `"oracle"` and `"measured"`.
        read_noise: As in `program`. Defaults to `"frozen"`: each chip keeps one draw
            of read noise.
        rules: Rules by layer, as in `program`.
        calibrate: What of a chip the calibration inputs calibrate: `"batchnorm"`, the
            statistics, by `adapt_batchnorm`; or `"outputs"`, a gain and an offset of
            each column, by `calibrate_outputs`. Defaults to `"batchnorm"`.
        verify, verify_tolerance: Rounds of closed-loop programming and its tolerance,
            the `verify` and `tolerance` of `program`.
        **study: Options of `analysis.ChipStudy`: metric, chips, seed, calibration,
            tolerance, min_chips, batch_size, executor, verbose.

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
    points = DriftPoints(
        device,
        times=times,
        compensation=compensation,
        read_noise=read_noise,
        rules=rules,
        calibrate=calibrate,
        verify=verify,
        verify_tolerance=verify_tolerance,
    )
    return ChipStudy(model, data, **study).run(points)


def monte_carlo(
    model: keras.Model,
    device: DeviceLike | None,
    data: Data,
    *,
    read_noise: str = "frozen",
    rules: DeviceRules = (),
    calibrate: str = "batchnorm",
    verify: int = 0,
    verify_tolerance: float = 0.02,
    **study: Unpack[StudyOptions],
) -> Result:
    """Program many chips and evaluate each once, right after programming.

    What comes out tells how far chips of one design lie apart: under the noise of
    programming, under process variation, with stuck devices, with wrong bits.

    Args:
        model: A built and compiled Keras model, as `program` takes it.
        device: A device, its name or a noise, as in `program`.
        data: What to evaluate on, as in `analysis.ChipStudy`.
        read_noise: As in `program`. Defaults to `"frozen"`: each chip is evaluated
            with one draw of read noise.
        rules, calibrate, verify, verify_tolerance: As in `drift_sweep`.
        **study: Options of `analysis.ChipStudy`, as in `drift_sweep`.

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
    points = ProgrammedPoints(
        device,
        read_noise=read_noise,
        rules=rules,
        calibrate=calibrate,
        verify=verify,
        verify_tolerance=verify_tolerance,
    )
    return ChipStudy(model, data, **study).run(points)


class ProgrammedPoints(Points):
    """The one point of `monte_carlo`: a chip right after programming.

    The arguments are those of `monte_carlo`.
    """

    compensations: list = ["none"]

    def __init__(
        self,
        device: DeviceLike | None,
        *,
        read_noise: str = "frozen",
        rules: DeviceRules = (),
        calibrate: str = "batchnorm",
        verify: int = 0,
        verify_tolerance: float = 0.02,
    ) -> None:
        self.device, self.read_noise, self.rules = device, read_noise, rules
        self.calibrate = check_choice(
            "a study", ("batchnorm", "outputs"), calibrate=calibrate
        )
        self.verify, self.verify_tolerance = verify, verify_tolerance

    def chip(self, model: keras.Model) -> Chip:
        """A chip of the model, not written yet."""
        # One per column first: it gives the chip its gains before anything is compiled.
        first = min(self.compensations, key=lambda name: as_compensation(name).per)
        chip = blank_chip(
            model,
            self.device,
            first,
            self.read_noise,
            rules=self.rules,
            verify=self.verify,
            tolerance=self.verify_tolerance,
        )
        evaluate_in_one_call(chip)
        return chip

    def bench(self, study: ChipStudy) -> Bench:
        return ChipBench(self.chip(study.model), study, self.calibrate, self.read_noise)


class DriftPoints(ProgrammedPoints):
    """The points of `drift_sweep`: each compensation at each time.

    Args:
        device: A device or its name, as in `program`.
        times, compensation: As in `drift_sweep`.
        **options: The arguments of `ProgrammedPoints`.
    """

    def __init__(
        self,
        device: DeviceLike | None = "pcm",
        *,
        times: ArrayLike | dict[str, float] | None = None,
        compensation: str | Compensation | Sequence[str | Compensation] = COMPENSATIONS,
        **options: Any,
    ) -> None:
        super().__init__(device, **options)
        self.times = _labelled(TIMES if times is None else times)
        self.compensations = _as_list(compensation)
        self.axes = drift_axes(self.compensations, self.times)

    def bench(self, study: ChipStudy) -> Bench:
        chip = self.chip(study.model)
        for t in self.times.values():
            chip.check_time(t)
        return _DriftBench(chip, study, self.calibrate, self.read_noise, self.times)


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


class _DriftBench(ChipBench):
    def __init__(self, chip, study, calibrate, read_noise, times):
        super().__init__(chip, study, calibrate, read_noise)
        self.times, self._is_known_to_drift = times, False

    def write(self, seed):
        super().write(seed)
        if not self._is_known_to_drift:
            _warn_if_nothing_drifts(self.model, max(self.times.values()))
            self._is_known_to_drift = True

    def put(self, point):
        compensation, label = point
        self.model.compensation = compensation
        self.model.t = self.times[label]
        super().put(point)


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
            f"programmed on {devices_of(chip)}. Check the device's drift settings and "
            "the times.",
            stacklevel=6,
        )
